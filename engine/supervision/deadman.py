"""The dead-man's switch: what becomes of a run when no person has acted for a while.

Only what a person does renews it: a command, or a key in the terminal. Being attached is not attention. It counts on
the monotonic clock, so setting the wall clock neither saves nor ends a run.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal

from store.config import Deadman
from store.state import Phase

Stage = Literal["", "pause", "freeze"]


class DeadMan:
    """Knows when a person last acted."""

    def __init__(self, config: Deadman, clock: Callable[[], float] = time.monotonic) -> None:
        limits: tuple[tuple[float, Stage], ...] = ((config.pause_minutes, "pause"), (config.freeze_minutes, "freeze"))
        self._limits = [(60 * minutes, stage) for minutes, stage in limits if minutes > 0]
        self._clock = clock
        self._last = clock()

    def renew(self) -> None:
        """A person acted."""
        self._last = self._clock()

    @property
    def absent(self) -> float:
        """Seconds since a person last acted."""
        return self._clock() - self._last

    @property
    def stage(self) -> Stage:
        """What the absence has come to."""
        reached = {stage for limit, stage in self._limits if self.absent >= limit}
        return "freeze" if "freeze" in reached else "pause" if reached else ""

    def left(self, phase: Phase) -> float | None:
        """Seconds until a run in this phase is stopped further, 0 when it is due; None where that will not happen."""
        ahead = {"running": ("pause", "freeze"), "paused": ("freeze",)}.get(phase, ())
        return min((max(0.0, limit - self.absent) for limit, stage in self._limits if stage in ahead), default=None)
