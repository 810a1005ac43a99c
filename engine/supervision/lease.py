"""The engine's side of the lease: starts the guard, sends it heartbeats, and hears when it had to kill.

The heartbeat is sent by the event loop itself, so that a loop which hangs is one that no longer holds its sandboxes.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from engine.client import guard
from engine.client.rundir import RUN_MARK, run_mark
from engine.supervision.pipes import receive, wait_child
from store.events import LeaseLost

BEATS_PER_LEASE = 5
RESTARTS = 5
LEAVE_SECONDS = 5.0  # what a guard gets to go when it is asked to
AFTERMATH = 10.0  # seconds after a lost lease in which a killed sandbox is taken for one of its victims


class GuardFailed(Exception):
    """No guard can be had; nothing may run without one. The message is one line."""


class Lease:
    """The lease of one engine. `on_lost` hears of every expiry, `on_failure` when no guard can be started any more.

    Args:
        root: the run directory.
        seconds: how long the engine may be silent.
    """

    def __init__(
        self, root: Path, seconds: float, on_lost: Callable[[LeaseLost], None], on_failure: Callable[[str], None]
    ) -> None:
        self._root, self._seconds = root, seconds
        self._on_lost, self._on_failure = on_lost, on_failure
        self._guard: subprocess.Popen[bytes] | None = None
        self._heart = -1
        self._last = time.monotonic()
        self._lost_at = float("-inf")

    @property
    def lost(self) -> bool:
        """Whether the lease has just expired, so that sandboxes that were killed now were killed by the guard."""
        now = time.monotonic()
        return now - self._last > self._seconds or now - self._lost_at < AFTERMATH

    def start(self) -> None:
        """Start the guard; to be called before the first sandbox. Raises `GuardFailed`."""
        read_end, write_end = os.pipe()
        try:
            self._guard = subprocess.Popen(
                [sys.executable, "-I", "-S", guard.__file__, str(self._root), str(self._seconds)],
                stdin=read_end, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd="/",
                env={RUN_MARK: run_mark(self._root)}, start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            os.close(write_end)
            raise GuardFailed(f"the guard of the sandboxes did not start: {error}") from error
        finally:
            os.close(read_end)
        os.set_blocking(write_end, False)
        self._heart = write_end
        self._last = time.monotonic()

    async def keep(self) -> None:
        """Send heartbeats and listen to the guard until cancelled; a guard that ended is replaced."""
        beating = asyncio.create_task(self._beat())
        try:
            for _ in range(RESTARTS):
                await self._listen()
                os.close(self._heart)
                self._heart = -1
                try:
                    self.start()
                except GuardFailed as error:
                    self._on_failure(str(error))
                    return
            self._on_failure(f"the guard of the sandboxes ended {RESTARTS} times")
        finally:
            beating.cancel()

    async def leave(self) -> None:
        """Let the guard go: every sandbox has ended. One that does not go is killed."""
        if self._heart >= 0:
            with contextlib.suppress(OSError):  # it is gone already
                os.write(self._heart, guard.LEAVE)
            os.close(self._heart)
            self._heart = -1
        if self._guard is not None and self._guard.stdout is not None:
            self._guard.stdout.close()
            await _await_end(self._guard)

    async def _beat(self) -> None:
        while True:
            now = time.monotonic()
            if now - self._last > self._seconds:
                self._lost_at = now
            self._last = now
            with contextlib.suppress(OSError):  # a guard that ended is noticed by `keep`
                os.write(self._heart, b".")
            await asyncio.sleep(self._seconds / BEATS_PER_LEASE)

    async def _listen(self) -> None:
        """Hear the guard's reports until it ends."""
        assert self._guard is not None
        assert self._guard.stdout is not None
        with self._guard.stdout as output:
            while received := await receive(output.fileno()):
                for line in received.splitlines():
                    self._lost_at = time.monotonic()
                    told = msgspec.json.decode(line, type=_Told)
                    self._on_lost(LeaseLost(told.seconds, told.sandboxes, told.proved))
        await _await_end(self._guard)


async def _await_end(child: subprocess.Popen[bytes]) -> None:
    try:
        async with asyncio.timeout(LEAVE_SECONDS):
            await wait_child(child)
    except TimeoutError:
        child.kill()
        await wait_child(child)


class _Told(msgspec.Struct, frozen=True):
    """The guard's line: how long the heart was silent, how many living sandboxes it killed, whether it is proved."""

    seconds: float
    sandboxes: int
    proved: bool
