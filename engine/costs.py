"""What a trial will cost, learned from what the run's earlier trials did cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import msgspec

from store.state import RunState

LEAST_PROGRAMS = 3
NEWEST_PROGRAMS = 200
COVERAGE = 0.95


class CostPrediction(msgspec.Struct, frozen=True):
    """CPU seconds of one trial; `low` and `high` hold the next one in 95 of 100 cases.

    programs: of so many it was learned. Below `LEAST_PROGRAMS` nothing is learned yet: then `cpu_seconds` is the step
    measured in vetting times the number of steps, and both ends are 0.
    """

    cpu_seconds: float
    low: float = 0.0
    high: float = 0.0
    programs: int = 0

    @property
    def learned(self) -> bool:
        """Whether there is an interval."""
        return self.high > 0


def predict(measured: float, ratios: Iterable[float]) -> CostPrediction:
    """The cost of a trial whose steps, as measured in vetting, add up to `measured` CPU seconds.

    ratios: real cost to measured steps of earlier trials, each above 0. They are taken as log-normal: costs are off by
    factors. The interval is Student's prediction interval for one more of them, so it is wide while there are few.
    """
    logs = [math.log(ratio) for ratio in ratios]
    count = len(logs)
    if count < LEAST_PROGRAMS or measured <= 0:
        return CostPrediction(measured, programs=count)
    from scipy import stats

    middle = math.fsum(logs) / count
    deviation = math.sqrt(math.fsum((value - middle) ** 2 for value in logs) / (count - 1))
    reach = float(stats.t.ppf((1 + COVERAGE) / 2, count - 1)) * deviation * math.sqrt(1 + 1 / count)
    likeliest = measured * math.exp(middle)
    return CostPrediction(likeliest, likeliest * math.exp(-reach), likeliest * math.exp(reach), count)


def ratios(state: RunState, tier: str, measure: Callable[[float], float]) -> list[float]:
    """Real cost to measured steps, one a program: trials of the same program are too alike to count apart.

    measure: from the seconds of one step to those of a trial. Only trials that were trained here and finished at
    `tier` count; what was stopped for taking too long is not among them.
    """
    found: list[tuple[float, float]] = []
    for entry in state.experiments.values():
        steps = measure(entry.step_seconds) if entry.step_seconds > 0 else 0.0
        trials = state.finished_trials(entry.id, entry.program)
        first = next((t for t in trials if t.tier == tier and not t.cached and t.cpu_seconds > 0), None)
        if first is not None and steps > 0:
            found.append((first.ended, first.cpu_seconds / steps))
    return [ratio for _, ratio in sorted(found)[-NEWEST_PROGRAMS:]]
