"""When the model server fails again and again the run is paused, and goes on by itself when the server answers."""

from __future__ import annotations

import asyncio
import contextlib

from engine.agents.llm.client import Server
from engine.halting import Halting, Refusal

PREFIX = "model server: "
FIRST_PROBE_SECONDS, LAST_PROBE_SECONDS = 2.0, 60.0
ALONE = "; goes on by itself when it answers"


class Breaker:
    """Counts failures of the server in a row, whichever experiments met them.

    Args:
        halting: pauses and resumes.
        server: what is probed; None in a replay.
        limit: so many failures in a row pause the run.
    """

    def __init__(self, halting: Halting, server: Server | None, limit: int) -> None:
        self._halting, self._server, self._limit = halting, server, limit
        self._failures = 0
        self._tripped = asyncio.Event()
        self._touched = 0
        state = halting.runtime.state
        if state.phase == "paused" and state.phase_reason.startswith(PREFIX) and state.phase_reason.endswith(ALONE):
            self._tripped.set()  # by an earlier engine

    @property
    def open(self) -> bool:
        """The server has failed too often in a row."""
        return self._failures >= self._limit

    def succeeded(self) -> None:
        """The server answered."""
        self._failures = 0

    def failed(self) -> bool:
        """The server failed once more; whether that is too often."""
        self._failures += 1
        return self.open

    async def trip(self, reason: str, alone: bool) -> None:
        """Pause the run; with `alone` it goes on by itself, unless a person has acted by then."""
        text = PREFIX + reason + (f" ({self._failures} failures in a row){ALONE}" if alone else "")
        with contextlib.suppress(Refusal):  # somebody was faster, and it is theirs to resume
            await self._halting.pause(text, "engine")
            if alone:
                self._touched = self._halting.touched
                self._tripped.set()

    async def watch(self) -> None:
        """Probe the server whenever the run is paused for it; to be cancelled."""
        while True:
            await self._tripped.wait()
            delay = FIRST_PROBE_SECONDS
            while self._ours():
                await asyncio.sleep(delay)
                delay = min(2 * delay, LAST_PROBE_SECONDS)
                if self._server is not None and await self._server.probe() and self._ours():
                    self._failures = max(0, self._limit - 2)  # on trial: two more failures pause again
                    with contextlib.suppress(Refusal):
                        await self._halting.resume("engine")
                    break
            self._tripped.clear()

    def _ours(self) -> bool:
        """The run is still paused by this breaker and no person has asked for anything else since."""
        state = self._halting.runtime.state
        return (
            state.phase == "paused" and state.phase_reason.startswith(PREFIX) and self._halting.touched == self._touched
        )
