"""Reading a journal from its end: what an auditor pages through, newest first, without folding what came before.

Nothing is checked here but that a line is a record; the chain is checked by `store.audit.verify_run`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from store import events
from store.audit import describe
from store.chain import MAX_LINE, segments

BLOCK = 256 * 1024
MOST_SCANNED = 20_000
MOST_SECONDS = 0.4


class Found(NamedTuple):
    """A record and what it says in plain words."""

    record: events.Record
    text: str


class Page(NamedTuple):
    """Records, newest first; `before` is where to go on, 0 at the beginning of the journal."""

    found: list[Found]
    before: int


def search(directory: Path, before: int, limit: int, experiment: str = "", words: str = "") -> Page:
    """Records with a sequence number below `before`, newest first, that are about an experiment and hold every word.

    A word may stand in the kind, the actor or the text, in any case. Ends early after so many records or so much time
    that nobody has to wait; the page then says where to go on, also when it is empty.
    """
    wanted = words.casefold().split()
    found: list[Found] = []
    until = time.monotonic() + MOST_SECONDS
    last = 0
    for scanned, record in enumerate(read(directory, before), start=1):
        last = record.seq
        if not experiment or getattr(record.data, "experiment", "") == experiment:
            text = describe(record)
            shown = f"{record.data.kind}\n{record.actor}\n{text}".casefold()
            if all(word in shown for word in wanted):
                found.append(Found(record, text))
        late = scanned % 100 == 0 and time.monotonic() > until
        if len(found) >= limit or scanned >= MOST_SCANNED or late:
            return Page(found, last if last > 1 else 0)
    return Page(found, 0)


def read(directory: Path, before: int) -> Iterator[events.Record]:
    """Records with a sequence number below `before`, newest first; lines that are no records are left out."""
    paths = segments(directory)
    for index in range(len(paths) - 1, -1, -1):
        path = paths[index]
        with open(path, "rb") as file:
            first = _record(file.readline(MAX_LINE))
            if first is not None and first.seq >= before and index:
                continue
            end = _end(file.fileno(), os.fstat(file.fileno()).st_size, before)
            for line in _lines(file.fileno(), end):
                record = _record(line)
                if record is not None and record.seq < before:
                    yield record


def _record(line: bytes) -> events.Record | None:
    try:
        return events.decode_record(line.rstrip(b"\n"))
    except ValueError:
        return None


def _end(descriptor: int, size: int, before: int) -> int:
    """A place in a segment at or after the record `before`, and not long after it, found by halving."""
    low, high = 0, size
    while high - low > BLOCK:
        middle = (low + high) // 2
        block = os.pread(descriptor, min(high - middle, 2 * MAX_LINE), middle)
        begin = block.find(b"\n") + 1
        end = block.find(b"\n", begin)
        record = _record(block[begin:end]) if begin and end > 0 else None
        if record is None:  # what cannot be read here must not hide what is before it
            return high
        if record.seq >= before:
            high = middle + end
        else:
            low = middle + begin
    return high


def _lines(descriptor: int, end: int) -> Iterator[bytes]:
    """The whole lines of a segment that begin before `end`, the last one first; a line without an end is none."""
    rest = b""
    whole = False
    while end > 0:
        begin = max(0, end - BLOCK)
        parts = (os.pread(descriptor, end - begin, begin) + rest).split(b"\n")
        end = begin
        # What follows the last end of line is torn, or still being written, or reaches beyond where we began.
        if not whole and len(parts) > 1:
            parts.pop()
            whole = True
        yield from reversed(parts[1:])
        # The end of a line that begins further up; one that is no record for its length alone must cost nothing.
        rest = parts[0] if len(parts[0]) <= MAX_LINE else b"?"
    if whole:
        yield rest
