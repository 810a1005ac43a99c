"""What the evolver reads out of the population: genomes, observations for the regression, kin of foreign programs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from engine.agents.evolver.effects import Estimates, Observation, estimate, noise_of
from engine.agents.evolver.genome import SEEDS, Genome, decode
from engine.agents.protocol import Member

PROBE_TASKS = ("recall", "noisy_recall", "parity", "bytes")
"""Tasks that knowledge speaks of, before the population has shown which ones there are."""

# Most telling first: `gated_delta_rule` also contains `delta_rule`, and a hybrid uses attention beside its recurrence.
_TELLING = (
    ("kda", "kda"),
    ("delta_product", "delta_product"),
    ("gated_delta_rule", "gated_deltanet"),
    ("delta_rule", "deltanet"),
    ("gla", "gla"),
    ("simple_gla", "mamba2"),
    ("linear_attention", "linear_attention"),
)


def genome_of(member: Member) -> Genome | None:
    """The member's genome: its own, or the seed's where the member is one of the baselines."""
    return decode(member.genome) or SEEDS.get(member.id) or SEEDS.get(member.title)


def nearest_seed(source: str) -> str:
    """The name of the seed whose recurrence a foreign program uses; the strongest seed where none is recognised."""
    code = re.sub(r'"""(.|\n)*?"""|#.*|^\s*(from|import)\b.*', "", source, flags=re.MULTILINE)
    return next((seed for call, seed in _TELLING if re.search(rf"\b{call}\s*\(", code)), "gated_deltanet")


def unique(members: Iterable[Member]) -> list[Member]:
    """Each member once, by id."""
    return list({member.id: member for member in members}.values())


def measured(members: Iterable[Member]) -> list[tuple[Member, Genome]]:
    """Members with a score and a genome."""
    pairs = ((member, genome_of(member)) for member in unique(members) if member.seeds > 0)
    return [(member, genome) for member, genome in pairs if genome is not None]


def tasks_of(members: Iterable[Member]) -> list[str]:
    """Names of the tasks that the population was measured on, in order of appearance."""
    return list(dict.fromkeys(task for member in members for task in member.tasks)) or list(PROBE_TASKS)


def fit(task: str, pairs: Sequence[tuple[Member, Genome]]) -> Estimates:
    """Gene effects on `score` (noise floor units) or on one task (its own units)."""
    if task == "score":
        noisy = [Observation(g, m.score, noise_of(m.low, m.high, m.seeds)) for m, g in pairs]
        return estimate(task, noisy)
    return estimate(task, [Observation(g, m.tasks[task], 0.0) for m, g in pairs if task in m.tasks])


def tried(members: Iterable[Member], texts: Iterable[str]) -> set[Genome]:
    """Every genome that the run has already seen, measured or not; texts: genomes as JSON."""
    seen = {genome for member in members if (genome := genome_of(member))}
    return seen | {genome for text in texts if (genome := decode(text))}
