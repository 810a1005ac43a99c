"""The hash chain of the journal, read and checked; `store.journal` writes it.

A journal is a folder of segments `000001.jsonl`, `000002.jsonl`, ...; each line is one `store.events.Record`. A line's
hash is sha256 over the previous hash (its 64 hex digits) followed by the canonical JSON of `{seq, time, actor, data}`,
taken from the very bytes on disk, so that a changed byte shows even where it would parse to the same value.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from store import events

GENESIS = "0" * 64
"""The hash before the first record."""
MAX_LINE = 1024 * 1024
"""Longest line in bytes; what is longer belongs into a blob."""
SETTLE_SECONDS = 0.1
"""How long `verify` gives a running engine to finish the line that it is writing."""

_SUFFIX = re.compile(rb',"prev":"([0-9a-f]{64})","hash":"([0-9a-f]{64})"\}\Z')
_SUFFIX_LENGTH = len(b',"prev":"","hash":""}') + 128
_SEGMENT_NAME = re.compile(r"[0-9]{6}\.jsonl")


class JournalError(Exception):
    """The journal cannot be used; the message is one line."""


class JournalCorrupt(JournalError):
    """A record is not what was written."""

    def __init__(self, segment: str, line: int, seq: int, reason: str) -> None:
        super().__init__(f"journal/{segment} line {line} (record {seq}): {reason}")
        self.segment, self.line, self.seq, self.reason = segment, line, seq, reason


class VerifyReport(NamedTuple):
    """What a full check found. `first_bad` is (segment, line, seq, reason) of the first record that is wrong."""

    records: int
    head: str
    ok: bool
    first_bad: tuple[str, int, int, str] | None


class _Bad(Exception):
    """A line is not the record that belongs there; the message says why."""


def segments(directory: Path) -> list[Path]:
    """The segment files, oldest first."""
    try:
        names = sorted(name for name in os.listdir(directory) if _SEGMENT_NAME.fullmatch(name))
    except FileNotFoundError:
        return []
    return [directory / name for name in names]


def digest(prev: bytes, body: bytes) -> str:
    """A record's hash, in hex."""
    return hashlib.sha256(prev + body).hexdigest()


def _check(line: bytes, prev: str, seq: int) -> events.Record:
    """The record in `line` (without newline), if it is number `seq` after the hash `prev`; otherwise `_Bad`."""
    found = _SUFFIX.search(line[-_SUFFIX_LENGTH:])
    if found is None:
        raise _Bad("not a complete record")
    if found[1] != prev.encode():
        raise _Bad("does not follow the record before it (broken chain)")
    if found[2] != digest(found[1], line[:-_SUFFIX_LENGTH] + b"}").encode():
        raise _Bad("the content does not match its hash")
    try:
        record = events.decode_record(line)
    except ValueError as error:
        raise _Bad(f"intact, but this version of asi cannot read it; a newer one may ({error})") from None
    if record.seq != seq:
        raise _Bad(f"has sequence number {record.seq} where {seq} belongs")
    return record


class Cursor:
    """Walks records in order and remembers where it is, for error messages."""

    def __init__(self, seq: int = 0, head: str = GENESIS) -> None:
        self.seq, self.head = seq, head
        self.segment, self.line, self.offset = "", 0, 0
        self.torn = False

    def walk(self, path: Path) -> Iterator[events.Record]:
        """The records of one segment; sets `torn` where its last line has no end.

        Raises:
            JournalCorrupt: at the first complete line that is not the record that belongs there.
        """
        self.segment, self.line, self.offset = path.name, 0, 0
        with open(path, "rb") as file:
            yield from self.resume(file)

    def resume(self, file: BinaryIO) -> Iterator[events.Record]:
        """Go on reading after the last good record."""
        file.seek(self.offset)
        self.torn = False
        while line := file.readline(MAX_LINE + 1):
            if not line.endswith(b"\n") and len(line) <= MAX_LINE:
                self.torn = True
                return
            self.line += 1
            try:
                record = _check(line[:-1], self.head, self.seq + 1)
            except _Bad as bad:
                raise self.corrupt(str(bad)) from None
            self.offset += len(line)
            self.seq, self.head = record.seq, record.hash
            yield record

    def corrupt(self, reason: str) -> JournalCorrupt:
        """The error for the record that should come next."""
        return JournalCorrupt(self.segment, max(1, self.line), self.seq + 1, reason)


def last_record(path: Path) -> tuple[int, str]:
    """Sequence number and hash of a closed segment's last record, without walking it."""
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - MAX_LINE))
        tail = file.read(MAX_LINE)
    lines = tail.split(b"\n")
    try:
        if len(lines) < 2 or lines[-1]:
            raise _Bad("a closed segment ends in the middle of a record" if size else "a closed segment is empty")
        found = _SUFFIX.search(lines[-2][-_SUFFIX_LENGTH:])
        if found is None:
            raise _Bad("not a complete record")
        record = events.decode_record(lines[-2])
        return _check(lines[-2], found[1].decode(), record.seq).seq, record.hash
    except (_Bad, ValueError) as error:
        raise JournalCorrupt(path.name, 0, 0, f"its last record: {error}") from None


def _first_seq(path: Path) -> int | None:
    """Sequence number of a segment's first record as it is written there, unchecked; None where it has none."""
    with open(path, "rb") as file:
        line = file.readline(MAX_LINE)
    try:
        return events.decode_record(line.rstrip(b"\n")).seq
    except ValueError:
        return None


def read(directory: Path, since: int = 0) -> Iterator[events.Record]:
    """All records with a sequence number above `since`, in order, with their chain checked.

    Whole segments before `since` are skipped. A last line without an end is being written, or torn; it is left out.

    Raises:
        JournalCorrupt: at the first record that is not what was written.
    """
    paths = segments(directory)
    start = 0
    for index in range(len(paths) - 1, 0, -1):
        first = _first_seq(paths[index])
        if first is not None and first <= since + 1:
            start = index
            break
    cursor = Cursor(*last_record(paths[start - 1])) if start else Cursor()
    for path in paths[start:]:
        if cursor.torn:
            cursor.line += 1
            raise cursor.corrupt("the segment ends in the middle of a record, and another one follows")
        yield from (record for record in cursor.walk(path) if record.seq > since)


def verify(directory: Path) -> VerifyReport:
    """Check every record and every link. Never raises for what it finds; it reports the first bad record."""
    cursor = Cursor()
    paths = segments(directory)
    try:
        for number, path in enumerate(paths, start=1):
            if path.name != f"{number:06}.jsonl":
                cursor.segment, cursor.line = path.name, 0
                raise cursor.corrupt(f"segment {number:06}.jsonl is missing")
            for _ in cursor.walk(path):
                pass
            if cursor.torn and number == len(paths):
                # A running engine may be in the middle of a write.
                time.sleep(SETTLE_SECONDS)
                with open(path, "rb") as file:
                    for _ in cursor.resume(file):
                        pass
            if cursor.torn:
                cursor.line += 1
                raise cursor.corrupt("the line has no end (opening the run cuts a torn last record)")
            if not cursor.offset and number < len(paths):
                raise cursor.corrupt("the segment is empty, and another one follows")
    except JournalCorrupt as bad:
        return VerifyReport(cursor.seq, cursor.head, False, (bad.segment, bad.line, bad.seq, bad.reason))
    except OSError as error:
        return VerifyReport(cursor.seq, cursor.head, False, (cursor.segment, cursor.line, cursor.seq + 1, str(error)))
    return VerifyReport(cursor.seq, cursor.head, True, None)
