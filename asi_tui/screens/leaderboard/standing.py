"""How a row of the leaderboard stands: the best, the ties with it, the level of what is claimed of it.

Differences between two rows rest on their intervals against the same baseline. Both share its seeds, so that adding
their widths in quadrature, as if they were independent, gives intervals that are rather too wide than too narrow.
"""

from __future__ import annotations

import math
import time
from typing import NamedTuple

from asi_tui import words
from asi_tui.model import Model
from engine.client.protocol import BoardRow, TaskGain

LOOK_SECONDS = 1.0
"""So often the scores are looked through again, at most."""

SETTLE_SECONDS = 2.0
"""So long after a change pages are asked for once more: the engine's database follows its records after a moment."""

MOST_SEEDS = 1_000

NORMAL_95 = 1.96

SIGNS = {"best": "★", "tie": "~", "worse": " ", "better": "↑", "open": "?"}
LEGEND = "★ best proposal   ~ overlaps it: not told apart   ? one seed or no interval   ↑ a baseline above it"


class Best(NamedTuple):
    """The best proposal that has an interval, and how many others overlap it."""

    experiment: str
    score: float
    low: float
    high: float
    seeds: int
    ties: int


class Scores(NamedTuple):
    """All scores at a glance. `stamp` changes when any of them does; `ranked` counts the rows without a condition."""

    stamp: int
    ranked: int
    best: Best | None


class Glance:
    """Looks through the scores of a run, at most once a second, and only when something was recorded."""

    def __init__(self) -> None:
        self._seq = -1
        self._looked = 0.0
        self._changed = 0.0
        self._scores = Scores(0, 0, None)

    def scores(self, model: Model) -> Scores:
        """The newest look."""
        now = time.monotonic()
        state = model.state
        if state.seq != self._seq and (now - self._looked > LOOK_SECONDS or not self._scores.ranked):
            self._seq, self._looked = state.seq, now
            found = look_through(model)
            if found.stamp != self._scores.stamp:
                self._changed = now
            self._scores = found
        return self._scores

    @property
    def stamp(self) -> tuple[int, bool]:
        """With what pages are asked for."""
        return self._scores.stamp, time.monotonic() - self._changed > SETTLE_SECONDS


def look_through(model: Model) -> Scores:
    """One pass over all experiments, and one over those that could tie with the best."""
    stamp = ranked = 0
    with_interval: list[tuple[float, float, float, int, str]] = []
    for one in model.state.experiments.values():
        scored = one.scored
        if scored is None or one.outcome not in ("", "ranked"):
            continue
        ranked += 1
        stamp = hash((stamp, one.id, scored.score, scored.seeds, scored.high))
        if one.origin != "baseline" and scored.seeds > 1 and words.known(scored.low, scored.high):
            with_interval.append((scored.score, scored.low, scored.high, scored.seeds, one.id))
    if not with_interval:
        return Scores(stamp, ranked, None)
    score, low, high, seeds, name = max(with_interval, key=lambda found: found[0])
    ties = sum(found[2] >= low for found in with_interval) - 1
    return Scores(stamp, ranked, Best(name, score, low, high, seeds, ties))


def bounds(row: BoardRow) -> tuple[float, float] | None:
    """The row's interval, if it has one that says anything."""
    low, high = row.low, row.high
    return (low, high) if low is not None and high is not None and words.known(low, high) else None


def half_width(row: BoardRow) -> float | None:
    """Half of the row's interval."""
    found = bounds(row)
    return None if found is None else (found[1] - found[0]) / 2


def standing(row: BoardRow, best: Best | None) -> str:
    """`best`, `tie`, `worse`, `better` (a baseline above the best proposal), `open` without an interval
    or on one seed, which only ever says that a row is worse."""
    if best is not None and row.experiment == best.experiment:
        return "best"
    found = bounds(row)
    if found is None or best is None:
        return "open"
    low, high = found
    if high < best.low:
        return "worse"
    return "open" if row.seeds < 2 else "better" if low > best.high else "tie"


def sign(row: BoardRow, best: Best | None) -> str:
    """One cell that says how the row stands."""
    return SIGNS[standing(row, best)]


def claim_level(row: BoardRow) -> str:
    """What is claimed of a row. Nothing has been claimed of any proposal yet: a score makes a candidate."""
    return "baseline" if row.origin == "baseline" else "candidate"


def proposer(row: BoardRow) -> str:
    """Who proposed it; controls are marked."""
    if row.control and row.origin != "control":
        return f"{row.origin} ctl"
    return row.origin


def seeds_to_separate(row: BoardRow, best: Best) -> int:
    """An estimate of the seeds that each of the two needs until their difference stands clear of its interval.

    Half widths shrink with the root of the seeds: n = (h²·n of the one + h²·n of the other) / difference². Where the
    row has no interval, the best's noise stands for its own. 0 where no number would do.
    """
    gap = best.score - row.score
    if abs(gap) < 1e-9:
        return 0
    spread = ((best.high - best.low) / 2) ** 2 * best.seeds
    half = half_width(row)
    own = spread if half is None else half**2 * row.seeds
    return max(2, math.ceil((spread + own) / gap**2))


class Difference(NamedTuple):
    """One row less another, in units of the noise floor; the bounds are None where the noise is not known.

    paired: measured by the engine on shared seeds, and not estimated from two intervals.
    """

    value: float
    low: float | None
    high: float | None
    paired: bool = False


def difference(one: BoardRow, other: BoardRow) -> Difference:
    """The score of one row less that of another; a child against its parent is what the engine measured."""
    if one.parent == other.experiment and one.against_parent is not None:
        return Difference(one.against_parent, one.against_parent_low, one.against_parent_high, True)
    if other.parent == one.experiment and other.against_parent is not None:
        low, high = other.against_parent_low, other.against_parent_high
        if low is None or high is None or not words.known(low, high):
            return Difference(-other.against_parent, None, None, True)
        return Difference(-other.against_parent, -high, -low, True)
    value = one.score - other.score
    first, second = half_width(one), half_width(other)
    if first is None or second is None:
        return Difference(value, None, None)
    half = math.hypot(first, second)
    return Difference(value, value - half, value + half)


def in_noise(gain: TaskGain) -> float | None:
    """A task's difference in units of that task's noise."""
    return gain.difference / gain.noise if gain.noise else None


def gain_on(row: BoardRow, task: str) -> TaskGain | None:
    """What the row gained on a task."""
    return next((gain for gain in row.tasks if gain.task == task), None)


def task_half_width(noise_seeds: int) -> float:
    """Half of a 95 % interval of one task's paired difference over so many seeds, in units of the task's noise."""
    return NORMAL_95 * math.sqrt(2.0 / max(1, noise_seeds))


def task_difference(one: BoardRow, other: BoardRow, task: str) -> Difference | None:
    """The difference of two paired differences on one task, in units of its noise; None where one was not measured."""
    first, second = gain_on(one, task), gain_on(other, task)
    if first is None or second is None or not first.noise:
        return None
    value = (first.difference - second.difference) / first.noise
    half = math.hypot(task_half_width(one.seeds), task_half_width(other.seeds))
    return Difference(value, value - half, value + half)
