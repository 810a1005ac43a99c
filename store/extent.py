"""How far a run goes up to one of its records, and which files belong to that much of it.

What a copy of a run is made from: the fork takes the run up to an experiment's end, the bundle up to the last record on
disk. Works beside a running engine, because a journal only ever grows at its end and blobs never change.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from store import events as ev
from store.audit import BLOB_FIELDS, clean
from store.blobs import is_sha
from store.chain import Cursor, JournalCorrupt, segments
from store.curves import is_trial_id
from store.folding import fold
from store.staging import open_below
from store.state import RunState

LAST = "last"
"""In place of an experiment: as far as the journal goes."""
CALLS = "calls/index.jsonl"
ORIGIN = "origin/"
"""In an imported run: what its first exporter said about it."""
MAX_EXTRA = 256 * 1024 * 1024
MAX_CALL_LINE = 1024 * 1024


class ExtentError(Exception):
    """The run does not reach as far as was asked, or is damaged before; the message is one line."""


class Extent(NamedTuple):
    """A run up to record `seq` with the hash `head`.

    segments: names of the journal's segments and how many bytes of each. blobs: the sha256 of all that the records
    name. curves: trials that ran here and ended, with the sha256 of their points where they were scored. calls: the
    lines of the record of calls that belong to it.
    """

    run: Path
    at: str
    seq: int
    head: str
    segments: list[tuple[str, int]]
    state: RunState
    blobs: list[str]
    curves: dict[str, str]
    calls: list[bytes]


class _Call(msgspec.Struct):
    """What is needed of a line of the record of calls."""

    asked: str
    experiment: str = ""
    reply: str = ""


def survey(run: Path, at: str = LAST) -> Extent:
    """Read the journal up to the record that closed experiment `at`, checking its chain on the way.

    Raises:
        ExtentError: there is no such experiment, it is still open, or the journal is damaged.
        OSError: it cannot be read.
    """
    state = RunState()
    sizes: dict[str, int] = {}
    blobs: dict[str, None] = {}
    curves: dict[str, str] = {}
    try:
        for record, cursor in _walk(run / "journal"):
            fold(state, record)
            sizes[cursor.segment] = cursor.offset
            event = record.data
            blobs.update(dict.fromkeys(sha for field in BLOB_FIELDS if (sha := getattr(event, field, ""))))
            if isinstance(event, ev.TrialFinished) and not event.cached and is_trial_id(event.trial):
                curves[event.trial] = event.points_hash
            elif isinstance(event, ev.TrialFailed | ev.TrialKilled) and is_trial_id(event.trial):
                curves[event.trial] = ""
            if at != LAST and isinstance(event, ev.ExperimentClosed) and event.experiment == at:
                break
        else:
            _refuse_beyond(run, state, at)
    except JournalCorrupt as error:
        raise ExtentError(f"{run.name}: {error}; `asi audit {run.name} --verify` says more") from error
    except KeyError as error:
        raise ExtentError(f"{run.name}: a record speaks of {clean(str(error), 60)}, which is not known") from None
    if not state.seq:
        raise ExtentError(f"{run.name} has no journal yet, or it is empty")
    known = {name for name, entry in state.experiments.items() if at == LAST or not entry.open}
    calls = _calls(run, set(blobs), known)
    blobs.update(dict.fromkeys(sha for line, call in calls for sha in (call.asked, call.reply) if sha))
    return Extent(
        run, at, state.seq, state.head, list(sizes.items()), state, [sha for sha in blobs if is_sha(sha)], curves,
        [line for line, _ in calls],
    )  # fmt: skip


def _refuse_beyond(run: Path, state: RunState, at: str) -> None:
    if at == LAST:
        return
    entry = state.experiments.get(at)
    if entry is not None:
        raise ExtentError(f"{at} is still open (next: {entry.step}); wait for its end, or take all: --at {LAST}")
    closed = [name for name, entry in state.experiments.items() if not entry.open]
    hint = f"the newest that is closed is {clean(closed[-1], 60)}" if closed else f"none is closed yet; --at {LAST}"
    raise ExtentError(f"{run.name} has no experiment {clean(at, 60)!r}; {hint}")


def _walk(journal: Path) -> Iterator[tuple[ev.Record, Cursor]]:
    """Every record with the cursor just behind it; a last line without an end is being written, and left out."""
    cursor = Cursor()
    for number, path in enumerate(segments(journal), start=1):
        if cursor.torn or path.name != f"{number:06}.jsonl":
            cursor.line += 1
            raise cursor.corrupt("the segment ends in the middle of a record, or the one after it is missing")
        for record in cursor.walk(path):
            yield record, cursor


def _calls(run: Path, blobs: set[str], experiments: set[str]) -> list[tuple[bytes, _Call]]:
    """The recorded calls that this much of the run has made: those it names, and all of the experiments it knows."""
    kept: list[tuple[bytes, _Call]] = []
    try:
        file = open_below(run, CALLS)
    except OSError:
        return kept  # no model was ever asked
    with file:
        while line := file.readline(MAX_CALL_LINE):
            try:
                call = msgspec.json.decode(line, type=_Call)
            except (msgspec.MsgspecError, UnicodeDecodeError):
                continue  # torn by a crash: it had no effect
            ours = call.asked in blobs or call.experiment in experiments
            if line.endswith(b"\n") and ours and all(_is_there(run, sha) for sha in (call.asked, call.reply) if sha):
                kept.append((line, call))
    return kept


def _is_there(run: Path, sha: str) -> bool:
    return is_sha(sha) and (run / "blobs" / sha).is_file()


def extra_files(run: Path) -> list[str]:
    """Files beside journal, blobs and trials that make the run what it is.

    Its policy, papers that were added to it, and what its first exporter said about it, where it was imported.
    """
    found = [run / "policy.toml", *sorted((run / "cognition").glob("*.toml")), *sorted((run / ORIGIN).rglob("*"))]
    return [path.relative_to(run).as_posix() for path in found if path.is_file() and not path.is_symlink()]


def curve_files(trial: str) -> tuple[str, str]:
    """A trial's training points and the scorer's, as paths in the run directory."""
    return f"trials/{trial}/work/points.jsonl", f"trials/{trial}/scores.jsonl"
