"""The two fits of a count against what it costs: a line, and one that saturates.

Successes come one by one while cost is spent, so they are treated as events of a Poisson process whose clock is the
cost. A constant rate gives the line `y = a x`; a rate that dies away gives `y = A (1 - exp(-x / tau))`. Both are fitted
by maximum likelihood, which makes their AIC comparable; intervals come from resampling experiments, not from the
process, because one experiment's cost and success belong together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

Shape = Literal["linear", "saturating"]

GRID = 96
AHEAD = 1.5
"""Fits are drawn up to so many times the cost that is spent."""

HELD_OUT = 0.3
"""The last part of the cost, which fits are tested on."""

FEWEST_TO_FIT = 3
FEWEST_TO_EXTRAPOLATE = 10
DECISIVE = 2.0
"""The bend is believed when AIC gains more than this. The line is a special case of it, and never gains as much."""


class Interval(NamedTuple):
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float


class Fit(NamedTuple):
    """Both fits of the count against one clock.

    rate: the line's slope. ceiling, scale: `A` and `tau`; None where the data show no bend.
    aic_gain: how much better the saturating one is by AIC; negative where the line is better.
    held: the count in the last part, and what each fit to the first part foretold for it.
    band: `(x, value, low, high)` of the better one, to beyond the data.
    """

    events: int
    end: float
    first: float
    rate: Interval
    ceiling: Interval | None
    scale: Interval | None
    aic_gain: float
    held: tuple[int, float, float] | None
    band: list[tuple[float, float, float, float]]

    @property
    def shape(self) -> Shape:
        """The fit that describes the data better: the line, until the bend is worth its second number."""
        return "saturating" if self.ceiling is not None and self.aic_gain > DECISIVE else "linear"

    @property
    def cautions(self) -> list[str]:
        """Why the fit may not be carried beyond the data; nothing where it may."""
        out = []
        if self.events < FEWEST_TO_EXTRAPOLATE:
            out.append(f"only {self.events} candidates, and {FEWEST_TO_EXTRAPOLATE} are needed")
        if self.shape == "linear" and self.end < 10 * self.first:
            out.append(f"the line is seen over a factor of {self.end / self.first:.1f} only, and 10 is needed")
        if self.shape == "saturating" and self.ceiling is not None and self.ceiling.high > 3 * self.ceiling.value:
            out.append("the ceiling is not bounded by the data yet")
        if self.held is not None:
            actual, *foretold = self.held
            told = foretold[1 if self.shape == "saturating" else 0]
            if abs(actual - told) > 2 * math.sqrt(max(told, 1.0)):
                out.append(f"it foretold {told:.1f} for the last {HELD_OUT:.0%} and there were {actual}")
        return out


def bend(means: Any) -> Any:
    """The `u = X / tau` of the saturating fit, from the events' mean place as a share of `X`; 0 where none bends.

    It solves `1 / u - 1 / (exp(u) - 1) = mean`, whose left side falls from one half to nothing.
    """
    import numpy as np

    means = np.asarray(means, dtype=float)
    low, high = np.full(means.shape, 1e-6), np.full(means.shape, 500.0)
    for _ in range(60):
        middle = (low + high) / 2
        above = 1 / middle - 1 / np.expm1(middle) > means
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return np.where(means < 0.5 - 1e-7, (low + high) / 2, 0.0)


def curve(xs: Any, count: Any, end: Any, u: Any) -> Any:
    """The fitted count at `xs`: a line where `u` is 0, else saturating; both go through `count` at `end`."""
    import numpy as np

    share = np.asarray(xs) / end
    safe = np.where(u > 0, u, 1.0)
    return np.where(u > 0, count * np.expm1(-safe * share) / np.expm1(-safe), count * share)


def fit_growth(costs: Sequence[float], better: Sequence[bool], chance: Any, resamples: int) -> Fit | None:
    """Both fits of the count of successes against the summed cost; None for too few successes or no cost."""
    import numpy as np

    cost, hit = np.asarray(costs, dtype=float), np.asarray(better, dtype=bool)
    events, end = int(hit.sum()), float(cost.sum())
    if events < FEWEST_TO_FIT or end <= 0:
        return None
    spent = np.cumsum(cost)
    middles = spent - cost / 2  # so that a constant rate has its mean exactly in the middle
    u = float(bend(middles[hit].mean() / end))
    counts, ends, bends = _resample(cost, hit, chance, resamples)
    usable = (ends > 0) & (counts > 0)
    counts, ends, bends = counts[usable], ends[usable], bends[usable]
    gain = _aic_gain(events, end, float(middles[hit].sum()), u)
    ceiling = scale = None
    if u > 0:
        ceilings = np.where(bends > 0, counts / -np.expm1(-np.where(bends > 0, bends, 1.0)), np.inf)
        scales = np.where(bends > 0, ends / np.where(bends > 0, bends, 1.0), np.inf)
        ceiling = _quantiles(events / -math.expm1(-u), ceilings)
        scale = _quantiles(end / u, scales)
    saturating = u > 0 and gain > DECISIVE
    xs = np.linspace(0, AHEAD * end, GRID)
    drawn = curve(xs[None, :], counts[:, None], ends[:, None], (bends if saturating else 0 * bends)[:, None])
    low, high = np.quantile(drawn, (0.025, 0.975), axis=0)
    values = curve(xs, events, end, u if saturating else 0.0)
    band = [(float(x), float(y), float(a), float(b)) for x, y, a, b in zip(xs, values, low, high, strict=True)]
    rate = interval_of(events / end, counts / ends)
    first = float(spent[hit][0]) or end
    return Fit(events, end, first, rate, ceiling, scale, gain, _hold_out(cost, hit), band)


def _resample(cost: Any, hit: Any, chance: Any, resamples: int) -> tuple[Any, Any, Any]:
    """The events, the cost and the bend of resampled experiments, which keep their order."""
    import numpy as np

    number = len(cost)
    counts, ends, means = np.zeros(resamples), np.zeros(resamples), np.full(resamples, 0.5)
    for index in range(resamples):
        times = np.bincount(chance.integers(0, number, number), minlength=number)
        spent = np.cumsum(times * cost)
        counts[index], ends[index] = (times * hit).sum(), spent[-1]
        if counts[index] and ends[index] > 0:
            middles = spent - times * cost / 2
            means[index] = (times * hit * middles).sum() / counts[index] / ends[index]
    return counts, ends, bend(means)


def _quantiles(value: float, resampled: Any) -> Interval:
    """An interval of values some of which are infinite."""
    import numpy as np

    ordered = np.sort(resampled)
    last = len(ordered) - 1
    return Interval(value, float(ordered[round(0.025 * last)]), float(ordered[round(0.975 * last)]))


def _aic_gain(events: int, end: float, places: float, u: float) -> float:
    """AIC of the line minus that of the saturating fit, from their likelihoods as Poisson processes."""
    if u <= 0:
        return -2.0
    line = events * math.log(events / end)
    ceiling, tau = events / -math.expm1(-u), end / u
    return 2 * (events * math.log(ceiling / tau) - places / tau - line) - 2


def _hold_out(cost: Any, hit: Any) -> tuple[int, float, float] | None:
    """Fit the first part, foretell the last one: what came, what the line said, what the saturating fit said."""
    import numpy as np

    spent = np.cumsum(cost)
    end = spent[-1]
    before = spent <= (1 - HELD_OUT) * end
    known_hits = hit & before
    events = int(known_hits.sum())
    if events < FEWEST_TO_FIT:
        return None
    seen = float(spent[before][-1])
    u = float(bend((spent - cost / 2)[known_hits].mean() / seen))
    line = events * end / seen - events
    saturating = float(curve(end, events, seen, u)) - events
    return int(hit.sum()) - events, float(line), saturating


def interval_of(value: float, resampled: Any) -> Interval:
    """The 95 % interval of resampled values."""
    import numpy as np

    low, high = np.quantile(resampled, (0.025, 0.975))
    return Interval(float(value), float(low), float(high))
