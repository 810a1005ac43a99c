"""Checkpoints of the folded state, so that any place of a long journal is reached by folding a few records.

A checkpoint holds what changed since the one before: experiments are kept in groups, with their trials and requests,
and a group that was not touched is the one that an earlier checkpoint wrote. All of it lies in a temporary file.
"""

from __future__ import annotations

import contextlib
import gc
import tempfile
import threading
import zlib
from array import array
from bisect import bisect_right
from collections.abc import Iterator
from typing import Any, NamedTuple, TypeVar

import msgspec

from store import events as ev
from store.folding import fold
from store.state import Experiment, Request, RunState, Trial

GROUP = 64
"""Experiments that are kept together."""

NONE = 2**64 - 1
"""The place of a group that is not there."""


T = TypeVar("T")


class Group(msgspec.Struct, array_like=True):
    """Experiments that were opened one after the other, and what belongs to them."""

    experiments: list[Experiment] = []
    trials: list[Trial] = []
    requests: list[Request] = []


class Checkpoint(NamedTuple):
    """The state after record `seq`: where its groups and the rest lie, and how many of each kind there are."""

    seq: int
    rest: int
    groups: array[int]
    experiments: int
    trials: int
    requests: int


class Keeper:
    """Folds a journal while it is read the first time, writes checkpoints of it, and makes states from them.

    A state that it gives away shares with the newest one whatever no later record has changed; where a later one comes,
    the newest state changes a copy.
    """

    def __init__(self) -> None:
        self.state = RunState()
        self.marks: list[Checkpoint] = []
        self._seqs = array("Q")
        self._file = tempfile.TemporaryFile(prefix="asi-replay-")  # noqa: SIM115 - as long as the replay
        self._end = 0
        self._lock = threading.Lock()
        self._group_of: dict[str, int] = {}
        self._places = array("Q")
        self._names: tuple[list[str], list[str], list[str]] = ([], [], [])
        self._members: list[tuple[list[str], list[str], list[str]]] = []
        self._dirty: set[int] = set()
        self._newest = threading.Lock()
        self._lent = False
        self._own: set[int] = set()

    def close(self) -> None:
        """Give the file up."""
        with self._lock:
            self._file.close()

    def group(self, record: ev.Record) -> int | None:
        """The group that a record changes."""
        return self._group_of.get(getattr(record.data, "experiment", ""))

    # --- writing: the reading thread only --------------------------------------------------------------------------

    def take(self, record: ev.Record) -> None:
        """Fold a record into the newest state, and take down what it adds and changes."""
        with self._newest:
            number = self.group(record)
            if self._lent and number is not None and number not in self._own:
                self._copy(number)
            fold(self.state, record)
            self._note(record)

    def _copy(self, number: int) -> None:
        """Make what others may have into an own copy, before it is changed."""
        group = msgspec.msgpack.decode(msgspec.msgpack.encode(self._group(number)), type=Group)
        self.state.experiments.update((one.id, one) for one in group.experiments)
        self.state.trials.update((one.id, one) for one in group.trials)
        self.state.requests.update((one.id, one) for one in group.requests)
        self._own.add(number)

    def _note(self, record: ev.Record) -> None:
        event = record.data
        if isinstance(event, ev.ExperimentOpened) and event.experiment not in self._group_of:
            number = len(self._names[0]) // GROUP
            if number == len(self._members):
                self._members.append(([], [], []))
                self._places.append(NONE)
            self._group_of[event.experiment] = number
            self._add(0, number, event.experiment)
        changed = self.group(record)
        if changed is None:
            return
        self._dirty.add(changed)
        if (isinstance(event, ev.TrialStarted) and not event.resumed) or isinstance(event, ev.TrialFinished):
            self._add(1, changed, event.trial)  # one that the cache answered is finished without a start
        elif isinstance(event, ev.ApprovalRequested):
            self._add(2, changed, event.request)

    def _add(self, kind: int, number: int, name: str) -> None:
        members = self._members[number][kind]
        if name not in members:
            members.append(name)
            self._names[kind].append(name)

    def _group(self, number: int) -> Group:
        names, state = self._members[number], self.state
        return Group(
            [state.experiments[name] for name in names[0]],
            [state.trials[name] for name in names[1]],
            [state.requests[name] for name in names[2]],
        )

    def keep(self) -> None:
        """Write a checkpoint of the newest state."""
        with self._newest:
            for number in self._dirty:
                self._places[number] = self._write(self._group(number))
            self._dirty.clear()
            rest = self._write(msgspec.structs.replace(self.state, experiments={}, trials={}, requests={}))
            counts = (len(names) for names in self._names)
            self.marks.append(Checkpoint(self.state.seq, rest, array("Q", self._places), *counts))
            self._seqs.append(self.state.seq)

    def _write(self, value: Any) -> int:
        content = zlib.compress(msgspec.msgpack.encode(value), 1)
        with self._lock:
            place = self._end
            self._file.seek(place)
            self._file.write(len(content).to_bytes(8, "big") + content)
            self._end += 8 + len(content)
        return place

    def _read(self, place: int) -> bytes:
        with self._lock:
            self._file.seek(place)
            size = int.from_bytes(self._file.read(8), "big")
            content = self._file.read(size)
        return zlib.decompress(content)

    # --- reading: any thread ---------------------------------------------------------------------------------------

    def before(self, seq: int) -> Checkpoint | None:
        """The last checkpoint at or before a record."""
        index = bisect_right(self._seqs, seq)
        return self.marks[index - 1] if index else None

    def restore(self, mark: Checkpoint | None, records: list[ev.Record]) -> RunState:
        """The state after `records`, which follow the checkpoint."""
        state = RunState()
        if mark is not None:
            state = msgspec.msgpack.decode(self._read(mark.rest), type=RunState)
            with _no_collecting():
                self._fill(state, mark, {number for record in records if (number := self.group(record)) is not None})
        for record in records:
            fold(state, record)
        return state

    def _fill(self, state: RunState, mark: Checkpoint, changed: set[int]) -> None:
        """Everything as it was at the checkpoint; what the records will change must be nobody else's."""
        decode = msgspec.msgpack.Decoder(Group).decode
        with self._newest:
            newest = self.state
            same = {
                number for number, place in enumerate(mark.groups)
                if place == self._places[number] and number not in self._dirty and number not in changed
            }  # fmt: skip
            state.experiments = _picked(self._names[0][: mark.experiments], newest.experiments)
            state.trials = _picked(self._names[1][: mark.trials], newest.trials)
            state.requests = _picked(self._names[2][: mark.requests], newest.requests)
            self._lent = True
            self._own.clear()
        for number, place in enumerate(mark.groups):
            if number not in same and place != NONE:
                group = decode(self._read(place))
                state.experiments.update((one.id, one) for one in group.experiments)
                state.trials.update((one.id, one) for one in group.trials)
                state.requests.update((one.id, one) for one in group.requests)


@contextlib.contextmanager
def _no_collecting() -> Iterator[None]:
    """Many objects are made or named here, none of them rubbish: looking for it would take most of the time."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def _picked(names: list[str], source: dict[str, T]) -> dict[str, T]:
    """The named ones, in the order in which they came, which is that of the state itself."""
    return dict(zip(names, map(source.__getitem__, names), strict=True))
