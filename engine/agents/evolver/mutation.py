"""How the evolver moves: one or two genes, or a cross with a reference, towards what is worth most or known least.

The move is chosen by Thompson sampling (Thompson 1933): one draw of all gene effects from their posterior decides, so
that a value is tried about as often as it may be the best. A small share of moves is uniform, because the linear model
cannot see how genes work together. What supervisors have refused makes a move less likely in both cases, and changes
nothing about what it is estimated to be worth.
"""

from __future__ import annotations

import random
from collections.abc import Container, Mapping, Sequence
from typing import Literal, NamedTuple, get_args

import numpy as np

from engine.agents.evolver.dislikes import NONE, Column, against
from engine.agents.evolver.effects import Estimates, row
from engine.agents.evolver.genome import GENES, Genome, differences, replace

Kind = Literal["one gene", "two genes", "crossover", "leap"]

UNIFORM_SHARE = 0.1
PAIRS = 60
CROSSES = 12
LEAPS = 40
LONGEST_LEAP = 6
REFUSED_COST = 2.0
"""What one refusal of a gene value takes from a draw, in typical effects of a gene."""


class Move(NamedTuple):
    """A child: how it was made, whether its choice was `steered` by effects, and the index of the reference crossed."""

    genome: Genome
    kind: Kind
    steered: bool
    reference: int = -1


def neighbours(parent: Genome) -> list[Genome]:
    """Every genome that is reached by setting one gene, without the parent itself."""
    children = (replace(parent, **{gene: value}) for gene, values in GENES.items() for value in values)
    return [child for child in dict.fromkeys(children) if child != parent]


def leap(parent: Genome, genes: int, rng: random.Random) -> Genome:
    """Set `genes` random genes to random values."""
    chosen = rng.sample(list(GENES), genes)
    return replace(parent, **{gene: rng.choice(GENES[gene]) for gene in chosen})


def cross(parent: Genome, reference: Genome, rng: random.Random) -> Genome:
    """Take each gene in which the two differ from the reference with probability one half."""
    taken = {gene: new for gene, (_, new) in differences(parent, reference).items() if rng.random() < 0.5}
    return replace(parent, **taken)


def choose(
    parent: Genome, references: Sequence[Genome], tried: Container[Genome], estimates: Estimates, rng: random.Random,
    disliked: Mapping[Column, float] = NONE,
) -> Move | None:  # fmt: skip
    """The next child of `parent` that was not tried, the same for the same `rng`; None when all that it met was tried.

    Prefers small moves, because only those tell which gene made the difference. disliked: gene values that supervisors
    refused, with weights (see `dislikes`).
    """
    cost = REFUSED_COST * estimates.typical

    def worth(move: Move) -> float:
        return float(drawn @ row(move.genome)) - cost * against(parent, move.genome, disliked)

    drawn = estimates.sample(np.random.default_rng(rng.getrandbits(63)))
    firsts: list[Kind] = ["one gene", "two genes", "crossover"]
    first = rng.choices(firsts, [0.6, 0.2, 0.2])[0]
    steered = rng.random() >= UNIFORM_SHARE
    for kind in sorted(get_args(Kind), key=lambda kind: bool(kind != first)):
        moves = [
            move for move in _moves(kind, parent, references, rng) if move.genome not in tried and move.genome != parent
        ]
        if moves and steered:
            return max(moves, key=worth)
        if moves and disliked:
            odds = [0.5 ** (2 * against(parent, move.genome, disliked)) for move in moves]
            return rng.choices(moves, odds)[0]._replace(steered=False)
        if moves:
            return rng.choice(moves)._replace(steered=False)
    return None


def _moves(kind: Kind, parent: Genome, references: Sequence[Genome], rng: random.Random) -> list[Move]:
    if kind == "one gene":
        return [Move(child, kind, True) for child in neighbours(parent)]
    if kind == "two genes":
        return [Move(leap(parent, 2, rng), kind, True) for _ in range(PAIRS)]
    if kind == "crossover":
        pairs = [(index, reference) for index, reference in enumerate(references) for _ in range(CROSSES)]
        return [Move(cross(parent, reference, rng), kind, True, index) for index, reference in pairs]
    return [Move(leap(parent, rng.randint(3, LONGEST_LEAP), rng), kind, True) for _ in range(LEAPS)]
