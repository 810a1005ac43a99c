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
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

from engine.client import protocol
from store.events import Record
from store.state import RunState

RING = 20_000
QUEUE = 4_000
BATCH = 256

Handler = Callable[[protocol.Command | protocol.Query], Awaitable[protocol.Answer]]


class _Client:
    """One connected client: a bounded queue and the task that drains it."""

    def __init__(self, writer: asyncio.StreamWriter, live: bool) -> None:
        self.writer = writer
        self.live = live
        self.queue: collections.deque[bytes] = collections.deque()
        self.wake = asyncio.Event()
        self.closed = False

    def send(self, message: protocol.Message, droppable: bool = False) -> None:
        """Queue a message; a droppable one is lost when the client is behind."""
        if self.closed or (droppable and len(self.queue) > QUEUE // 2):
            return
        if len(self.queue) >= QUEUE:
            self.close()
            return
        self.queue.append(msgspec.json.encode(message) + b"\n")
        self.wake.set()

    def close(self) -> None:
        self.closed = True
        self.wake.set()

    async def drain(self) -> None:
        while not self.closed:
            await self.wake.wait()
            self.wake.clear()
            while self.queue and not self.closed:
                count = min(BATCH, len(self.queue))
                self.writer.write(b"".join(self.queue.popleft() for _ in range(count)))
                await self.writer.drain()


class Server:
    """Serves one run on a Unix socket (0600, token, same user only)."""

    def __init__(self, run: str, path: Path, token_path: Path, state: Callable[[], RunState], handle: Handler) -> None:
        self._run, self._path, self._token_path = run, path, token_path
        self._state, self._handle = state, handle
        self._token = secrets.token_hex(32)
        self._ring: collections.deque[Record] = collections.deque(maxlen=RING)
        self._clients: set[_Client] = set()
        self._server: asyncio.Server | None = None
        self._published = 0

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
    def clients(self) -> int:
        """How many clients watch."""
        return sum(client.live for client in self._clients)

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
            hello = protocol.decode_from_client(await asyncio.wait_for(reader.readline(), 10.0))
            refusal = self._refusal(hello, writer)
            if refusal or not isinstance(hello, protocol.Hello):
                writer.write(msgspec.json.encode(protocol.Refused(refusal or "say hello first")) + b"\n")
                await writer.drain()
                return
            client = _Client(writer, hello.live)
            client.send(protocol.Welcome(run=self._run, pid=os.getpid(), seq=self._published))
            if hello.live:
                self._catch_up(client, hello.since)
            self._clients.add(client)
            draining = asyncio.create_task(client.drain())
            while not client.closed and (line := await reader.readline()):
                message = protocol.decode_from_client(line)
                if not isinstance(message, protocol.Hello):
                    client.send(await self._handle(message))
        except (OSError, ValueError, msgspec.MsgspecError, TimeoutError, asyncio.CancelledError):
            pass  # A client that went away or talks nonsense concerns nobody but itself; nor does the engine's end.
        finally:
            if client is not None:
                client.close()
                self._clients.discard(client)
            if draining is not None:
                draining.cancel()
            writer.close()

    def _refusal(self, hello: protocol.FromClient, writer: asyncio.StreamWriter) -> str:
        """Why this client is not served, or an empty string."""
        peer = writer.get_extra_info("socket")
        credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        _, uid, _ = struct.unpack("3i", credentials)
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
            client.send(protocol.Snapshot(self._state()))
