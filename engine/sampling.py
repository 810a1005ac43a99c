"""Which program the next proposal descends from, and which ones it may borrow from.

Two tiers: the parent comes from the top of the pool, references from the ranks below. A fixed share of experiments has
a parent drawn at random from the whole pool: the control that measures whether selection helps at all.
"""

from __future__ import annotations

import random
from collections import Counter

import msgspec

from store.config import Sampling
from store.state import Experiment, RunState


class Sample(msgspec.Struct, frozen=True):
    """A parent, its references (ids, best first), and whether this is a random-parent control."""

    parent: str
    references: list[str]
    control: bool


def pool(state: RunState) -> list[Experiment]:
    """Every program that may have children: scored ones, best first, then baselines that passed their vetting."""
    ranked = state.ranking()
    known = {experiment.id for experiment in ranked}
    waiting = [e for e in state.baselines if e.vetted and e.id not in known]
    return ranked + waiting


def sample(state: RunState, config: Sampling, cold_start: int, control_share: float, seed: int) -> Sample | None:
    """Choose for the experiment that will be opened next; None while no program is ready to have children.

    The same state and seed give the same choice. The first `cold_start` proposals descend from the baselines in turn.
    """
    chooser = random.Random(seed)
    candidates = pool(state)
    if not candidates:
        return None
    opened = len(state.proposals)
    if opened < cold_start:
        seeds = sorted((e for e in candidates if e.origin == "baseline"), key=lambda e: e.opened) or candidates
        used = Counter(e.parent for e in state.proposals)
        parent = min(seeds, key=lambda e: (used[e.id], seeds.index(e)))
        others = [e.id for e in candidates if e.id != parent.id]
        return Sample(parent.id, others[: config.references], False)
    control = chooser.random() < control_share
    if control:
        parent = chooser.choice(candidates)
    else:
        parent = chooser.choice(candidates[: config.parents])
    below = candidates[config.references_from - 1 : config.references_to] or candidates
    others = [e.id for e in below if e.id != parent.id]
    chooser.shuffle(others)
    return Sample(parent.id, others[: config.references], control)


def branch_share(state: RunState) -> tuple[str, float]:
    """The founder from whom most of the scored proposals descend, and its share of them (0 when there are none)."""
    founders: Counter[str] = Counter()
    for experiment in state.proposals:
        if experiment.ranked:
            founders[_founder(state, experiment)] += 1
    if not founders:
        return "", 0.0
    name, count = founders.most_common(1)[0]
    return name, count / sum(founders.values())


def _founder(state: RunState, experiment: Experiment) -> str:
    """The oldest ancestor that is not a baseline."""
    current = experiment
    while (above := state.experiments.get(current.parent)) is not None and above.origin != "baseline":
        current = above
    return current.id
