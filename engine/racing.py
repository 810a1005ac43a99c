"""How many seeds a program deserves: few for most, more for those that may still be among the best."""

from __future__ import annotations

from engine import scoring
from store.config import Trials
from store.state import Experiment, RunState

REPRIEVED = 10
"""One experiment in so many survives the cut at random, to measure how often the cut is wrong."""


def wanted_seeds(state: RunState, entry: Experiment, config: Trials, baseline: str) -> int:
    """Seeds that `entry` shall have been trained on before it is closed.

    The reference baseline gets the noise floor's, other baselines as many as a candidate can have, because their
    children are compared with them. A candidate gets more than its first seeds while its score is in the upper half of
    the ranking or above its parent's; so does a random tenth.
    """
    if entry.id == baseline:
        return config.noise_seeds
    if entry.origin == "baseline":
        return config.max_seeds
    scored = entry.scored
    if scored is None or scored.seeds < config.first_seeds:
        return config.first_seeds
    ranking = [e.scored.score for e in state.ranking() if e.scored and e.id != entry.id]
    cut = ranking[len(ranking) // 2] if ranking else -scoring.UNKNOWN
    better_than_parent = scored.against_parent is not None and scored.against_parent > 0
    promising = better_than_parent or scored.score >= cut or entry.seed % REPRIEVED == 0
    return config.max_seeds if promising else config.first_seeds
