"""The ladder's number: paired differences to the baseline, in units of the noise floor.

For task τ and seed s let d(τ,s) = candidate - baseline on the same seed and data order, and σ(τ) the standard
deviation of the baseline against itself over seeds. u(s) is the mean over tasks of d(τ,s)/σ(τ), each clipped; the
score is the mean of u over the shared seeds. The interval is Student's t on the pooled variance of the baseline's own
u (a paired difference of two independent runs has twice the variance of one) and, from two seeds on, the candidate's.
"""

from __future__ import annotations

import hashlib
import math
from functools import cache
from pathlib import Path

import msgspec
from scipy import stats

from store.events import ExperimentScored, TaskDifference
from store.state import RunState, Trial

UNKNOWN = 1e9
"""An interval bound of which nothing is known."""


class ScoreConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """score.toml."""

    version: int
    noise_seeds: int
    clip: float
    noise_floor: dict[str, float]

    def floor(self, task: str) -> float:
        """The smallest noise believed for `task`, in its units."""
        return self.noise_floor.get(task, self.noise_floor["skill"])


@cache
def score_config() -> tuple[ScoreConfig, str]:
    """The configuration and its sha256."""
    raw = Path(__file__).with_name("score.toml").read_bytes()
    return msgspec.toml.decode(raw, type=ScoreConfig), hashlib.sha256(raw).hexdigest()


Scores = dict[int, dict[str, float]]
"""seed → task → score."""


class NoiseFloor(msgspec.Struct, frozen=True):
    """The baseline against itself. `variance` is that of one run's u; it is None below two seeds."""

    seeds: int
    sigma: dict[str, float]
    variance: float | None


class Comparison(msgspec.Struct, frozen=True):
    """A paired comparison on shared seeds, in units of the noise floor, with its 95 % interval."""

    mean: float
    low: float
    high: float
    seeds: int
    tasks: dict[str, float]


def scores_by_seed(trials: list[Trial]) -> Scores:
    """What finished trials measured; of several with the same seed, the last one counts."""
    return {trial.seed: {task.task: task.score for task in trial.tasks} for trial in trials}


def noise_floor(baseline: Scores, config: ScoreConfig) -> NoiseFloor:
    """Estimate the noise floor from the baseline's seeds."""
    tasks = sorted({task for scores in baseline.values() for task in scores})
    sigma: dict[str, float] = {}
    means: dict[str, float] = {}
    for task in tasks:
        values = [scores[task] for scores in baseline.values() if task in scores]
        means[task] = math.fsum(values) / len(values)
        spread = math.fsum((value - means[task]) ** 2 for value in values) / max(1, len(values) - 1)
        sigma[task] = math.hypot(math.sqrt(spread), config.floor(task))
    if len(baseline) < 2:
        return NoiseFloor(len(baseline), sigma, None)
    deviations = [
        math.fsum((scores[task] - means[task]) / sigma[task] for task in scores) / len(scores)
        for scores in baseline.values()
    ]
    variance = math.fsum(value**2 for value in deviations) / (len(deviations) - 1)
    # σ carries a floor, so u can look quieter than it is when few seeds happen to agree: never below a tenth of it.
    return NoiseFloor(len(baseline), sigma, max(variance, 0.01))


def compare(candidate: Scores, other: Scores, noise: NoiseFloor, config: ScoreConfig) -> Comparison | None:
    """Compare two programs on the seeds they share; None when they share none."""
    shared = sorted(set(candidate) & set(other))
    tasks = sorted(noise.sigma)
    units: list[float] = []
    differences: dict[str, list[float]] = {task: [] for task in tasks}
    for seed in shared:
        clipped = []
        for task in tasks:
            if task not in candidate[seed] or task not in other[seed]:
                continue
            difference = candidate[seed][task] - other[seed][task]
            differences[task].append(difference)
            clipped.append(max(-config.clip, min(config.clip, difference / noise.sigma[task])))
        if clipped:
            units.append(math.fsum(clipped) / len(clipped))
    if not units:
        return None
    mean = math.fsum(units) / len(units)
    half = _half_width(units, mean, noise)
    return Comparison(
        mean,
        mean - half if half < UNKNOWN else -UNKNOWN,
        mean + half if half < UNKNOWN else UNKNOWN,
        len(units),
        {task: math.fsum(values) / len(values) for task, values in differences.items() if values},
    )


def _half_width(units: list[float], mean: float, noise: NoiseFloor) -> float:
    """Half of the 95 % interval, from the pooled variance of a paired difference."""
    if noise.variance is None:
        return UNKNOWN
    freedom = noise.seeds - 1
    squares = 2.0 * noise.variance * freedom
    if len(units) > 1:
        squares += math.fsum((unit - mean) ** 2 for unit in units)
        freedom += len(units) - 1
    return float(stats.t.ppf(0.975, freedom)) * math.sqrt(squares / freedom / len(units))


def score_experiment(state: RunState, experiment: str, baseline: str, tier: str) -> ExperimentScored | None:
    """Score an experiment against the baseline experiment; None while they share no seed."""
    config, digest = score_config()
    entry = state.experiments[experiment]
    reference = scores_by_seed(_at(state.finished_trials(baseline), tier))
    noise = noise_floor(reference, config)
    own = scores_by_seed(_at(state.finished_trials(experiment, entry.program), tier))
    result = compare(own, reference, noise, config)
    if result is None:
        return None
    parent: Comparison | None = None
    if entry.parent and entry.parent in state.experiments:
        above = state.experiments[entry.parent]
        parent = compare(own, scores_by_seed(_at(state.finished_trials(above.id, above.program), tier)), noise, config)
    return ExperimentScored(
        experiment=experiment,
        tier=tier,
        score=result.mean,
        low=result.low,
        high=result.high,
        seeds=result.seeds,
        tasks=[TaskDifference(task, value, noise.sigma[task]) for task, value in result.tasks.items()],
        against_parent=parent.mean if parent else None,
        against_parent_low=parent.low if parent else None,
        against_parent_high=parent.high if parent else None,
        noise_seeds=noise.seeds,
        score_config=digest,
    )


def _at(trials: list[Trial], tier: str) -> list[Trial]:
    return [trial for trial in trials if trial.tier == tier]
