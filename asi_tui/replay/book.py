"""The journal of a recorded run, read once by a thread: where each record lies, when it happened, whether it matters.

Records themselves are not held; they are decoded again where they are needed. A run that goes on is followed, and a
damaged journal ends where the damage begins.
"""

from __future__ import annotations

import threading
from array import array
from bisect import bisect_left, bisect_right
from pathlib import Path

from asi_tui.replay.keeping import Keeper
from engine.client.rundir import RunPaths
from store import events as ev
from store.chain import Cursor, JournalCorrupt, segments
from store.state import RunState

EVERY = 2_000
"""Records between checkpoints."""

FOLLOW_SECONDS = 0.5

SEGMENT_SHIFT = 40

QUIET = (ev.AgentCalled, ev.AgentReplied, ev.ExperimentOpened, ev.RiskAssessed, ev.EngineStarted)
"""What a person who goes from event to event is not stopped at."""


class Book:
    """Everything that is known of the journal so far. `total` grows while it is read; `complete` once it was read."""

    def __init__(self, root: Path) -> None:
        self.paths = RunPaths(root)
        self.total = 0
        self.complete = False
        self.damage = ""
        self.times = array("d")
        self.opened: dict[str, int] = {}
        self.openings = array("Q")
        self.calls: dict[str, array[int]] = {}
        self.keeper = Keeper()
        self.read_bytes = 0
        self.all_bytes = 0
        self._offsets = array("Q")
        self._matters = bytearray()
        self._segments: list[Path] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="replay-journal")

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def close(self) -> None:
        """Read no more."""
        self._over.set()
        self._thread.join(5.0)
        self.keeper.close()

    @property
    def share(self) -> float:
        """How much of the journal has been read."""
        return 1.0 if self.complete else min(1.0, self.read_bytes / max(1, self.all_bytes))

    # --- the reading thread ----------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._follow()
        except JournalCorrupt as error:
            self.damage = str(error)
        except (OSError, ValueError) as error:  # ValueError: a record that says what it cannot mean
            self.damage = f"the journal cannot be read after record {self.total}: {error}"
        except (KeyError, AttributeError) as error:
            self.damage = f"record {self.total + 1} speaks of {error}, which no record before it made"
        self.complete = True

    def _follow(self) -> None:
        cursor, number = Cursor(), 0
        while not self._over.is_set():
            paths = segments(self.paths.journal)
            self._segments = paths
            self.all_bytes = sum(path.stat().st_size for path in paths)
            while number < len(paths) and not self._over.is_set():
                self._read_segment(cursor, number, paths[number])
                if number + 1 == len(paths):
                    break
                if cursor.torn:
                    cursor.line += 1
                    raise cursor.corrupt("the segment ends in the middle of a record, and another one follows")
                number, cursor.offset, cursor.line = number + 1, 0, 0
            self.complete = True
            self._over.wait(FOLLOW_SECONDS)

    def _read_segment(self, cursor: Cursor, number: int, path: Path) -> None:
        cursor.segment = path.name
        begin = cursor.offset
        with open(path, "rb") as file:
            for record in cursor.resume(file):
                self._take(number << SEGMENT_SHIFT | begin, record)
                self.read_bytes += cursor.offset - begin
                begin = cursor.offset
                if self._over.is_set():
                    return

    def _take(self, offset: int, record: ev.Record) -> None:
        event = record.data
        self.keeper.take(record)
        self._offsets.append(offset)
        # A clock that was set back must not make the record unfindable: here, time only goes on.
        self.times.append(max(record.time, self.times[-1]) if self.times else record.time)
        self._matters.append(not isinstance(event, QUIET))
        if isinstance(event, ev.ExperimentOpened):
            self.opened.setdefault(event.experiment, record.seq)
            self.openings.append(record.seq)
        elif isinstance(event, ev.AgentCalled | ev.AgentReplied):
            self.calls.setdefault(event.experiment, array("Q")).append(record.seq)
        if record.seq % EVERY == 0:
            self.keeper.keep()
        self.total = record.seq

    # --- where things are ------------------------------------------------------------------------------------------

    def time_of(self, seq: int) -> float:
        """When a record was written, by a clock that never goes back; of the first one for 0."""
        return self.times[max(0, min(seq, self.total) - 1)] if self.total else 0.0

    def at_time(self, when: float) -> int:
        """The last record that was written by then; at least the first."""
        return max(1, bisect_right(self.times, when, 0, self.total)) if self.total else 0

    def matters(self, seq: int, step: int) -> int:
        """The next (or, with -1, the previous) record that matters; the end where there is none."""
        found = self._matters.find(1, seq, self.total) if step > 0 else self._matters.rfind(1, 0, max(0, seq - 1))
        return found + 1 if found >= 0 else (self.total if step > 0 else min(1, self.total))

    def opening(self, seq: int, step: int) -> int:
        """The record with which the next (or previous) experiment begins; the end where there is none."""
        if step > 0:
            index = bisect_right(self.openings, seq)
            return self.openings[index] if index < len(self.openings) else self.total
        index = bisect_left(self.openings, seq) - 1
        return self.openings[index] if index >= 0 else min(1, self.total)

    # --- records and states ----------------------------------------------------------------------------------------

    def records(self, first: int, last: int) -> list[ev.Record]:
        """The records from `first` to `last`, read again; blocks for as long as the disk does."""
        out: list[ev.Record] = []
        while first <= min(last, self.total):
            offset = self._offsets[first - 1]
            number = offset >> SEGMENT_SHIFT
            with open(self._segments[number], "rb") as file:
                file.seek(offset & ((1 << SEGMENT_SHIFT) - 1))
                while first <= min(last, self.total) and self._offsets[first - 1] >> SEGMENT_SHIFT == number:
                    out.append(ev.decode_record(file.readline().rstrip(b"\n")))
                    first += 1
        return out

    def record(self, seq: int) -> ev.Record:
        """One record."""
        return self.records(seq, seq)[0]

    def state(self, seq: int) -> RunState:
        """The state after a record. Blocks; not for the event loop."""
        mark = self.keeper.before(seq)
        return self.keeper.restore(mark, self.records(mark.seq + 1 if mark is not None else 1, seq))
