"""The heart of a running engine: one place where events enter the journal, the state, the projection and the socket.

`emit` folds at once and writes soon; `commit` returns when the event is on disk. Clients and the projection only ever
see what is on disk.
"""

from __future__ import annotations

import asyncio
import collections
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from engine.client import protocol
from engine.client.rundir import RunPaths
from engine.snapshots import Snapshots
from store import events as ev
from store.blobs import Blobs
from store.config import RunConfig
from store.folding import fold
from store.journal import Journal, JournalFailed, read
from store.projection import Projection, ProjectionError, open_in_step
from store.schema import collect
from store.state import RunState

PUBLISH_SECONDS = 0.05
EARLY = 5_000
"""So many of the newest records wait for the projection to be opened; one that is further behind reads the journal."""
CLOCK_TOLERANCE = 2.0  # seconds: a wall clock that drifts or is nudged moves by less

T = TypeVar("T")


class Runtime:
    """Owns journal, state, blobs and projection of one run; lives on the engine's event loop."""

    def __init__(self, root: Path, config: RunConfig) -> None:
        self.paths = RunPaths(root)
        self.config = config
        self.blobs = Blobs(self.paths.blobs)
        self.journal = Journal.open(self.paths.journal)
        self.state = RunState()
        self.snapshots = Snapshots()
        self._early: collections.deque[ev.Record] = collections.deque(maxlen=EARLY)
        for record in read(self.paths.journal):
            self.state = fold(self.state, record)
            self._early.append(record)
        self._pending: list[ev.Record] = []
        self._clock_offset = time.time() - time.monotonic()
        self._changed = asyncio.Event()
        self._reader = ThreadPoolExecutor(1, "projection")
        self._projection: Projection | None = None
        self._flushing = asyncio.Lock()
        self.publish: Callable[[list[ev.Record]], None] = lambda records: None
        self.live: Callable[[protocol.Message], None] = lambda message: None
        self.failed: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def open_projection(self) -> None:
        """Open DuckDB and bring it up to the journal's head, off the loop."""
        async with self._flushing:
            known = {record.seq: record.hash for record in self._early}
            projection, report = await self.in_projection(open_in_step, self.paths.root, known)
            await self._project(projection, list(self._early))
            self._early.clear()
            self._projection = projection
        if report.reason:
            self.note(f"the database was rebuilt from the journal: {report.reason}", "warning")

    async def in_projection(self, work: Callable[..., T], *args: Any) -> T:
        """Run `work` on the one thread that uses DuckDB."""
        return await asyncio.get_running_loop().run_in_executor(self._reader, work, *args)

    @property
    def projection(self) -> Projection:
        """The open projection; write to it through `in_projection` only.

        Raises:
            ProjectionError: it is not open yet.
        """
        if self._projection is None:
            raise ProjectionError("the database is not open yet: the engine is still arming")
        return self._projection

    def emit(self, event: ev.Event, actor: str = "engine") -> ev.Record:
        """Record an event. Raises `JournalFailed` when the journal can no longer be written."""
        if not isinstance(event, ev.ClockJumped):
            self.check_clock()
        record = self.journal.append(event, actor)
        self.state = fold(self.state, record)
        self.snapshots.touch(record)
        self._pending.append(record)
        self._changed.set()
        self._changed = asyncio.Event()
        return record

    def check_clock(self) -> None:
        """Put it on record when the wall clock has jumped, so that no time is counted that did not pass.

        Called before every event: each one's time is then right with respect to the one before it.
        """
        offset = time.time() - time.monotonic()
        jump = offset - self._clock_offset
        if abs(jump) > CLOCK_TOLERANCE:
            self._clock_offset = offset
            self.emit(ev.ClockJumped(round(jump, 3)))

    async def commit(self, event: ev.Event, actor: str = "engine") -> ev.Record:
        """Record an event and wait until it is on disk. Raises `JournalFailed`."""
        record = self.emit(event, actor)
        try:
            await self.journal.durable(record)
        except JournalFailed as error:
            if not self.failed.done():
                self.failed.set_result(str(error))
            raise
        return record

    def note(self, text: str, level: str = "info") -> None:
        """A remark for people."""
        self.emit(ev.NoteAdded(text[:500], level))  # type: ignore[arg-type]

    async def changed(self) -> None:
        """Wait until the next event."""
        await self._changed.wait()

    async def until(self, condition: Callable[[RunState], bool]) -> None:
        """Wait until the state meets a condition; checked at every event."""
        while not condition(self.state):
            await self.changed()

    async def put(self, text: str) -> str:
        """Store a text as a blob, off the loop; returns its sha256."""
        return await asyncio.to_thread(self.blobs.put, text)

    async def text(self, sha: str) -> str:
        """A blob as text, verified against its hash. Raises `store.blobs.BlobError`."""
        return await asyncio.to_thread(self.blobs.text, sha)

    async def publish_forever(self) -> None:
        """Hand records to clients and projection once they are on disk."""
        while True:
            await asyncio.sleep(PUBLISH_SECONDS)
            await self.flush()

    async def flush(self) -> None:
        """Publish everything recorded so far."""
        async with self._flushing:
            if self._pending:
                await self._flush()

    async def _flush(self) -> None:
        records, self._pending = self._pending, []
        try:
            await self.journal.durable(records[-1])
        except JournalFailed as error:
            if not self.failed.done():
                self.failed.set_result(str(error))
            return
        self.publish(records)
        if self._projection is None:
            self._early.extend(records)
        else:
            await self._project(self._projection, records)

    async def _project(self, projection: Projection, records: list[ev.Record]) -> None:
        """Bring the projection up to these records."""
        fresh = [record for record in records if record.seq > projection.seq]
        if fresh:
            # Collected here, where the state cannot change meanwhile; written on the projection's own thread.
            await self.in_projection(projection.write, collect(fresh, self.state))
        for record in fresh:
            if isinstance(record.data, ev.TrialFinished | ev.TrialFailed | ev.TrialKilled | ev.TrialParked):
                await self.in_projection(projection.load_curves, self.paths.trials, record.data.trial)

    def snapshot(self) -> bytes:
        """The `Snapshot` message of the state as it is now, encoded."""
        return self.snapshots.encode(self.state)

    async def close(self) -> None:
        """Flush, then close journal and projection."""
        await self.flush()
        if self._projection is not None:
            self._projection.stop_asking("the engine leaves")
            await self.in_projection(self._projection.close)
        self._reader.shutdown(wait=True)
        self.journal.close()


def boot_id() -> str:
    """The kernel's id of this boot."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return f"unknown-{os.uname().nodename}"
