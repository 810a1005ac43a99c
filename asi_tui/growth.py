"""Does more compute buy more, and does the search do better than chance: counts, rates and their intervals.

Everything here is slow enough for a thread of its own, where numpy is loaded too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from asi_tui.fits import Fit, Interval, fit_growth, interval_of
from asi_tui.words import known
from store.state import Experiment, RunState

Clock = Literal["hours", "experiments"]

RESAMPLES = 300
SEED = 20_011
Z95 = 1.959963984540054
FEWEST_CONTROLS = 10
WINDOWS = 12
SMALLEST_WINDOW = 10
MOST_POINTS = 600


class Outcome(NamedTuple):
    """What came of one proposal: its cost in hours, whether it is a candidate, whether it beats its parent.

    score, low, high: None where there is no score, or no interval. beats: None where that cannot be said.
    """

    experiment: str
    control: bool
    hours: float
    better: bool
    score: float | None
    low: float | None
    high: float | None
    beats: bool | None


class Arm(NamedTuple):
    """The search, or the controls: how many proposals, at what cost, with what success.

    rate: candidates per hour; None where nothing was spent. judged, beats: children that can be compared with their
    parents, and those better than them.
    """

    proposals: int
    scored: int
    better: int
    hours: float
    rate: Interval | None
    judged: int
    beats: int

    @property
    def beat_share(self) -> Interval:
        """The share of children better than their parents."""
        return wilson(self.beats, self.judged)


class Mark(NamedTuple):
    """A point of a curve with its interval, at the numbers of hours and of experiments spent until then."""

    hours: float
    experiments: float
    value: float
    low: float
    high: float


class Growth(NamedTuple):
    """All that the scaling screen shows."""

    outcomes: list[Outcome]
    search: Arm
    controls: Arm
    difference: Interval | None
    counts: list[Mark]
    control_counts: list[Mark]
    best: list[Mark]
    control_best: list[Mark]
    beats: list[Mark]
    hours: Fit | None
    experiments: Fit | None

    def fit(self, clock: Clock) -> Fit | None:
        """The fits against one clock."""
        return self.hours if clock == "hours" else self.experiments


def observe(state: RunState) -> list[Outcome]:
    """What came of every proposal that is over or scored, in the order in which their last trials ended."""
    trials = state.trials
    found: list[tuple[float, Outcome]] = []
    for one in list(state.experiments.values()):
        if one.origin == "baseline" or (one.step != "closed" and one.scored is None):
            continue
        own = [trial for name in list(one.trials) if (trial := trials.get(name)) is not None]
        end = max((trial.ended for trial in own), default=one.opened)
        hours = sum(trial.cpu_seconds or trial.wall_seconds for trial in own if not trial.cached) / 3600
        found.append((end, _outcome(one, hours)))
    found.sort(key=lambda pair: pair[0])
    return [outcome for _, outcome in found]


def _outcome(one: Experiment, hours: float) -> Outcome:
    event = one.scored if one.ranked else None
    if event is None:
        return Outcome(one.id, one.control, hours, False, None, None, None, None)
    sure = known(event.low, event.high)
    against = event.against_parent_low
    beats = against > 0 if against is not None and known(against, event.against_parent_high) else None
    low, high = (event.low, event.high) if sure else (None, None)
    return Outcome(one.id, one.control, hours, sure and event.low > 0, event.score, low, high, beats)


def measure(outcomes: Sequence[Outcome], resamples: int = RESAMPLES) -> Growth:
    """Everything that can be said about the outcomes. The same outcomes give the same numbers."""
    import numpy as np

    chance = np.random.default_rng(SEED)
    search = [one for one in outcomes if not one.control]
    controls = [one for one in outcomes if one.control]
    rates = [_rates(arm, chance, resamples) for arm in (search, controls)]
    difference = None
    if rates[0] is not None and rates[1] is not None and len(controls) >= FEWEST_CONTROLS:
        difference = interval_of(rates[0][0] - rates[1][0], rates[0][1] - rates[1][1])
    places = _places(outcomes)
    better = [one.better for one in outcomes]
    return Growth(
        list(outcomes),
        _arm(search, rates[0]),
        _arm(controls, rates[1]),
        difference,
        _thin(_counts(outcomes, places, None)),
        _thin(_counts(outcomes, places, True)),
        _best(outcomes, places, None),
        _best(outcomes, places, True),
        _beats(outcomes, places),
        fit_growth([one.hours for one in outcomes], better, chance, resamples),
        fit_growth([1.0] * len(outcomes), better, chance, resamples),
    )


# --- shares and rates ------------------------------------------------------------------------------------------------


def wilson(successes: int, trials: int) -> Interval:
    """A share with Wilson's 95 % interval; 0 of 0 may be anything."""
    if not trials:
        return Interval(math.nan, 0.0, 1.0)
    share, square = successes / trials, Z95 * Z95
    middle = (share + square / (2 * trials)) / (1 + square / trials)
    half = Z95 * math.sqrt(share * (1 - share) / trials + square / (4 * trials * trials)) / (1 + square / trials)
    return Interval(share, 0.0 if successes == 0 else middle - half, 1.0 if successes == trials else middle + half)


def _rates(arm: Sequence[Outcome], chance: Any, resamples: int) -> tuple[float, Any] | None:
    """Candidates per hour of an arm, and the same of its resampled experiments."""
    import numpy as np

    hours = np.array([one.hours for one in arm])
    better = np.array([one.better for one in arm], dtype=float)
    if not len(arm) or hours.sum() <= 0:
        return None
    rates = np.empty(resamples)
    for index in range(resamples):
        drawn = chance.integers(0, len(arm), len(arm))
        spent = hours[drawn].sum()
        rates[index] = better[drawn].sum() / spent if spent > 0 else 0.0
    return float(better.sum() / hours.sum()), rates


def _arm(arm: Sequence[Outcome], rates: tuple[float, Any] | None) -> Arm:
    judged = [one.beats for one in arm if one.beats is not None]
    better = sum(one.better for one in arm)
    hours = sum(one.hours for one in arm)
    rate = None
    if rates is not None:
        rate = interval_of(*rates)
        if not better:  # resampling no success gives no success; so many may still be hidden by chance
            rate = Interval(0.0, 0.0, -math.log(0.05) / hours)
    scored = sum(one.score is not None for one in arm)
    return Arm(len(arm), scored, better, hours, rate, len(judged), sum(judged))


# --- curves ----------------------------------------------------------------------------------------------------------


def _places(outcomes: Sequence[Outcome]) -> list[tuple[float, float]]:
    """Hours and experiments spent until each outcome was known."""
    out, spent = [], 0.0
    for number, one in enumerate(outcomes, start=1):
        spent += one.hours
        out.append((spent, float(number)))
    return out


def _counts(outcomes: Sequence[Outcome], places: Sequence[tuple[float, float]], control: bool | None) -> list[Mark]:
    """The count of candidates whenever it grows; of the controls only, counted against their own cost, if asked."""
    marks = [Mark(0.0, 0.0, 0.0, 0.0, 0.0)]
    count, own_hours, own_number = 0, 0.0, 0
    for one, (hours, number) in zip(outcomes, places, strict=True):
        if control is not None:
            if one.control != control:
                continue
            own_hours, own_number = own_hours + one.hours, own_number + 1
            hours, number = own_hours, float(own_number)
        if one.better:
            count += 1
            marks.append(Mark(hours, number, count, count, count))
        last = Mark(hours, number, count, count, count)
    return [*marks, last] if len(marks) > 1 or any(one.control == control for one in outcomes) else marks


def _thin(marks: list[Mark]) -> list[Mark]:
    """At most `MOST_POINTS` of the marks, the first and the last among them."""
    if len(marks) <= MOST_POINTS:
        return marks
    return [marks[round(index * (len(marks) - 1) / (MOST_POINTS - 1))] for index in range(MOST_POINTS)]


def _best(outcomes: Sequence[Outcome], places: Sequence[tuple[float, float]], control: bool | None) -> list[Mark]:
    """The best score with an interval, whenever a better one came, and at the end."""
    marks: list[Mark] = []
    for one, (hours, number) in zip(outcomes, places, strict=True):
        if one.score is None or one.low is None or one.high is None or (control is not None and one.control != control):
            continue
        if not marks or one.score > marks[-1].value:
            marks.append(Mark(hours, number, one.score, one.low, one.high))
    if marks:
        marks.append(marks[-1]._replace(hours=places[-1][0], experiments=places[-1][1]))
    return marks


def _beats(outcomes: Sequence[Outcome], places: Sequence[tuple[float, float]]) -> list[Mark]:
    """The share of children better than their parents, in windows of equally many, at the windows' middles."""
    judged = [(one.beats, place) for one, place in zip(outcomes, places, strict=True) if one.beats is not None]
    size = max(SMALLEST_WINDOW, math.ceil(len(judged) / WINDOWS))
    marks = []
    for start in range(0, len(judged) - size + 1, size):
        window = judged[start : start + size]
        share = wilson(sum(bool(beats) for beats, _ in window), size)
        hours, number = window[size // 2][1]
        marks.append(Mark(hours, number, *share))
    return marks
