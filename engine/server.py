"""The engine's socket: who may talk to it, what each client is sent, and what clients ask for.

A client that reads slowly never holds the engine: its queue is bounded, live frames are dropped first, and one that
falls a whole queue of records behind is closed and resumes by sequence number.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import hmac
import os
import secrets
import socket
import struct
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

from engine.client import protocol
from store.audit import clean
from store.events import Record
from store.state import RunState

RING = 20_000
QUEUE = 4_000
BATCH = 256
QUESTIONS = 16
"""Questions of one client that may be in the works at once."""
ORDERS = 64
"""Commands of one client that may wait for the one before them."""
MOST_SUPERVISORS = 50

Handler = Callable[[protocol.Command | protocol.Query], Awaitable[protocol.Answer]]


class _Client:
    """One connected client: a bounded queue and the task that drains it, its questions, its commands in order."""

    def __init__(self, writer: asyncio.StreamWriter, hello: protocol.Hello, pid: int) -> None:
        self.writer, self.pid = writer, pid
        self.live = hello.live
        self.who, self.terminal = clean(hello.who, 60), clean(hello.terminal, 80)
        self.since = time.time()
        self.looking = ""
        self.acted = 0.0
        self.queue: collections.deque[bytes] = collections.deque()
        self.wake = asyncio.Event()
        self.closed = False
        self.questions: set[asyncio.Task[None]] = set()
        self.orders: asyncio.Queue[protocol.Command | None] = asyncio.Queue()

    def send(self, message: protocol.Message, droppable: bool = False) -> None:
        """Queue a message; a droppable one is lost when the client is behind."""
        if self.closed or (droppable and len(self.queue) > QUEUE // 2):
            return
        self.send_encoded(msgspec.json.encode(message))

    def send_encoded(self, line: bytes) -> None:
        """Queue a message that is encoded already."""
        if len(self.queue) >= QUEUE:
            self.close()
        if not self.closed:
            self.queue.append(line + b"\n")
            self.wake.set()

    def close(self) -> None:
        self.closed = True
        self.wake.set()
        for question in self.questions:
            question.cancel()

    async def drain(self) -> None:
        while not self.closed:
            await self.wake.wait()
            self.wake.clear()
            while self.queue and not self.closed:
                count = min(BATCH, len(self.queue))
                self.writer.write(b"".join(self.queue.popleft() for _ in range(count)))
                await self.writer.drain()

    @property
    def supervisor(self) -> protocol.Supervisor:
        """Its person, as the others are shown them."""
        return protocol.Supervisor(self.who, self.terminal, self.since, self.looking, self.acted)


class Server:
    """Serves one run on a Unix socket (0600, token, same user only)."""

    def __init__(
        self, run: str, path: Path, token_path: Path, state: Callable[[], RunState], handle: Handler,
        snapshot: Callable[[], bytes] | None = None,
    ) -> None:  # fmt: skip
        """Serve the state that `state` returns; `snapshot` returns it as an encoded `Snapshot`, where that is cheaper.

        `handle` answers everything but `look`, which is about the client alone.
        """
        self._run, self._path, self._token_path = run, path, token_path
        self._state, self._handle = state, handle
        self._snapshot = snapshot or (lambda: msgspec.json.encode(protocol.Snapshot(state())))
        self._token = secrets.token_hex(32)
        self._ring: collections.deque[Record] = collections.deque(maxlen=RING)
        self._clients: set[_Client] = set()
        self._server: asyncio.Server | None = None
        self._published = 0
        self._obeying: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen. Raises `OSError` when the socket cannot be made."""
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()
        descriptor = os.open(self._token_path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as stream:
            stream.write(self._token)
        previous = os.umask(0o177)
        try:
            self._server = await asyncio.start_unix_server(
                self._serve, path=str(self._path), limit=protocol.MAX_LINE
            )
        finally:
            os.umask(previous)
        self._published = self._state().seq
        self._snapshot()  # what it keeps is there for the first client

    async def close(self) -> None:
        """Stop listening and let every client go."""
        if self._server is not None:
            self._server.close()
        for client in list(self._clients):
            client.close()
        for path in (self._path, self._token_path):
            with contextlib.suppress(FileNotFoundError):
                path.unlink()

    @property
    def peers(self) -> set[int]:
        """The processes that are connected, as far as the kernel names them."""
        return {client.pid for client in self._clients if client.pid > 0}

    @property
    def supervisors(self) -> list[protocol.Supervisor]:
        """The people who watch, the first to come first."""
        watching = [client.supervisor for client in self._clients if client.live and client.who]
        return sorted(watching, key=lambda supervisor: supervisor.since)[:MOST_SUPERVISORS]

    def publish(self, records: list[Record]) -> None:
        """Send journal records, which are on disk by now, to everybody."""
        if not records:
            return
        self._ring.extend(records)
        self._published = records[-1].seq
        for client in self._clients:
            if client.live:
                client.send(protocol.Records(records))

    def live(self, message: protocol.Message) -> None:
        """Send a live frame to everybody; a slow client may miss it."""
        for client in self._clients:
            if client.live:
                client.send(message, droppable=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client: _Client | None = None
        draining: asyncio.Task[None] | None = None
        try:
            async with asyncio.timeout(10.0):
                hello = protocol.decode_from_client(await reader.readline())
            pid, uid = _peer(writer)
            refusal = self._refusal(hello, uid)
            if refusal or not isinstance(hello, protocol.Hello):
                writer.write(msgspec.json.encode(protocol.Refused(refusal or "say hello first")) + b"\n")
                await writer.drain()
                return
            client = _Client(writer, hello, pid)
            client.send(protocol.Welcome(run=self._run, pid=os.getpid(), seq=self._published))
            if hello.live:
                self._catch_up(client, hello.since)
            self._clients.add(client)
            draining = asyncio.create_task(client.drain())
            self._keep(asyncio.create_task(self._obey(client)))
            while not client.closed and (line := await reader.readline()):
                self._take(client, protocol.decode_from_client(line))
        except (OSError, ValueError, msgspec.MsgspecError, TimeoutError, asyncio.CancelledError):
            pass  # A client that went away or talks nonsense concerns nobody but itself; nor does the engine's end.
        finally:
            if client is not None:
                client.close()
                client.orders.put_nowait(None)
                self._clients.discard(client)
            if draining is not None:
                draining.cancel()
            writer.close()

    def _take(self, client: _Client, message: protocol.FromClient) -> None:
        """Begin what a message asks for: questions beside each other, commands one after another."""
        if isinstance(message, protocol.Query):
            if len(client.questions) >= QUESTIONS:
                error = f"more than {QUESTIONS} questions at once: wait for an answer"
                client.send(protocol.Answer(message.id, False, error=error))
                return
            task = asyncio.create_task(self._answer(client, message))
            client.questions.add(task)
            task.add_done_callback(client.questions.discard)
        elif isinstance(message, protocol.Command) and message.name == "look":
            client.looking = clean(message.target, 40)
            client.send(protocol.Answer(message.id, True))
        elif isinstance(message, protocol.Command):
            client.acted = time.time()
            if client.orders.qsize() >= ORDERS:
                error = f"more than {ORDERS} commands wait for the one before them"
                client.send(protocol.Answer(message.id, False, error=error))
            else:
                client.orders.put_nowait(message)

    async def _obey(self, client: _Client) -> None:
        """Carry out a client's commands in their order; what was asked for is done, also when its client has left."""
        while (message := await client.orders.get()) is not None:
            await self._answer(client, message)

    async def _answer(self, client: _Client, message: protocol.Command | protocol.Query) -> None:
        try:
            answer = await self._handle(message)
        except Exception as error:  # a fault of ours: who asked shall hear of it, and everything else goes on
            text = clean(f"{message.name} failed: {type(error).__name__}: {error}", 300)
            answer = protocol.Answer(message.id, False, error=text)
        client.send(answer)

    def _keep(self, task: asyncio.Task[None]) -> None:
        """Hold on to a task until it is done: the loop itself only knows it weakly."""
        self._obeying.add(task)
        task.add_done_callback(self._obeying.discard)

    def _refusal(self, hello: protocol.FromClient, uid: int) -> str:
        """Why this client is not served, or an empty string."""
        if uid not in (os.getuid(), 0):
            return "this run belongs to another user"
        if not isinstance(hello, protocol.Hello) or not hmac.compare_digest(hello.token, self._token):
            return "wrong token: the engine was restarted, connect again"
        if hello.protocol != protocol.PROTOCOL:
            return f"this engine speaks protocol {protocol.PROTOCOL}, the client {hello.protocol}: restart one of them"
        return ""

    def _catch_up(self, client: _Client, since: int) -> None:
        missing = [record for record in self._ring if record.seq > since]
        complete = since > 0 and since <= self._published and len(missing) == self._published - since
        if complete:
            if missing:
                client.send(protocol.Records(missing))
        else:
            client.send_encoded(self._snapshot())


def _peer(writer: asyncio.StreamWriter) -> tuple[int, int]:
    """The pid and the uid of the process at the other end."""
    peer = writer.get_extra_info("socket")
    credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid, uid, _ = struct.unpack("3i", credentials)
    return pid, uid
