"""A trial's curves beside those of its parent and the baseline, and how far apart they are at the same step."""

from __future__ import annotations

import math
from statistics import fmean, stdev
from typing import NamedTuple

from asi_tui import words
from asi_tui.library import Library
from asi_tui.lines import Row, Span, clip, row, rule
from asi_tui.model import Curve, Model
from asi_tui.plot import SIGNS, Series, plot
from store.state import Trial

DIVERGED = 1e6
"""A loss beyond this is no loss any more."""

WINDOW = 0.1
"""Losses are noisy: the loss at a step is the mean over so much of the way there."""

MOST_SEEDS = 8


class Compared(NamedTuple):
    """A trial less what it is compared with, at one step; `spread` is the SD over seeds, None with one of them."""

    step: int
    difference: float
    seeds: int
    spread: float | None


def curve_of(library: Library, model: Model, trial: Trial) -> Curve:
    """The trial's curve, completed by what the engine had before this terminal came."""
    curve = model.curve(trial.id)
    if not trial.cached:
        told = library.curve(trial.id, trial.status)
        if told is not None and curve.total < len(told.losses) + len(told.scores):
            curve.add(told.losses, told.scores)
    return curve


def diverged(curve: Curve, task: str) -> int | None:
    """The first step at which the loss was no number, or beyond all measure."""
    wrong = (step for step, value in curve.losses.get(task, {}).items() if not _sane(value))
    return min(wrong, default=None)


def _sane(value: float) -> bool:
    return math.isfinite(value) and abs(value) < DIVERGED


def level(known: dict[int, float], step: int) -> float | None:
    """The mean over the last tenth of the way to a step; None where nothing is known there."""
    near = [value for at, value in known.items() if step * (1 - WINDOW) <= at <= step and _sane(value)]
    return fmean(near) if near else None


def compare(own: Curve, others: list[Curve], task: str, sealed: bool) -> Compared | None:
    """Own less the mean of the others, at the last step that is known of both."""
    def points(curve: Curve) -> dict[int, float]:
        return (curve.scores if sealed else curve.losses).get(task, {})

    known = points(own)
    if not known:
        return None
    step = max(known)
    mine = level(known, step)
    theirs = [value for one in others if max(points(one), default=-1) >= step * (1 - WINDOW)
              and (value := level(points(one), step)) is not None]  # fmt: skip
    if mine is None or not theirs:
        return None
    return Compared(step, mine - fmean(theirs), len(theirs), stdev(theirs) if len(theirs) > 1 else None)


class Curves:
    """Draws the curves of one trial: one kind on one task at a time."""

    def __init__(self, library: Library, model: Model, trial: Trial) -> None:
        self.library, self.model, self.trial = library, model, trial
        self.own = curve_of(library, model, trial)

    def rows(self, task: str, sealed: bool, width: int, height: int) -> list[Row]:
        """A head, a legend, the difference to the parent, the plot."""
        tasks = self.own.tasks()
        what = f"sealed {self._metric(task)}" if sealed else "training loss, nats, lower is better"
        position = f" ({tasks.index(task) + 1} of {len(tasks)} tasks)" if task in tasks and len(tasks) > 1 else ""
        rows = [rule(f"{task or 'curves'}{position}", width, what)]
        series, legend = self._series(task, sealed)
        broken = diverged(self.own, task) if not sealed else None
        if broken is not None:
            rows.append(row((f" ✗ diverged at step {broken:,}: no finite loss", "bad")))
        if not any(one.points for one in series):
            return [*rows, row((" no points yet", "dim"))]
        rows.append(clip(row(*legend), width))
        difference = self._difference(task, sealed)
        if difference and height >= 9:
            rows.append(clip(row(*difference), width))
        latest = self.own.latest
        end = float(latest.steps) if latest and latest.task == task else 0.0
        drawn = plot(series, width - 1, max(3, height - len(rows)), "steps", end)
        return rows + [clip(line, width) for line in drawn]

    def _metric(self, task: str) -> str:
        """What the sealed scorer measures on a task."""
        others = self.model.reference()
        for trial in (self.trial, *(self.model.state.finished_trials(others.id) if others else ())):
            for one in trial.tasks:
                if one.task == task:
                    return one.metric
        return "measure"

    def _others(self) -> list[tuple[str, str, list[Trial]]]:
        """Parent and baseline: who, in which role, and their finished trials of this tier, the like seed first."""
        found = self.model.state.experiments[self.trial.experiment]
        reference = self.model.reference()
        out: list[tuple[str, str, list[Trial]]] = []
        for name, role in ((found.parent, "parent"), (reference.id if reference else "", "baseline")):
            if name not in self.model.state.experiments or name == found.id or any(name == one[0] for one in out):
                continue
            trials = [one for one in self.model.state.finished_trials(name) if one.tier == self.trial.tier]
            trials.sort(key=lambda one: (one.seed != self.trial.seed, -one.ended))
            if trials:
                out.append((name, role, trials[:MOST_SEEDS]))
        return out

    def _series(self, task: str, sealed: bool) -> tuple[list[Series], list[Span]]:
        shown = [(self.trial.experiment, "this trial", self.own)]
        shown += [(name, role, curve_of(self.library, self.model, trials[0])) for name, role, trials in self._others()]
        known_as = self.model.state.experiments
        series: list[Series] = []
        legend: list[Span] = [(" ", "")]
        for number, (name, role, curve) in enumerate(shown):
            known = (curve.scores if sealed else curve.losses).get(task, {})
            points = sorted((float(step), value) for step, value in known.items() if _sane(value))
            series.append(Series(name, points, number))
            last = f" {points[-1][1]:.3f}" if points else " no points"
            called = words.title(known_as[name]) if known_as[name].origin == "baseline" else name
            legend += [("   " if number else "", ""), (SIGNS[number], f"series.{number}"),
                       (f" {role} {called}", "dim"), (last, "")]  # fmt: skip
        return series, legend

    def _difference(self, task: str, sealed: bool) -> list[Span]:
        """How far from parent and baseline at the same step, with the spread over their seeds where it is known."""
        spans: list[Span] = []
        for _, role, trials in self._others():
            others = [curve_of(self.library, self.model, one) for one in trials]
            found = compare(self.own, others, task, sealed)
            if found is None:
                continue
            if not spans:
                spans.append((f" at step {found.step:,}: ", "dim"))
            spread = f" ±{found.spread:.3f}" if found.spread is not None else " ±?"
            spans += [("   " if len(spans) > 1 else "", ""), (f"{found.difference:+.3f}{spread}", "strong"),
                      (f" to the {role}, {words.plural(found.seeds, 'seed')}", "dim")]  # fmt: skip
        return spans
