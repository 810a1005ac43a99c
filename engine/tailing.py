"""Reading what a trial writes while it writes it: whole new lines, bounded, from plain files only.

`points.jsonl` is written by the training process and therefore hostile; `scores.jsonl` by the trusted scorer.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import msgspec

from engine.client.protocol import CurvePoint, LiveCurve
from engine.domain import Domain, Point, ScorePoint, TrialSpec
from engine.watch import Anomaly

MAX_LINE = 4_096
MAX_POINTS_BYTES = 16 * 1024 * 1024
BLOCK = 1 << 20

Publish = Callable[[LiveCurve], None]
Line = TypeVar("Line", Point, ScorePoint)


def open_plain(path: Path) -> int | None:
    """A descriptor of a plain file, or None: a link, a pipe or a device that a trial put there is not read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    return None


class Tail:
    """Whole new lines of a growing file that somebody else, perhaps hostile, writes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    @property
    def flooded(self) -> bool:
        """More was written than a trial has to say."""
        return self._offset > MAX_POINTS_BYTES

    def lines(self) -> list[bytes]:
        """Lines completed since the last call; a file that is no plain file, or too large, gives none."""
        descriptor = None if self.flooded else open_plain(self._path)
        if descriptor is None:
            return []
        with os.fdopen(descriptor, "rb") as stream:
            stream.seek(self._offset)
            block = stream.read(BLOCK)
        # A whole block without an end of line is no line of ours: it is skipped.
        end = block.rfind(b"\n") + 1 or (len(block) if len(block) == BLOCK else 0)
        self._offset += end
        return [line for line in block[:end].splitlines() if len(line) <= MAX_LINE]


class Curve:
    """Tails both files of one trial and publishes what is new. `clock` counts seconds in which the trial may run."""

    def __init__(
        self, spec: TrialSpec, experiment: str, folder: Path, domain: Domain, publish: Publish,
        clock: Callable[[], float],
    ) -> None:  # fmt: skip
        self.folder = folder
        self.anomaly: Anomaly | None = None
        self._spec, self._experiment, self._publish, self._clock = spec, experiment, publish, clock
        # From their beginnings, also for a trial that goes on: its watch must know what an undisturbed one would.
        self._points = Tail(folder / "work" / "points.jsonl")
        self._scores = Tail(folder / "scores.jsonl")
        self._steps = {task.name: task.steps for task in domain.tasks(spec.tier)}
        self._total = sum(self._steps[task] for task in spec.tasks)
        self._started = clock()
        self._begun: float | None = None

    def read(self) -> list[Point]:
        """New training points, published on the way together with new sealed scores."""
        known = self._steps.keys() & set(self._spec.tasks)
        points = [p for line in self._points.lines() if (p := _decode(line, Point)) and p.task in known]
        scores = [s for line in self._scores.lines() if (s := _decode(line, ScorePoint)) and s.task in known]
        if self._points.flooded and self.anomaly is None:
            self.anomaly = Anomaly("flood", f"more than {MAX_POINTS_BYTES >> 20} MB of training points")
        if points or scores:
            last = points[-1] if points else scores[-1]
            self._publish(self._live(last.task, max(0, last.step), points, scores))
        return points

    def _live(self, task: str, step: int, points: list[Point], scores: list[ScorePoint]) -> LiveCurve:
        before = sum(self._steps[name] for name in self._spec.tasks[: self._spec.tasks.index(task)])
        done = min(1.0, (before + step) / max(1, self._total))
        elapsed = self._clock() - self._started
        begun = self._begun = done if self._begun is None and self._spec.resume else self._begun or 0.0
        share = done - begun
        return LiveCurve(
            trial=self._spec.trial,
            experiment=self._experiment,
            task=task,
            step=step,
            steps=self._steps[task],
            done=done,
            losses=[CurvePoint(p.task, p.step, p.loss) for p in points if p.loss is not None],
            scores=[CurvePoint(s.task, s.step, s.value) for s in scores],
            steps_per_second=share * self._total / elapsed if elapsed > 0 else 0.0,
            seconds_left=elapsed * (1 - done) / share if share > 0 else 0.0,
        )


def _decode(line: bytes, kind: type[Line]) -> Line | None:
    try:
        return msgspec.json.decode(line, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
