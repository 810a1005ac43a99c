"""How much each gene value is worth, with an interval: Bayesian linear regression over the measured population.

One column per gene value that occurs in the space, an intercept, and for each observation its own noise from the
number of seeds. The prior says that most effects are small and some are known from the literature; its width is chosen
by the marginal likelihood (MacKay 1992, "Bayesian Interpolation"). Columns of one gene compete, so that effects are
against the average of the gene's values.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy import stats

from engine.agents.evolver.genome import GENES, Genome, Value, active
from engine.agents.evolver.knowledge import known

Array = NDArray[np.float64]

_COLUMNS: list[tuple[str, Value]] = [(gene, value) for gene, values in GENES.items() for value in values]
_INDEX = {column: index for index, column in enumerate(_COLUMNS)}
# Grids for the marginal likelihood: the typical effect, and what the linear model misses, as shares of the spread.
_EFFECT_SHARES = (0.1, 0.2, 0.35, 0.6, 1.0)
_MISFIT_SHARES = (0.05, 0.15, 0.3, 0.6, 1.0)
_SHORTEST_SPREAD = 1e-3


class Observation(msgspec.Struct, frozen=True):
    """A measured genome: `value` in any unit, `noise` its standard error in the same unit."""

    genome: Genome
    value: float
    noise: float


class Effect(msgspec.Struct, frozen=True):
    """A gene value, its effect with a 95 % interval, and in how many programs it was measured."""

    gene: str
    value: Value
    effect: float
    low: float
    high: float
    n: int

    @property
    def name(self) -> str:
        """`gene=value`."""
        return f"{self.gene}={self.value}"

    @property
    def decided(self) -> bool:
        """Whether the interval excludes zero."""
        return self.low > 0 or self.high < 0


def row(genome: Genome) -> Array:
    """The genome as a vector of ones and zeros over all gene values; genes without meaning in it stay zero."""
    vector = np.zeros(len(_COLUMNS))
    for gene, value in active(genome).items():
        vector[_INDEX[gene, value]] = 1.0
    return vector


def prior(task: str) -> Array:
    """What the literature expects of each gene value: relative to a typical effect for `score`, else in task units."""
    told = (known(gene, value) for gene, value in _COLUMNS)
    return np.array([fact.score if task == "score" else fact.tasks.get(task, 0.0) for fact in told])


class Estimates:
    """The posterior over gene effects on one quantity."""

    def __init__(
        self, task: str, mean: Array, covariance: Array, counts: Array, freedom: float, typical: float
    ) -> None:
        """`typical`: the size of a typical gene's effect, in the quantity's unit."""
        self.task, self.typical = task, typical
        self._mean = mean
        self._covariance = covariance
        self._counts = counts
        # The noise is estimated too, from few programs at first: intervals need Student's t.
        self._width = float(stats.t.ppf(0.975, max(3.0, freedom)))

    def sample(self, random: np.random.Generator) -> Array:
        """One draw of all effects, for Thompson sampling; multiply with `row(genome)` for a drawn value."""
        return random.multivariate_normal(self._mean, self._covariance, method="eigh")

    def difference(self, old: Genome, new: Genome) -> tuple[float, float, float]:
        """Expected change from `old` to `new`, with its 95 % interval."""
        return self._interval(row(new) - row(old))

    def tried(self, gene: str, value: Value) -> int:
        """In how many measured programs the gene had this value."""
        return int(self._counts[_INDEX[gene, value]])

    def report(self) -> list[Effect]:
        """Every gene value that was measured, against the average of its gene's measured values, largest first."""
        effects = []
        for gene, values in GENES.items():
            seen = [value for value in values if self.tried(gene, value)]
            if len(seen) < 2:
                continue
            total = sum(self.tried(gene, value) for value in seen)
            average = np.zeros(len(_COLUMNS))
            for value in seen:
                average[_INDEX[gene, value]] = self.tried(gene, value) / total
            for value in seen:
                contrast = -average
                contrast[_INDEX[gene, value]] += 1.0
                effects.append(Effect(gene, value, *self._interval(contrast), self.tried(gene, value)))
        return sorted(effects, key=lambda effect: -abs(effect.effect))

    def _interval(self, contrast: Array) -> tuple[float, float, float]:
        middle = float(contrast @ self._mean)
        half = self._width * math.sqrt(max(0.0, float(contrast @ self._covariance @ contrast)))
        return middle, middle - half, middle + half


def estimate(task: str, observations: Sequence[Observation]) -> Estimates:
    """Fit the effects on `task` (or on `score`) to what was measured; without observations this is the prior."""
    expected = prior(task)
    count = len(observations)
    design = np.array([row(item.genome) for item in observations]).reshape(count, len(_COLUMNS))
    values = np.array([item.value for item in observations], dtype=np.float64)
    values = values - (values.mean() if count else 0.0)
    noise = np.array([max(item.noise, 0.0) for item in observations])
    spread = max(_SHORTEST_SPREAD, float(np.std(values))) if count > 2 else (1.0 if task == "score" else 0.1)
    best, chosen = -math.inf, (_EFFECT_SHARES[2] * spread, _MISFIT_SHARES[2] * spread)
    for effect in _EFFECT_SHARES if count > 3 else ():
        for misfit in _MISFIT_SHARES:
            size, missed = effect * spread, misfit * spread
            scale = size if task == "score" else 1.0
            evidence = _log_evidence(design, values - design @ (expected * scale), noise, size, missed, spread)
            if evidence > best:
                best, chosen = evidence, (size, missed)
    size, missed = chosen
    centre = expected * (size if task == "score" else 1.0)
    mean, covariance = _posterior(design, values - design @ centre, noise, size, missed, spread)
    return Estimates(task, centre + mean, covariance, design.sum(0), count - 1.0, size)


def _covariance(design: Array, noise: Array, size: float, missed: float, spread: float) -> Array:
    """Of the observations under the prior: effects of `size`, a free intercept, noise, and what the model misses."""
    shared = size**2 * (design @ design.T) + (10 * spread) ** 2
    return shared + np.diag(noise**2 + missed**2)


def _log_evidence(design: Array, values: Array, noise: Array, size: float, missed: float, spread: float) -> float:
    covariance = _covariance(design, noise, size, missed, spread)
    _, logarithm = np.linalg.slogdet(covariance)
    return float(-0.5 * (logarithm + values @ np.linalg.solve(covariance, values)))


def _posterior(
    design: Array, values: Array, noise: Array, size: float, missed: float, spread: float
) -> tuple[Array, Array]:
    columns = design.shape[1]
    if not len(values):
        return np.zeros(columns), size**2 * np.eye(columns)
    gain = size**2 * np.linalg.solve(_covariance(design, noise, size, missed, spread), design).T
    return gain @ values, size**2 * np.eye(columns) - size**2 * gain @ design


def noise_of(low: float, high: float, seeds: int) -> float:
    """Standard error of a score from its 95 % interval; where that says nothing, one seed's noise over its seeds."""
    if 0 < high - low < 1e6 and seeds > 1:
        return (high - low) / (2 * float(stats.t.ppf(0.975, seeds - 1)))
    return math.sqrt(2.0 / max(1, seeds))


def with_interval(middle: float, low: float, high: float) -> str:
    """`+1.20 [+0.40, +2.00]`, or without the interval where it says nothing."""
    if high - low > 1e6:
        return f"{middle:+.2f} (interval unknown)"
    return f"{middle:+.2f} [{low:+.2f}, {high:+.2f}]"
