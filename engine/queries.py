"""What a client may ask of a running engine beyond the state, and where the answers come from.

Each kind of work has a thread of its own, so that a slow question holds up neither pages of the leaderboard nor the
writing of the projection. Every answer is bounded: a line of the socket is.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar, cast

import duckdb
import msgspec

from engine import knowledge
from engine.client import protocol
from engine.laboratory import Laboratory
from engine.tailing import open_plain
from store import backwards, curves
from store.audit import AuditReport, clean, verify_run
from store.blobs import BlobError
from store.journal import JournalError
from store.projection import ProjectionError

MOST_WORDS = 20_000
MOST_OFFSET = 2**53
MOST_ROWS = {"sql": 10_000, "output": 10_000}
"""Most rows of an answer, 1,000 for what is not named."""
MOST_TEXT = 256_000
MOST_TEXTS = 8_000_000
"""Most characters of one text, and of all texts of an answer: escaped, they must still fit into a line."""
MOST_OUTPUT = 200_000
MOST_PROBLEMS = 1_000

T = TypeVar("T")


class Queries:
    """Answers the queries of clients."""

    def __init__(
        self, laboratory: Laboratory, policy: Callable[[str], Awaitable[protocol.PolicyView]] | None = None
    ) -> None:
        """`policy` answers the query of that name."""
        self.lab, self._policy = laboratory, policy
        self.runtime = laboratory.runtime
        self._threads = {name: ThreadPoolExecutor(1, f"ask-{name}") for name in ("sql", "pages", "journal")}
        self._verifying: asyncio.Future[AuditReport] | None = None

    def close(self) -> None:
        """Let the threads go; nothing is waited for."""
        for threads in self._threads.values():
            threads.shutdown(wait=False, cancel_futures=True)

    async def answer(self, query: protocol.Query) -> protocol.Answer:
        """Answer one query; what is wrong with it is said in one line."""
        table: dict[str, Callable[[protocol.Query], Awaitable[Any]]] = {
            "curve": self.curve,
            "transcript": self.transcript,
            "leaderboard": self.leaderboard,
            "sql": self.sql,
            "audit": self.audit,
            "verify": self.verify,
            "output": self.output,
            "cognition": self.cognition,
            "policy": self.policy,
        }
        try:
            query = _bounded(query)
            if query.name == "blob":
                return protocol.Answer(query.id, True, text=await self.blob(query))
            answer = await table[query.name](query)
            return protocol.Answer(query.id, True, text=msgspec.json.encode(answer).decode())
        except (ValueError, BlobError, ProjectionError, JournalError) as error:
            return protocol.Answer(query.id, False, error=clean(str(error), 1_000))
        except duckdb.Error as error:
            return protocol.Answer(query.id, False, error=clean(f"the database cannot answer: {error}", 300))
        except OSError as error:
            return protocol.Answer(query.id, False, error=clean(f"it cannot be read: {error.strerror or error}", 300))

    async def _in(self, thread: str, work: Callable[..., T], *args: Any, **more: Any) -> T:
        call = functools.partial(work, *args, **more)
        return await asyncio.get_running_loop().run_in_executor(self._threads[thread], call)

    async def blob(self, query: protocol.Query) -> str:
        """A stored text."""
        text = await self.runtime.text(query.target)
        if len(text) > MOST_TEXTS:
            raise ValueError(f"the text has {len(text):,} characters: too long to be shown")
        return text

    # --- trials -------------------------------------------------------------------------------------------------------

    async def curve(self, query: protocol.Query) -> protocol.Curve:
        """A trial's curves, read from its files: they are there while it still runs."""
        return await asyncio.to_thread(_curve, self.runtime.paths.trials, query.target)

    async def output(self, query: protocol.Query) -> str:
        """The end of what a trial printed: hostile text, as it is."""
        return await asyncio.to_thread(_output, self.runtime.paths.trials, query.target, query.limit)

    # --- the projection -----------------------------------------------------------------------------------------------

    async def leaderboard(self, query: protocol.Query) -> protocol.BoardPage:
        """A page of the leaderboard."""
        rows, total = await self._in(
            "pages", self.runtime.projection.board, query.limit, query.target or "rank",
            offset=query.offset, where=query.where, reverse=query.reverse,
        )  # fmt: skip
        page = [msgspec.convert(row, protocol.BoardRow, from_attributes=True) for row in rows]
        return protocol.BoardPage(page, total)

    async def sql(self, query: protocol.Query) -> protocol.Table:
        """A free question; one whose client leaves is stopped."""
        projection = self.runtime.projection
        try:
            answer = await self._in("sql", projection.ask, query.target, query.limit, query)
        except asyncio.CancelledError:
            projection.stop_asking("who asked has left", query)
            raise
        return protocol.Table(*answer)

    async def transcript(self, query: protocol.Query) -> list[protocol.TranscriptEntry]:
        """An experiment's newest calls, oldest first; DuckDB has those that the state let go."""
        state = self.runtime.state
        found = {call.id: call for call in state.calls.values() if call.experiment == query.target}
        entry = state.experiments.get(query.target)
        if entry is not None and not entry.open:
            kept = await self._in("pages", self.runtime.projection.calls, query.target, query.limit + query.offset)
            found = {call.id: call for call in kept} | found
        calls = sorted(found.values(), key=lambda call: call.started)
        calls = calls[max(0, len(calls) - query.offset - query.limit) : max(0, len(calls) - query.offset)]
        rows: list[protocol.TranscriptEntry] = []
        left = MOST_TEXTS
        for call in reversed(calls):
            text = (await self.runtime.text(call.reply))[: min(left, MOST_TEXT)] if call.reply and left else ""
            left -= len(text)
            rows.append(
                protocol.TranscriptEntry(
                    role=call.role,
                    agent=call.agent,
                    time=call.started,
                    prompt=call.prompt,
                    reply=call.reply,
                    text=text,
                    ok=call.ok,
                    seconds=call.seconds,
                )
            )
        return rows[::-1]

    # --- the journal --------------------------------------------------------------------------------------------------

    async def audit(self, query: protocol.Query) -> protocol.AuditPage:
        """Records in plain words, newest first."""
        newest = self.runtime.journal.durable_seq + 1
        page = await self._in(
            "journal", backwards.search, self.runtime.paths.journal, min(query.offset or newest, newest), query.limit,
            query.target, query.where,
        )  # fmt: skip
        return protocol.AuditPage([_line(found) for found in page.found], page.before)

    async def verify(self, query: protocol.Query) -> protocol.Verified:
        """A full check of the run; all who ask while one is under way get its outcome."""
        if self._verifying is None:
            self._verifying = _beside(functools.partial(verify_run, self.runtime.paths.root))
            self._verifying.add_done_callback(self._verified)
        report = await asyncio.shield(self._verifying)
        worst = sorted(report.problems, key=lambda problem: (not problem.what.startswith("journal/"), problem.seq))
        return protocol.Verified(
            report.records, report.head, report.blobs, report.launches,
            [(problem.seq, clean(problem.what, 400)) for problem in worst[:MOST_PROBLEMS]],
        )  # fmt: skip

    def _verified(self, done: asyncio.Future[AuditReport]) -> None:
        self._verifying = None
        if not done.cancelled():
            done.exception()  # told to whoever still waits; where nobody does, it is no news

    # --- what the run knows -------------------------------------------------------------------------------------------

    async def policy(self, query: protocol.Query) -> protocol.PolicyView:
        """The policy in force, with a rule that fits a request."""
        if self._policy is None:
            raise ValueError("there is no policy to show")
        return await self._policy(query.target)

    async def cognition(self, query: protocol.Query) -> list[protocol.Knowledge]:
        """The run's lessons, newest first, or those that have to do with some words, nearest first."""
        return await knowledge.search(self.lab, query.where, query.offset, query.limit)


def _beside(work: Callable[[], T]) -> asyncio.Future[T]:
    """Long work in a thread that does not keep the engine from ending."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: Exception | None) -> None:
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(cast(T, result))

    def run() -> None:
        result, error = None, None
        try:
            result = work()
        except Exception as problem:  # whatever it was, who waits is told
            error = problem
        with contextlib.suppress(RuntimeError):  # the loop is closed: the engine has left
            loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=run, name="verify", daemon=True).start()
    return future


def _bounded(query: protocol.Query) -> protocol.Query:
    """The query with a limit that is kept to. Raises `ValueError` for one that makes no sense."""
    if query.offset < 0 or query.offset > MOST_OFFSET:
        raise ValueError(f"an offset is a number from 0 to {MOST_OFFSET}")
    if query.limit < 1:
        raise ValueError("a limit is at least 1")
    if len(query.where) > MOST_WORDS or len(query.target) > MOST_WORDS:
        raise ValueError(f"a question has at most {MOST_WORDS:,} characters")
    return msgspec.structs.replace(query, limit=min(query.limit, MOST_ROWS.get(query.name, 1_000)))


def _curve(trials: Path, trial: str) -> protocol.Curve:
    points = curves.read_points(trials, trial).lines
    scores = curves.read_scores(trials, trial).lines
    return protocol.Curve(
        [protocol.CurvePoint(point.task, point.step, point.loss) for point in points if point.loss is not None],
        [protocol.CurvePoint(score.task, score.step, score.value) for score in scores],
    )


def _output(trials: Path, trial: str, limit: int) -> str:
    """The last lines of a trial's log; its folder is ours, and neither it nor the log may be a link."""
    if not curves.is_trial_id(trial):
        raise ValueError(f"{clean(trial, 60)!r} is no trial")
    folder = trials / trial
    if folder.is_symlink() or (descriptor := open_plain(folder / "stdout.log")) is None:
        raise ValueError(f"trial {trial} has printed nothing that is kept")
    with os.fdopen(descriptor, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        begin = file.seek(max(0, size - MOST_OUTPUT))
        text = file.read(MOST_OUTPUT).decode("utf-8", "replace")
    lines = text.splitlines(keepends=True)
    return "".join((lines[1:] if begin and len(lines) > 1 else lines)[-limit:])


def _line(found: backwards.Found) -> protocol.AuditLine:
    record = found.record
    experiment = clean(str(getattr(record.data, "experiment", "")), 60)
    actor = clean(record.actor, 60)
    return protocol.AuditLine(
        record.seq, record.time, actor, record.data.kind, experiment, found.text, record.hash, record.prev
    )
