"""A check of a whole run: chain, blobs, curves, anchors, and by `store.accounting` who allowed what."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from store import events as ev
from store import journal
from store.accounting import Accounting
from store.anchors import Anchor
from store.blobs import BlobError, Blobs, is_sha
from store.curves import is_trial_id
from store.folding import fold
from store.state import RunState
from store.telling import clean

BLOB_FIELDS = (
    "config", "prompt", "brief", "asked", "reply", "program", "report", "old", "new", "result", "policy", "signers",
)  # fmt: skip
"""Fields of events that name a blob, or are empty."""


class Problem(NamedTuple):
    """Something that is not as it must be; `seq` is the record in question, 0 where it is none in particular."""

    seq: int
    what: str

    def __str__(self) -> str:
        return f"record {self.seq}: {self.what}" if self.seq else self.what


class AuditReport(NamedTuple):
    """The outcome of a full check. `head` is the last good hash: kept elsewhere, it shows any later rewriting.

    signatures: so many were checked. anchors: so many were compared, of those that were given.
    """

    records: int
    head: str
    blobs: int
    launches: int
    problems: list[Problem]
    signatures: int = 0
    anchors: int = 0

    @property
    def ok(self) -> bool:
        """Nothing was found."""
        return not self.problems

    @property
    def first(self) -> Problem | None:
        """The first bad record."""
        return min(self.problems, default=None)


class _Audit:
    """Goes through the records in order and collects what is wrong."""

    def __init__(self, run: Path, anchors: Sequence[Anchor]) -> None:
        self.run, self.blobs = run, Blobs(run / "blobs")
        self.state = RunState()
        self.problems: list[Problem] = []
        self.seen: set[str] = set()
        self.anchors: dict[int, set[str]] = {}
        for anchor in anchors:
            self.anchors.setdefault(anchor.seq, set()).add(anchor.hash)
        self.compared = 0
        self.accounting = Accounting(self.blobs, self.state, self.bad)

    def take(self, record: ev.Record) -> None:
        self._blobs(record)
        self._anchored(record)
        event = record.data
        self.accounting.take(record)
        if isinstance(event, ev.TrialFinished):
            self._points(record, event)
        try:
            fold(self.state, record)
        except KeyError as missing:
            self.bad(record, f"{event.kind} speaks of {clean(str(missing), 60)}, of which nothing is known")

    def bad(self, record: ev.Record, what: str) -> None:
        self.problems.append(Problem(record.seq, what))

    def end(self, last: int) -> None:
        """Name the anchors of records that are not there."""
        for seq in sorted(self.anchors):
            if seq > last or seq < 1:
                what = f"record {seq} was anchored and is not there: the end of the history was cut off or rewritten"
                self.problems.append(Problem(0, what))

    def _anchored(self, record: ev.Record) -> None:
        for hashed in sorted(self.anchors.get(record.seq, ())):
            self.compared += 1
            if hashed != record.hash:
                self.bad(record, f"history was rewritten: the hash was {hashed[:16]}… when it was anchored")

    def _blobs(self, record: ev.Record) -> None:
        for field in BLOB_FIELDS:
            sha = getattr(record.data, field, "")
            if not sha or sha in self.seen:
                continue
            self.seen.add(sha)
            try:
                self.blobs.get(sha)
            except BlobError as error:
                self.bad(record, f"{field} of {record.data.kind}: {clean(str(error))}")

    def _points(self, record: ev.Record, event: ev.TrialFinished) -> None:
        """The curve must be the one whose hash the journal holds; one that was cleaned away cannot be checked."""
        if event.cached or not is_sha(event.points_hash) or not is_trial_id(event.trial):
            return
        path = self.run / "trials" / event.trial / "work" / "points.jsonl"
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        except OSError as error:
            self.bad(record, f"points of trial {event.trial} cannot be read: {error.strerror}")
            return
        with os.fdopen(descriptor, "rb") as file:
            regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
            if not regular or hashlib.file_digest(file, "sha256").hexdigest() != event.points_hash:
                self.bad(record, f"points of trial {event.trial} are not those that were scored")


def verify_run(run: Path, anchors: Sequence[Anchor] = ()) -> AuditReport:
    """Check the chain, every blob, signature, approval, launch and curve of a run. Works beside a running engine.

    anchors: records whose hashes were kept elsewhere; each must still be part of the history.
    """
    audit = _Audit(run, anchors)
    try:
        for record in journal.read(run / "journal"):
            audit.take(record)
    except journal.JournalCorrupt as corrupt:
        audit.problems.append(Problem(corrupt.seq, f"journal/{corrupt.segment} line {corrupt.line}: {corrupt.reason}"))
    else:
        chain = journal.verify(run / "journal")
        if chain.first_bad is not None:
            segment, line, seq, reason = chain.first_bad
            audit.problems.append(Problem(seq, f"journal/{segment} line {line}: {reason}"))
        elif not chain.records:
            audit.problems.append(Problem(0, "there is no journal, or it is empty"))
        audit.end(audit.state.seq)
    return AuditReport(
        audit.state.seq, audit.state.head, len(audit.seen), audit.accounting.launches, audit.problems,
        audit.accounting.signatures, audit.compared,
    )  # fmt: skip
