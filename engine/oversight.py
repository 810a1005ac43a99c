"""What the engine watches beside the loop, whatever the loop does: caps, free disk space, and the person's absence."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import time
from collections.abc import Awaitable, Callable

from engine.halting import Refusal
from engine.laboratory import Laboratory
from engine.supervision.ledger import accounts, crossed
from store.config import RunConfig

SECONDS = 1.0
LEDGER_SECONDS = 5.0
LEAST_FREE_BYTES = 1.5e9  # well above what sandboxes are ended for: by then, everything should have been paused
DEADMAN_WARNING = 300.0  # seconds before the run stops for want of a person


class Oversight:
    """Pauses or freezes a run when a cap, the disk or the dead-man's switch says so."""

    def __init__(self, laboratory: Laboratory) -> None:
        self.lab, self.runtime = laboratory, laboratory.runtime
        self._warned = self._full = False
        self._next_ledger = 0.0

    @property
    def config(self) -> RunConfig:
        """The run's configuration."""
        return self.runtime.config

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            await asyncio.sleep(SECONDS)
            self.runtime.check_clock()
            await self._look_for_person()
            if time.monotonic() >= self._next_ledger:
                await self._look_at_ledger()
                self._next_ledger = time.monotonic() + LEDGER_SECONDS

    async def _look_for_person(self) -> None:
        deadman, phase = self.lab.deadman, self.runtime.state.phase
        absent = f"no person has acted for {_span(deadman.absent)}"
        stage, left = deadman.stage, deadman.left(phase)
        if stage == "freeze" and phase in ("running", "paused"):
            await self._stop(self.lab.halting.freeze, f"dead-man's switch: {absent}", "deadman")
        elif stage == "pause" and phase == "running":
            await self._stop(self.lab.halting.pause, f"dead-man's switch: {absent}", "deadman")
        elif left is not None and left < DEADMAN_WARNING:
            if not self._warned:
                self._warned = True
                how = "pauses" if phase == "running" else "freezes"
                self.runtime.note(f"{absent}; the run {how} in {_span(left)} unless one does", "warning")
        else:
            self._warned = False

    async def _look_at_ledger(self) -> None:
        """Warn at 80 % of a cap, pause at the cap; pause before the disk is full."""
        root = self.runtime.paths.root
        free = (await asyncio.to_thread(shutil.disk_usage, root)).free
        if free < LEAST_FREE_BYTES and not self._full:
            reason = f"only {free / 1e6:.0f} MB are free at {root}; free some, then asi resume"
            await self._stop(self.lab.halting.pause, reason, "ledger")
        self._full = free < LEAST_FREE_BYTES
        disk = await asyncio.to_thread(disk_bytes, os.fspath(root)) if self.config.budget.disk_gb else 0.0
        state = self.lab.decoys.without(self.runtime.state)  # tests of attention use up no cap
        for event in crossed(state, accounts(state, self.config.budget, time.time(), disk)):
            if event.hard and self.runtime.state.phase != "running":
                continue  # said when work goes on: going on beyond a cap must be a decision about that cap
            if event.hard:
                await self.lab.halting.cap(event)
            else:
                await self.runtime.commit(event)

    async def _stop(self, stop: Callable[[str, str], Awaitable[str]], reason: str, actor: str) -> None:
        with contextlib.suppress(Refusal):  # it has stopped already
            await stop(reason, actor)


def _span(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 120 else f"{seconds:.0f} s"


def disk_bytes(root: str) -> float:
    """Bytes on the disk below a folder; links are not followed, and nothing nested beyond a path's length is seen."""
    total, queue = 0, [root]
    while queue:
        with contextlib.suppress(OSError), os.scandir(queue.pop()) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):  # removed while we looked
                    total += entry.stat(follow_symlinks=False).st_blocks * 512
                    if entry.is_dir(follow_symlinks=False):
                        queue.append(entry.path)
    return float(total)
