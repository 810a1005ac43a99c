"""The watch over one running trial: points in, an anomaly out when something is wrong.

It knows nothing of processes; time comes in as seconds in which the trial was allowed to run, so a frozen trial is
neither silent nor late.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import msgspec

from engine.domain import Point

SILENCE_SECONDS = 180.0
ASLEEP_SECONDS = 60.0
DIVERGED_FACTOR = 3.0
DIVERGED_MARGIN = 2.0
LOW_POINTS = 3


class Anomaly(msgspec.Struct, frozen=True):
    """Why a trial must end: `what` is one of nan, diverged, stalled, silent, overrun, leak, flood."""

    what: str
    evidence: str


class Watch:
    """Watches one trial; `allowed_cpu_seconds` is the most the whole trial may burn.

    lowest_honest_loss: (task, step) → training loss in nats below which answers must have leaked.
    """

    def __init__(self, allowed_cpu_seconds: float, lowest_honest_loss: Callable[[str, int], float]) -> None:
        self._allowed = allowed_cpu_seconds
        self._lowest = lowest_honest_loss
        self._first: dict[str, float] = {}
        self._low: dict[str, int] = {}
        self._last_point = 0.0
        self._last_step: tuple[str, int] = ("", -1)
        self._cpu_at_step = 0.0

    def point(self, point: Point, now: float, cpu_seconds: float) -> Anomaly | None:
        """Look at a new training point; `now` in running seconds of the trial."""
        self._last_point = now
        if (point.task, point.step) != self._last_step:
            self._last_step = (point.task, point.step)
            self._cpu_at_step = cpu_seconds
        if point.loss is None or not math.isfinite(point.loss):
            return Anomaly("nan", f"{point.task}: the loss is not a number at step {point.step}")
        first = self._first.setdefault(point.task, point.loss)
        if point.loss > DIVERGED_FACTOR * first + DIVERGED_MARGIN:
            return Anomaly(
                "diverged", f"{point.task}: loss {point.loss:.3g} at step {point.step}, {first:.3g} at the start"
            )
        if point.loss < self._lowest(point.task, point.step):
            # One lucky batch is not a leak; several in a row are.
            self._low[point.task] = self._low.get(point.task, 0) + 1
            if self._low[point.task] >= LOW_POINTS:
                return Anomaly(
                    "leak", f"{point.task}: loss {point.loss:.4f} nats at step {point.step} is lower than honest"
                )
        return None

    def tick(self, now: float, cpu_seconds: float) -> Anomaly | None:
        """Look at the clock: `now` in running seconds, `cpu_seconds` of the sandbox so far."""
        if cpu_seconds > self._allowed:
            return Anomaly("overrun", f"{cpu_seconds:.0f} CPU-seconds used of {self._allowed:.0f} allowed")
        silence = now - self._last_point
        busy = cpu_seconds - self._cpu_at_step
        if silence > ASLEEP_SECONDS and busy < silence / 20:
            return Anomaly("silent", f"no point and no work for {silence:.0f} s")
        if silence > SILENCE_SECONDS:
            return Anomaly("stalled", f"no point for {silence:.0f} s while burning {busy:.0f} CPU-seconds")
        return None
