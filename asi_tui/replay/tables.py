"""The leaderboard and free questions in a replay: a temporary database, fed with the records up to its place.

It is made in a thread of its own when the first question comes, and made anew when the replay goes back.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import msgspec

from asi_tui.replay.book import Book
from engine.client import protocol
from store import events as ev
from store.folding import fold
from store.state import RunState

if TYPE_CHECKING:
    from store.projection import Projection

CHUNK = 2_000
MOST_ROWS = 10_000

T = TypeVar("T")


class Tables:
    """Answers from a temporary database."""

    def __init__(self, book: Book) -> None:
        self._book = book
        self._thread = ThreadPoolExecutor(1, "replay-tables")
        self._folder: Path | None = None
        self._projection: Projection | None = None
        self._state = RunState()
        self._over = threading.Event()

    def close(self) -> None:
        """Give the database up; a question under way is not waited for."""
        self._over.set()
        if self._projection is not None:
            self._projection.stop_asking("the replay ends")
        self._thread.submit(self._drop)
        self._thread.shutdown(wait=True)

    async def board(self, seq: int, query: protocol.Query) -> protocol.BoardPage:
        """A page of the leaderboard as it stood. Raises `ValueError`."""

        def work(projection: Projection) -> protocol.BoardPage:
            rows, total = projection.board(
                min(query.limit, MOST_ROWS), query.target or "rank", offset=query.offset, where=query.where,
                reverse=query.reverse,
            )  # fmt: skip
            page = [msgspec.convert(row, protocol.BoardRow, from_attributes=True) for row in rows]
            return protocol.BoardPage(page, total)

        return await self._ask(seq, work)

    async def sql(self, seq: int, query: protocol.Query) -> protocol.Table:
        """A free question about the run as it stood. Raises `ValueError`."""
        limit = min(query.limit, MOST_ROWS)
        return await self._ask(seq, lambda projection: protocol.Table(*projection.ask(query.target, limit)))

    async def _ask(self, seq: int, work: Callable[[Projection], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, lambda: work(self._at(seq)))

    # --- the thread of the tables ----------------------------------------------------------------------------------

    def _at(self, seq: int) -> Projection:
        """The database at a record."""
        from store.projection import Projection

        if self._projection is not None and self._projection.seq > seq:
            self._drop()
        if self._projection is None:
            self._folder = Path(tempfile.mkdtemp(prefix="asi-replay-"))
            self._projection, self._state = Projection.open(self._folder / "replay.duckdb"), RunState()
        projection = self._projection
        while projection.seq < seq and not self._over.is_set():
            records = self._book.records(projection.seq + 1, min(seq, projection.seq + CHUNK))
            for record in records:
                fold(self._state, record)
            projection.apply(records, self._state)
            for record in records:
                if isinstance(record.data, ev.TrialFinished | ev.TrialFailed):
                    projection.load_curves(self._book.paths.trials, record.data.trial)
        if self._over.is_set():
            raise ValueError("the replay ends")
        return projection

    def _drop(self) -> None:
        if self._projection is not None:
            self._projection.close()
            self._projection = None
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None
