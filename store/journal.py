"""The append-only, hash-chained journal: the one truth of a run. The chain itself is described in `store.chain`.

`append` is cheap and never touches the disk; one writer thread writes what is queued, with one `write` per batch and
one `fdatasync` after it. Nothing counts as written before `durable` (or `wait`) has returned.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

import msgspec

from store import events
from store.chain import (
    GENESIS,
    MAX_LINE,
    Cursor,
    JournalCorrupt,
    JournalError,
    VerifyReport,
    digest,
    last_record,
    read,
    segments,
    verify,
)

__all__ = [
    "GENESIS",
    "Journal",
    "JournalCorrupt",
    "JournalError",
    "JournalFailed",
    "VerifyReport",
    "read",
    "segments",
    "verify",
]

SEGMENT_BYTES = 64 * 1024 * 1024
GROUP_SECONDS = 0.05
"""How long a record that is not urgent may wait for company."""


class JournalFailed(JournalError):
    """Writing or syncing failed: what was appended since is not on disk, and nothing more is accepted."""


class _Body(msgspec.Struct, frozen=True):
    """The hashed part of a record."""

    seq: int
    time: float
    actor: str
    data: events.AnyEvent


def seal(seq: int, moment: float, actor: str, event: events.Event, prev: str) -> tuple[events.Record, bytes]:
    """Make the record and its line.

    Raises:
        ValueError: the event would not read back as itself (NaN, infinity, a wrong type, a line that is too long).
    """
    try:
        body = events.encode(_Body(seq, moment, actor, event))  # type: ignore[arg-type]
        line = body[:-1] + f',"prev":"{prev}","hash":"{digest(prev.encode(), body)}"}}'.encode()
        record = events.decode_record(line)
    except (msgspec.MsgspecError, TypeError, OverflowError, UnicodeError) as error:
        raise ValueError(f"{event.kind} cannot be written to the journal: {error}") from error
    if record.data != event or record.time != moment:
        raise ValueError(f"{event.kind} cannot be written to the journal: a value is not finite or of the wrong type")
    if len(line) >= MAX_LINE:
        raise ValueError(f"{event.kind} is {len(line)} bytes long; a record may have {MAX_LINE}")
    return record, line + b"\n"


class Journal:
    """The writing end; one per run, held by the engine.

    seq, head: of the last record appended. durable_seq: of the last one known to be on disk. failed: the error that
    ended writing, or None.
    """

    def __init__(self, directory: Path, cursor: Cursor, number: int, clock: Callable[[], float], limit: int) -> None:
        """Use `Journal.open`."""
        self.directory, self.seq, self.head = directory, cursor.seq, cursor.head
        self.durable_seq = cursor.seq
        self.failed: OSError | None = None
        self._clock, self._limit = clock, limit
        self._number, self._size, self._file = number, cursor.offset, -1
        self._lock_file = -1
        self._changed = threading.Condition()
        self._queue: list[bytes] = []
        self._urgent = self._closing = self._idle = False
        self._waiting: list[tuple[int, asyncio.AbstractEventLoop, asyncio.Future[None]]] = []
        self._thread = threading.Thread(target=self._work, name="journal", daemon=True)

    @classmethod
    def open(
        cls, directory: Path, *, clock: Callable[[], float] = time.time, segment_bytes: int = SEGMENT_BYTES
    ) -> Journal:
        """Open for writing: check the last segment and its link, cut a torn tail (and record the cut).

        Raises:
            JournalCorrupt: a record is wrong and is not merely the torn end.
            JournalError: another process has the journal open.
            OSError: the place cannot be read or written.
        """
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            journal, torn = cls._check_end(directory, clock, segment_bytes)
            journal._lock_file = lock
            journal._open_segment(cut=bool(torn))
        except BlockingIOError:
            os.close(lock)
            raise JournalError(f"{directory} is being written by another process") from None
        except BaseException:
            os.close(lock)
            raise
        journal._thread.start()
        if torn:
            name = f"{journal._number:06}.jsonl"
            journal.append(events.JournalRepaired(name, torn, journal.seq), "engine")
            journal.wait(journal.seq)
        return journal

    @classmethod
    def _check_end(cls, directory: Path, clock: Callable[[], float], limit: int) -> tuple[Journal, int]:
        """Walk the last segment; returns the journal at its last good record and how many torn bytes follow it."""
        paths = segments(directory)
        for number, path in enumerate(paths, start=1):
            if path.name != f"{number:06}.jsonl":
                raise JournalCorrupt(path.name, 0, 0, f"segment {number:06}.jsonl is missing")
        if not paths:
            return cls(directory, Cursor(), 1, clock, limit), 0
        cursor = Cursor(*last_record(paths[-2])) if len(paths) > 1 else Cursor()
        for _ in cursor.walk(paths[-1]):
            pass
        torn = paths[-1].stat().st_size - cursor.offset if cursor.torn else 0
        return cls(directory, cursor, len(paths), clock, limit), torn

    def _open_segment(self, cut: bool = False) -> None:
        path = self.directory / f"{self._number:06}.jsonl"
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        if cut:
            os.ftruncate(self._file, self._size)
        os.fsync(self._file)
        os.fsync(self._lock_file)  # the directory: its new entry must survive a power cut

    # --- the caller's side ---

    def append(self, event: events.Event, actor: str) -> events.Record:
        """Chain an event on and queue it; cheap, no disk. It counts only once `durable` or `wait` has returned.

        Raises:
            ValueError: the event cannot be represented (NaN, infinity, wrong type, too long).
            JournalFailed: writing has failed before, or the journal is closed.
        """
        with self._changed:
            self._refuse_if_over()
            record, line = seal(self.seq + 1, self._clock(), actor, event, self.head)
            self.seq, self.head = record.seq, record.hash
            self._queue.append(line)
            urgent = type(event) in events.URGENT
            self._urgent = self._urgent or urgent
            if urgent or self._idle:
                self._changed.notify_all()
        return record

    def _refuse_if_over(self) -> None:
        if self.failed is not None:
            raise JournalFailed(f"the journal cannot be written: {self.failed}") from self.failed
        if self._closing:
            raise JournalFailed("the journal is closed")

    async def durable(self, record: events.Record) -> None:
        """Return once `record` is on disk.

        Raises:
            JournalFailed: it never will be.
        """
        with self._changed:
            if record.seq <= self.durable_seq:
                return
            if self.failed is not None:
                self._refuse_if_over()
            loop = asyncio.get_running_loop()
            future: asyncio.Future[None] = loop.create_future()
            self._waiting.append((record.seq, loop, future))
        await future

    def wait(self, seq: int, timeout: float | None = None) -> None:
        """Block until record `seq` is on disk.

        Raises:
            JournalFailed: it never will be.
            TimeoutError: not within `timeout` seconds.
        """
        with self._changed:
            if seq > self.durable_seq:
                self._urgent = True
                self._changed.notify_all()
            if not self._changed.wait_for(lambda: seq <= self.durable_seq or self.failed is not None, timeout):
                raise TimeoutError(f"record {seq} was not on disk after {timeout} s")
            if seq > self.durable_seq:
                self._refuse_if_over()

    def close(self) -> None:
        """Write what is queued and release the journal. Does not raise where writing fails; see `failed`."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join()
        for descriptor in (self._file, self._lock_file):
            if descriptor >= 0:
                os.close(descriptor)
        self._file = self._lock_file = -1

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- the writer thread ---

    def _work(self) -> None:
        while True:
            with self._changed:
                self._idle = True
                self._changed.wait_for(lambda: self._queue or self._closing)
                self._idle = False
                if not self._queue:
                    return
                self._changed.wait_for(lambda: self._urgent or self._closing, GROUP_SECONDS)
                batch, self._queue, self._urgent = self._queue, [], False
                last = self.seq
            try:
                self._write(b"".join(batch))
            except OSError as error:
                self._finish(error=error)
                return
            self._finish(durable=last)

    def _write(self, content: bytes) -> None:
        if self._size and self._size + len(content) > self._limit:
            os.close(self._file)
            self._file = -1
            self._number, self._size = self._number + 1, 0
            self._open_segment()
        view = memoryview(content)
        while view:
            view = view[os.write(self._file, view) :]
        os.fdatasync(self._file)
        self._size += len(content)

    def _finish(self, durable: int = 0, error: OSError | None = None) -> None:
        """Tell everybody who waits. An error is final: the kernel may have dropped what it could not write."""
        with self._changed:
            self.durable_seq = max(self.durable_seq, durable)
            self.failed = error
            ready = [entry for entry in self._waiting if error is not None or entry[0] <= durable]
            self._waiting = [entry for entry in self._waiting if entry not in ready]
            self._changed.notify_all()
        for _, loop, future in ready:
            try:
                loop.call_soon_threadsafe(_settle, future, error)
            except RuntimeError:
                continue  # the loop is closed; nobody waits there any more


def _settle(future: asyncio.Future[None], error: OSError | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(JournalFailed(f"the journal cannot be written: {error}"))
