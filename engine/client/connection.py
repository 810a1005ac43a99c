"""A client's line to a running engine: reconnects by itself, resumes without a gap, never blocks."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec

from engine.client import protocol
from engine.client.rundir import RunPaths

RETRY_FIRST = 0.2
RETRY_LAST = 5.0
LONG_LINE = 1 << 18
ANSWER_TIMEOUT = 30.0
LONG_ANSWERS = {"park": 4000.0, "rearm": 120.0}  # trials get their grace to write checkpoints; a drill takes a while
LONG_QUERIES = {"verify": 600.0, "sql": 60.0, "audit": 60.0}


class NotConnected(Exception):
    """The engine is away; nothing was sent."""


class Connected(msgspec.Struct, frozen=True):
    """The line is up; `pid` is the engine's."""

    pid: int


class Lost(msgspec.Struct, frozen=True):
    """The line is down; the next attempt follows by itself. `final` when the engine refused this client."""

    reason: str
    final: bool = False


class Connection:
    """One client of one run. With `live` off it only asks and commands: no records, no live frames.

    `who` and `terminal` are what the other supervisors see of this one.

    `messages()` runs the line; `command` and `query` use it while it is up. `since` is the last sequence number the
    caller has folded and is advanced by the caller's own progress through `messages()`.
    """

    def __init__(self, root: Path, since: int = 0, live: bool = True, who: str = "", terminal: str = "") -> None:
        self.paths = RunPaths(root)
        self.since = since
        self.live = live
        self.who, self.terminal = who, terminal
        self._writer: asyncio.StreamWriter | None = None
        self._waiting: dict[int, asyncio.Future[protocol.Answer]] = {}
        self._next_id = 0

    @property
    def connected(self) -> bool:
        """The line is up."""
        return self._writer is not None

    async def messages(self, retry: bool = True) -> AsyncIterator[protocol.FromEngine | Connected | Lost]:
        """Everything the engine sends, with `Connected` and `Lost` in between; for ever, unless `retry` is off."""
        delay = RETRY_FIRST
        while True:
            try:
                async for message in self._one_connection():
                    delay = RETRY_FIRST
                    yield message
                    if isinstance(message, Lost) and message.final:
                        return
                yield Lost("the engine closed the line")
            except (OSError, msgspec.MsgspecError, ValueError, asyncio.IncompleteReadError) as error:
                yield Lost(_reason(error))
            finally:
                self._drop()
            if not retry:
                return
            await asyncio.sleep(delay)
            delay = min(RETRY_LAST, delay * 2)

    async def _one_connection(self) -> AsyncIterator[protocol.FromEngine | Connected | Lost]:
        token = self.paths.token.read_text().strip()
        reader, writer = await asyncio.open_unix_connection(str(self.paths.socket), limit=protocol.MAX_LINE)
        try:
            hello = protocol.Hello(token, self.since, live=self.live, who=self.who, terminal=self.terminal)
            writer.write(msgspec.json.encode(hello) + b"\n")
            await writer.drain()
            while line := await reader.readline():
                message = _decoded(line)
                if isinstance(message, protocol.Refused):
                    yield Lost(message.reason, final=True)
                    return
                if isinstance(message, protocol.Welcome):
                    self._writer = writer
                    yield Connected(message.pid)
                elif isinstance(message, protocol.Answer):
                    waiting = self._waiting.pop(message.id, None)
                    if waiting is not None and not waiting.done():
                        waiting.set_result(message)
                else:
                    if isinstance(message, protocol.Snapshot):
                        self.since = message.state.seq
                    elif isinstance(message, protocol.Records) and message.records:
                        self.since = message.records[-1].seq
                    yield message
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    def _drop(self) -> None:
        self._writer = None
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(NotConnected("the engine went away before it answered"))
        self._waiting.clear()

    async def command(self, name: str, **fields: Any) -> protocol.Answer:
        """Send a command and wait for its answer. Raises `NotConnected`."""
        return await self._ask(
            lambda number: protocol.Command(id=number, name=name, **fields),  # type: ignore[arg-type]
            LONG_ANSWERS.get(name, ANSWER_TIMEOUT),
        )

    async def query(self, name: str, target: str = "", **fields: Any) -> protocol.Answer:
        """Ask for something that is not in the state. Raises `NotConnected`."""
        return await self._ask(
            lambda number: protocol.Query(id=number, name=name, target=target, **fields),  # type: ignore[arg-type]
            LONG_QUERIES.get(name, ANSWER_TIMEOUT),
        )

    async def _ask(self, build: Any, timeout: float = ANSWER_TIMEOUT) -> protocol.Answer:
        if self._writer is None:
            raise NotConnected("not connected to the engine")
        self._next_id += 1
        number = self._next_id
        waiting: asyncio.Future[protocol.Answer] = asyncio.get_running_loop().create_future()
        self._waiting[number] = waiting
        try:
            self._writer.write(msgspec.json.encode(build(number)) + b"\n")
            await self._writer.drain()
            async with asyncio.timeout(timeout):
                return await waiting
        except OSError as error:
            raise NotConnected(str(error)) from error
        except TimeoutError:
            raise NotConnected("the engine does not answer") from None
        finally:
            self._waiting.pop(number, None)


async def ask_once(root: Path, name: str, query: bool = False, **fields: Any) -> protocol.Answer:
    """Connect, send one command, or one query where that is said, return the answer. Raises `NotConnected`."""
    connection = Connection(root, live=False)
    ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def pump() -> None:
        async for message in connection.messages(retry=False):
            if ready.done():
                continue
            if isinstance(message, Connected):
                ready.set_result(None)
            elif isinstance(message, Lost):
                ready.set_exception(NotConnected(message.reason))

    pumping = asyncio.create_task(pump())
    try:
        await ready
        return await (connection.query if query else connection.command)(name, **fields)
    finally:
        pumping.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await pumping


def _decoded(line: bytes) -> protocol.FromEngine:
    """Decode one line; a long one without the garbage collector.

    A snapshot of thousands of experiments makes a hundred thousand objects, none of them garbage. The collector would
    go through them again and again while they are made, and later every time that it looks at everything.
    """
    if len(line) < LONG_LINE or not gc.isenabled():
        return protocol.decode_from_engine(line)
    gc.disable()
    try:
        return protocol.decode_from_engine(line)
    finally:
        gc.freeze()
        gc.enable()


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError | ConnectionRefusedError):
        return "no engine is running"
    if isinstance(error, PermissionError):
        return "this run belongs to another user"
    return str(error) or type(error).__name__
