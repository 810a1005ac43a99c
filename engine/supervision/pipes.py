"""Talking to and waiting for child processes on the event loop, without threads."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess


class Pipe:
    """A pipe whose ends are closed when the block is left, each exactly once; as a socket pair it goes both ways."""

    def __init__(self, socket_pair: bool = False) -> None:
        self.read, self.write = (end.detach() for end in socket.socketpair()) if socket_pair else os.pipe()
        self._open = {self.read, self.write}

    def close(self, descriptor: int) -> None:
        """Close one end now."""
        if descriptor in self._open:
            self._open.remove(descriptor)
            os.close(descriptor)

    def __enter__(self) -> Pipe:
        return self

    def __exit__(self, *_: object) -> None:
        self.close(self.read)
        self.close(self.write)


async def wait_child(child: subprocess.Popen[bytes]) -> int:
    """Wait for a child of ours without a thread; returns its code as `Popen.returncode` has it."""
    loop = asyncio.get_running_loop()
    if child.poll() is not None:  # signalling it has noticed its end, and then the pid is nobody's
        return child.returncode
    descriptor = os.pidfd_open(child.pid)
    ended = asyncio.Event()
    loop.add_reader(descriptor, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
    return child.wait()


async def receive(descriptor: int) -> bytes:
    """The next bytes of a pipe or socket, empty at its end, without blocking the loop."""
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(descriptor, readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(descriptor)
    return os.read(descriptor, 4096)
