"""Anchors: a record's number and hash, kept where the run's owner cannot change them unseen.

The chain shows a changed record, but not a tail that was rewritten with all its hashes made anew. Whoever kept the
head's hash elsewhere can tell: the journal still holds that record, or its history was rewritten.
"""

from __future__ import annotations

import datetime
import re
from pathlib import Path
from typing import NamedTuple

from store import chain
from store import events as ev

MAX_BYTES = 16 * 1024 * 1024
_LINE = re.compile(r"(\S{1,200}) ([0-9]{1,12}) ([0-9a-f]{64}) (\S{1,40})")
_PAIR = re.compile(r"([0-9]{1,12}):([0-9a-f]{64})")


class AnchorError(Exception):
    """There is no anchor to be had; the message is one line."""


class Anchor(NamedTuple):
    """Record `seq` had this hash; `time` is the record's own, in words (UTC)."""

    run: str
    seq: int
    hash: str
    time: str

    def __str__(self) -> str:
        return f"{self.run} {self.seq} {self.hash} {self.time}"


def head_of(run: str, journal: Path) -> Anchor:
    """The last record of a journal, after a check of its last segment. Works beside a running engine.

    Raises:
        AnchorError: there is no record, or the segment is not what was written.
    """
    last: ev.Record | None = None
    try:
        paths = chain.segments(journal)
        for index in range(len(paths) - 1, -1, -1):
            cursor = chain.Cursor(*chain.last_record(paths[index - 1])) if index else chain.Cursor()
            for record in cursor.walk(paths[index]):
                last = record
            if last is not None:  # a segment that was just begun holds nothing yet
                break
    except (chain.JournalError, OSError) as error:
        raise AnchorError(f"{run}: {error}; `asi audit --verify` says more") from None
    if last is None:
        raise AnchorError(f"{run} has no record yet")
    moment = datetime.datetime.fromtimestamp(last.time, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return Anchor(run, last.seq, last.hash, moment)


def parse_pair(text: str) -> Anchor:
    """Read `SEQ:HASH`. Raises `AnchorError`."""
    found = _PAIR.fullmatch(text)
    if found is None:
        raise AnchorError(f"{text[:80]!r} is no anchor; it must be SEQ:HASH with the 64 hex digits of `asi anchor`")
    return Anchor("", int(found[1]), found[2], "")


def parse_lines(text: str, run: str, name: str) -> list[Anchor]:
    """The anchors of one run in a file of lines as `asi anchor` prints them; `name` stands in the error.

    Raises:
        AnchorError: a line is no anchor, or none is this run's.
    """
    found = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        parts = _LINE.fullmatch(line.strip())
        if parts is None:
            raise AnchorError(f"{name}:{number}: no anchor; a line must be: RUN SEQ HASH TIME")
        if parts[1] == run:
            found.append(Anchor(parts[1], int(parts[2]), parts[3], parts[4]))
    if not found:
        raise AnchorError(f"{name} holds no anchor of {run}")
    return found
