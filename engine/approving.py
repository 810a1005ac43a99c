"""What an approval is good for: these bytes, at this tier, for a while, within a budget; and what goes without one."""

from __future__ import annotations

import time

from engine.runtime import Runtime
from store import events as ev
from store.policy import Case
from store.state import Experiment, RunState

LEAST_CPU_SECONDS = 600.0
"""An approval covers at least so much, however cheap the trial is said to be."""


def next_request(state: RunState) -> str:
    """The id of the next request."""
    return f"R{len(state.requests) + 1:04d}"


def case_of(entry: Experiment, tier: str) -> Case:
    """What the policy may look at, at this moment."""
    return Case(entry.origin, tier, entry.findings, entry.predicted_cpu_seconds, entry.novelty, time.time())


def allowance(experiment: Experiment, seeds: int, factor: float) -> float:
    """What an experiment may use in all under one approval, in CPU seconds; 0 where its cost is not known."""
    predicted = experiment.predicted_cpu_seconds
    return round(experiment.cpu_seconds + max(LEAST_CPU_SECONDS, factor * seeds * predicted), 1) if predicted else 0.0


def still_holds(experiment: Experiment, tier: str, now: float) -> bool:
    """Whether what was approved is the program that the experiment has now, at this tier, in time and in budget."""
    bound = experiment.approved_program == experiment.program and experiment.approved_tier == tier
    in_time = not experiment.approved_until or now < experiment.approved_until
    within = not experiment.approved_cpu_seconds or experiment.cpu_seconds < experiment.approved_cpu_seconds
    return bound and in_time and within


def demote(runtime: Runtime, reason: str) -> None:
    """Take back what goes beyond the policy, after something that nobody expected; only a person gives it again."""
    if runtime.state.autonomy in ("A3", "A4"):
        runtime.emit(ev.AutonomyChanged("A2", reason[:300]))
