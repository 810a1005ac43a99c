"""Answers to what screens ask beyond the state, from the run directory alone, as far as the replay has come."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec

from asi_tui.replay.book import Book
from asi_tui.replay.tables import Tables
from asi_tui.replay.tapes import Tapes
from engine.client import protocol
from store import events as ev
from store.blobs import BlobError, Blobs
from store.curves import is_trial_id
from store.journal import JournalError
from store.state import Call, RunState

MOST_TEXT = 256_000
MOST_OUTPUT = 200_000
MOST_CALLS = 500
MOST_PROBLEMS = 1_000


class Desk:
    """Answers queries as an engine would that stands at a record of the journal."""

    def __init__(self, book: Book, tapes: Tapes, state: Callable[[], RunState], at: Callable[[], float]) -> None:
        self._book, self._tapes, self._state, self._at = book, tapes, state, at
        self._blobs = Blobs(book.paths.blobs)
        self._tables = Tables(book)

    def close(self) -> None:
        """No more questions."""
        self._tables.close()

    async def answer(self, query: protocol.Query) -> protocol.Answer:
        """Answer one query; what is wrong with it is said in one line."""
        table: dict[str, Callable[[protocol.Query], Awaitable[Any]]] = {
            "curve": self._curve, "transcript": self._transcript, "leaderboard": self._board, "sql": self._sql,
            "audit": self._audit, "verify": self._verify, "output": self._output, "cognition": self._cognition,
        }  # fmt: skip
        try:
            if query.name == "blob":
                text = await asyncio.to_thread(self._blobs.text, query.target)
                return protocol.Answer(query.id, True, text=text)
            found = await table[query.name](query)
            return protocol.Answer(query.id, True, text=msgspec.json.encode(found).decode())
        except (ValueError, BlobError, JournalError, OSError) as error:
            return protocol.Answer(query.id, False, error=str(error)[:1_000] or type(error).__name__)
        except Exception as error:  # the database has errors of its own, which this file must not import
            return protocol.Answer(query.id, False, error=f"it cannot be answered here: {str(error)[:300]}")

    async def _board(self, query: protocol.Query) -> protocol.BoardPage:
        return await self._tables.board(self._state().seq, query)

    async def _sql(self, query: protocol.Query) -> protocol.Table:
        return await self._tables.sql(self._state().seq, query)

    async def _curve(self, query: protocol.Query) -> protocol.Curve:
        trial = self._state().trials.get(query.target)
        if trial is None:
            raise ValueError(f"there is no trial {query.target[:60]!r} yet")
        seconds = self._at() - trial.started if trial.status == "running" else float("inf")
        tape = self._tapes.known(query.target)
        if tape is None:
            tape = await asyncio.to_thread(self._tapes.load, query.target)
        return tape.curve(seconds)

    async def _output(self, query: protocol.Query) -> str:
        if query.target not in self._state().trials:
            raise ValueError(f"there is no trial {query.target[:60]!r} yet")
        return await asyncio.to_thread(output, self._book.paths.trials, query.target, query.limit)

    async def _transcript(self, query: protocol.Query) -> list[protocol.TranscriptEntry]:
        seq, numbers = self._state().seq, self._book.calls.get(query.target)
        wanted = [number for number in numbers or () if number <= seq][-2 * MOST_CALLS :]
        return await asyncio.to_thread(self._calls, wanted, query)

    def _calls(self, numbers: list[int], query: protocol.Query) -> list[protocol.TranscriptEntry]:
        calls: dict[str, Call] = {}
        for number in numbers:
            record = self._book.record(number)
            event = record.data
            if isinstance(event, ev.AgentCalled):
                calls[event.call] = Call(
                    event.call, event.experiment, event.role, event.agent, event.prompt, record.time
                )
            elif isinstance(event, ev.AgentReplied) and event.call in calls:
                call = calls[event.call]
                call.reply, call.seconds, call.ok = event.reply, event.seconds, event.ok
        found = list(calls.values())
        found = found[max(0, len(found) - query.offset - query.limit) : len(found) - query.offset]
        return [
            protocol.TranscriptEntry(
                call.role, call.agent, call.started, call.prompt, call.reply, self._text(call.reply), call.ok,
                call.seconds,
            )
            for call in found
        ]  # fmt: skip

    def _text(self, sha: str) -> str:
        try:
            return self._blobs.text(sha)[:MOST_TEXT] if sha else ""
        except (BlobError, OSError) as error:
            return f"(the reply cannot be read: {error})"

    async def _audit(self, query: protocol.Query) -> protocol.AuditPage:
        from store.backwards import search

        newest = self._state().seq + 1
        before = min(query.offset or newest, newest)
        page = await asyncio.to_thread(
            search, self._book.paths.journal, before, query.limit, query.target, query.where
        )
        lines = [
            protocol.AuditLine(
                one.record.seq, one.record.time, one.record.actor, one.record.data.kind,
                str(getattr(one.record.data, "experiment", "")), one.text, one.record.hash, one.record.prev,
            )
            for one in page.found
        ]  # fmt: skip
        return protocol.AuditPage(lines, page.before)

    async def _verify(self, query: protocol.Query) -> protocol.Verified:
        from store.audit import verify_run

        report = await asyncio.to_thread(verify_run, self._book.paths.root)
        worst = sorted(report.problems, key=lambda problem: (not problem.what.startswith("journal/"), problem.seq))
        problems = [(problem.seq, problem.what[:400]) for problem in worst[:MOST_PROBLEMS]]
        return protocol.Verified(report.records, report.head, report.blobs, report.launches, problems)

    async def _cognition(self, query: protocol.Query) -> list[protocol.Knowledge]:
        """The run's lessons so far, newest first; with words, those that have one of them, most words first."""
        asked = query.where.casefold().split()
        known = [
            protocol.Knowledge(f"{one.id}-l{number}", one.title, lesson, f"this run, {one.id}")
            for one in reversed(list(self._state().experiments.values()))
            for number, lesson in enumerate(one.lessons, 1)
        ]
        if asked:
            found = [(sum(word in f"{one.title} {one.text}".casefold() for word in asked), one) for one in known]
            ranked = sorted((pair for pair in found if pair[0]), key=lambda pair: -pair[0])
            known = [msgspec.structs.replace(one, why=f"{hits} of {len(asked)} words") for hits, one in ranked]
        return known[query.offset : query.offset + query.limit]


def output(trials: Path, trial: str, limit: int) -> str:
    """The end of what a trial printed, text of unknown origin; no link is followed. Raises `ValueError`."""
    if not is_trial_id(trial):
        raise ValueError(f"{trial[:60]!r} is no trial")
    try:
        folder = os.open(trials / trial, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            descriptor = os.open("stdout.log", flags, dir_fd=folder)
        finally:
            os.close(folder)
    except OSError:
        raise ValueError(f"trial {trial} has printed nothing that is kept") from None
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError(f"what trial {trial} printed is no file")
        begin = file.seek(max(0, status.st_size - MOST_OUTPUT))
        lines = file.read(MOST_OUTPUT).decode("utf-8", "replace").splitlines(keepends=True)
    return "".join((lines[1:] if begin and len(lines) > 1 else lines)[-limit:])
