"""Models and evolver in one run: who proposes next, so that each gets its share of the compute."""

from __future__ import annotations

from store.events import Origin
from store.state import Experiment, RunState

FIRST_GUESS = 1.0
"""CPU seconds of an experiment before any is known; only their equality matters."""


def next_proposer(state: RunState, share: float) -> Origin:
    """The origin that is furthest behind its share of CPU seconds, of vetting and trials, failed ones included.

    Experiments in flight count with what the finished ones of their kind have cost on average, or with what they have
    used already where that is more.
    """
    model, evolver = _used(state, "model"), _used(state, "evolver")
    total = model + evolver
    if total <= 0.0:
        return "model" if share >= 0.5 else "evolver"
    return "model" if model < share * total or share >= 1.0 else "evolver"


def _used(state: RunState, origin: Origin) -> float:
    own = [entry for entry in state.proposals if entry.origin == origin]
    guess = _mean([entry for entry in own if not entry.open]) or _mean([e for e in state.proposals if not e.open])
    return sum(max(entry.cpu_seconds, guess or FIRST_GUESS) if entry.open else entry.cpu_seconds for entry in own)


def _mean(found: list[Experiment]) -> float:
    return sum(entry.cpu_seconds for entry in found) / len(found) if found else 0.0
