"""Every call of a run on record, by the sha256 of its request: `calls/index.jsonl` beside the blobs it names.

A request is its model, messages and parameters, without key and headers, and without what the server turned out not to
support. The same request of the same experiment is answered from the record in a replay, whatever the server says now.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Literal

import msgspec

from engine.replaying import ReplayError
from store.blobs import BlobError, Blobs, is_sha

MAX_INDEX = 512 * 1024 * 1024

Outcome = Literal["reply", "overflow", "refused", "failed"]


class Entry(msgspec.Struct, frozen=True):
    """One call: `asked` and `reply` are blobs; `message` is the server's reason where there was no reply."""

    asked: str
    experiment: str
    role: str
    model: str
    outcome: Outcome
    reply: str = ""
    finish: str = ""
    refusal: str = ""
    tools: int = 0
    message: str = ""


class Record:
    """Writes the index of a run's calls."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "index.jsonl"
        self._lock = asyncio.Lock()

    async def append(self, entry: Entry) -> None:
        """Put a call on record; it is on disk when this returns. Raises OSError."""
        async with self._lock:
            await asyncio.to_thread(_append, self._path, msgspec.json.encode(entry) + b"\n")


def _append(path: Path, line: bytes) -> None:
    path.parent.mkdir(mode=0o700, exist_ok=True)
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o600)
    try:
        size = os.fstat(descriptor).st_size
        if size and os.pread(descriptor, 1, size - 1) != b"\n":  # a crash tore the last line
            line = b"\n" + line
        os.write(descriptor, line)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Answers:
    """The recorded calls of another run. Reading them blocks; raises `ReplayError`."""

    def __init__(self, root: Path) -> None:
        self._name, self._blobs = root.name, Blobs(root / "blobs")
        self._known: dict[tuple[str, str], Entry] = {}
        path = root / "calls" / "index.jsonl"
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise ReplayError(f"{root.name} has no record of calls ({path}: {error.strerror})") from None
        with os.fdopen(descriptor, "rb") as file:
            if os.fstat(descriptor).st_size > MAX_INDEX:
                raise ReplayError(f"{path} is larger than any record of calls")
            lines = file.read(MAX_INDEX).split(b"\n")
        for number, line in enumerate(lines, 1):
            if line.strip():
                self._take(line, number)

    def _take(self, line: bytes, number: int) -> None:
        try:
            entry = msgspec.json.decode(line, type=Entry)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return  # torn by a crash: its call had no effect, and where it had, the request is missing and said to be
        if not is_sha(entry.asked) or not (is_sha(entry.reply) or entry.outcome != "reply"):
            raise ReplayError(f"{self._name}: calls/index.jsonl line {number} names no blob")
        self._known[entry.asked, entry.experiment] = entry
        self._known.setdefault((entry.asked, ""), entry)

    def find(self, asked: str, experiment: str) -> tuple[Entry, str]:
        """A recorded call and its reply. Blocking; raises `ReplayError`."""
        entry = self._known.get((asked, experiment)) or self._known.get((asked, ""))
        if entry is None:
            raise ReplayError(f"{self._name} has no call {asked[:12]}: the request for {experiment} is another one")
        try:
            self._blobs.get(asked)
            return entry, self._blobs.text(entry.reply) if entry.reply else ""
        except BlobError as error:
            raise ReplayError(f"{self._name}: the record is damaged: {error}") from None
