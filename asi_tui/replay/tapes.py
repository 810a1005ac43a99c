"""Training curves of recorded trials, shown no further than the replay has come."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from pathlib import Path

from engine.client.protocol import Curve, CurvePoint, LiveCurve
from store.curves import Point, Score, read_points, read_scores
from store.state import Trial

MOST_POINTS = 400_000
"""Points that are kept in memory, of all trials."""

LATELY = 10
"""Points over which a speed is measured."""


class Tape:
    """The curve of one trial, each point with the seconds of training after which it was there."""

    def __init__(self, points: list[Point], scores: list[Score]) -> None:
        self.losses: list[CurvePoint] = []
        self.scores: list[CurvePoint] = []
        self.totals: list[int] = []
        self.seconds = array("d")
        self._score_seconds = array("d")
        steps: dict[str, tuple[array[int], array[float]]] = {}
        before = offset = 0.0
        for point in points:
            if point.seconds < before:  # each task, and each part of a parked trial, may count from zero
                offset += before
            before = point.seconds
            when = offset + point.seconds
            known = steps.setdefault(point.task, (array("Q"), array("d")))
            known[0].append(point.step)
            known[1].append(when)
            if point.loss is not None:
                self.losses.append(CurvePoint(point.task, point.step, point.loss))
                self.totals.append(point.steps)
                self.seconds.append(when)
        timed = sorted((_when(score, steps), index) for index, score in enumerate(scores))
        for when, index in timed:
            score = scores[index]
            self.scores.append(CurvePoint(score.task, score.step, score.value))
            self._score_seconds.append(when)

    def __len__(self) -> int:
        return len(self.losses) + len(self.scores)

    def until(self, seconds: float) -> tuple[int, int]:
        """How many losses and scores are there after so many seconds of training."""
        return bisect_right(self.seconds, seconds), bisect_right(self._score_seconds, seconds)

    def after(self, seconds: float) -> float | None:
        """The seconds of the next point."""
        index = bisect_right(self.seconds, seconds)
        return self.seconds[index] if index < len(self.seconds) else None

    def curve(self, seconds: float) -> Curve:
        """What is there after so many seconds."""
        losses, scores = self.until(seconds)
        return Curve(self.losses[:losses], self.scores[:scores])

    def frame(self, trial: Trial, seconds: float, shown: tuple[int, int]) -> LiveCurve | None:
        """The live frame with what has come since `shown`; None where nothing has."""
        losses, scores = self.until(seconds)
        if (losses, scores) <= shown or not losses:
            return None
        latest, index = self.losses[losses - 1], losses - 1
        early = max(0, index - LATELY)
        elapsed = self.seconds[index] - self.seconds[early]
        done = latest.step - self.losses[early].step
        speed = done / elapsed if elapsed > 0 and done > 0 else 0.0
        return LiveCurve(
            trial.id, trial.experiment, latest.task, latest.step, self.totals[index],
            losses / max(1, len(self.losses)), self.losses[shown[0] : losses], self.scores[shown[1] : scores], speed,
            self.seconds[-1] - self.seconds[index],
        )  # fmt: skip


def _when(score: Score, steps: dict[str, tuple[array[int], array[float]]]) -> float:
    """When a score was there: with the first training point of its task at its step or after it."""
    known = steps.get(score.task)
    if known is None:
        return 0.0
    index = bisect_left(known[0], score.step)
    return known[1][min(index, len(known[1]) - 1)]


class Tapes:
    """The newest tapes that were asked for; loading blocks."""

    def __init__(self, trials: Path) -> None:
        self._trials = trials
        self._tapes: OrderedDict[str, Tape] = OrderedDict()

    def known(self, trial: str) -> Tape | None:
        """A tape that is loaded."""
        return self._tapes.get(trial)

    def load(self, trial: str) -> Tape:
        """Read a trial's files again."""
        tape = Tape(read_points(self._trials, trial).lines, read_scores(self._trials, trial).lines)
        self._tapes[trial] = tape
        self._tapes.move_to_end(trial)
        while len(self._tapes) > 1 and sum(len(one) for one in self._tapes.values()) > MOST_POINTS:
            self._tapes.popitem(last=False)
        return tape
