"""What supervisors have refused, as weights on gene values.

A refusal adds 1, split among the gene values by which the refused child differs from its parent: among those whose gene
the reason names, and among all of them where it names none. An approval of a child that differs from its parent by a
value halves that value's weight. Weights end at 3, so that a value which is worth much comes back in time.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType

from engine.agents.evolver.genome import GENES, Genome, Value, active, decode, differences
from engine.agents.protocol import Judged

Column = tuple[str, Value]

MOST = 3.0
FORGIVEN = 0.5
LEAST = 0.05
"""A weight below this is none."""

NONE: Mapping[Column, float] = MappingProxyType({})


def weights(judged: Iterable[Judged]) -> dict[Column, float]:
    """The weight of every refused gene value, from decisions in the order in which they fell."""
    found: dict[Column, float] = {}
    for one in judged:
        child, parent = decode(one.genome), decode(one.parent)
        if child is None or parent is None:
            continue
        new = changed(parent, child)
        if one.approved:
            found |= {column: FORGIVEN * found[column] for column in new if column in found}
            continue
        genes = named(one.reason)
        meant = [column for column in new if column[0] in genes] or new
        found |= {column: min(MOST, found.get(column, 0.0) + 1 / len(meant)) for column in meant}
    return {column: weight for column, weight in found.items() if weight >= LEAST}


def named(text: str) -> list[str]:
    """The genes that a person's text names."""
    plain = text.casefold().replace("_", " ")
    return [gene for gene in GENES if re.search(rf"\b{re.escape(gene.replace('_', ' '))}\b", plain)]


def changed(parent: Genome, child: Genome) -> list[Column]:
    """The gene values that the child has and its parent has not, as far as they mean something in the child."""
    meant = active(child)
    return [(gene, new) for gene, (_, new) in differences(parent, child).items() if gene in meant]


def against(parent: Genome, child: Genome, disliked: Mapping[Column, float]) -> float:
    """The weight of all that speaks against going from `parent` to `child`."""
    return sum(disliked.get(column, 0.0) for column in changed(parent, child)) if disliked else 0.0
