"""Predictions made before a run, checked against what it measured."""

from __future__ import annotations

import math
from typing import Literal

from engine import scoring
from store.events import Prediction, PredictionOutcome
from store.state import Experiment, RunState

Verdict = Literal["held", "not held", "undecided"]


def check_predictions(state: RunState, entry: Experiment) -> list[PredictionOutcome]:
    """Check each prediction on the seeds shared with the parent.

    A difference smaller than its own noise (twice the standard error of a paired difference) leaves "up" and "down"
    undecided and lets "same" hold.
    """
    if entry.scored is None:
        return []
    noise = {item.task: item.noise for item in entry.scored.tasks}
    config, _ = scoring.score_config()
    own = scoring.scores_by_seed(state.finished_trials(entry.id, entry.program))
    above = state.experiments.get(entry.parent)
    parents = scoring.scores_by_seed(state.finished_trials(above.id, above.program)) if above else {}
    shared = sorted(set(own) & set(parents))
    outcomes = []
    for prediction in entry.predictions:
        if prediction.task == "score":
            measured, error = entry.scored.against_parent, _score_error(entry)
        else:
            values = [
                own[seed][prediction.task] - parents[seed][prediction.task]
                for seed in shared
                if prediction.task in own[seed] and prediction.task in parents[seed]
            ]
            measured = math.fsum(values) / len(values) if values else None
            sigma = noise.get(prediction.task, config.floor(prediction.task))
            error = 2 * sigma * math.sqrt(2 / len(values)) if values else math.inf
        if measured is None:
            outcomes.append(PredictionOutcome(prediction.task, "undecided", 0.0, "no seed shared with the parent"))
            continue
        verdict, note = _verdict(prediction, measured, error), f"noise of about {error:.3g}"
        outcomes.append(PredictionOutcome(prediction.task, verdict, round(measured, 5), note))
    return outcomes


def _score_error(entry: Experiment) -> float:
    scored = entry.scored
    if scored is None or scored.against_parent is None or scored.against_parent_high is None:
        return math.inf
    return scored.against_parent_high - scored.against_parent


def _verdict(prediction: Prediction, measured: float, error: float) -> Verdict:
    if prediction.direction == "same":
        return "held" if abs(measured) <= error else "not held"
    if abs(measured) <= error:
        return "undecided"
    return "held" if (measured > 0) == (prediction.direction == "up") else "not held"
