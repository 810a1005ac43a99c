"""The evolver's Engineer: known remedies for known failures, as changes of genes."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from engine.agents.evolver.genome import Genome, differences, replace


class Remedy(NamedTuple):
    """`failure`: pattern on the name of the gate or anomaly. Each change is tried in turn, one per attempt."""

    failure: str
    diagnosis: str
    changes: tuple[dict[str, Any], ...]


_REMEDIES = (
    Remedy(
        r"stabil|nan|inf\b|finite|diverg|overflow|explod",
        "numbers grow without bound",
        (
            {"key_norm": "l2"},
            {"output_norm": "rms"},
            {"strength": "gate"},
            {"feature": "silu"},
            {"skip": "none", "timescales": 1},
            {"decay": "head", "memory": "short"},
        ),
    ),
    Remedy(
        r"stall",
        "the mixer does not begin to learn",
        ({"memory": "spread"}, {"output_norm": "rms"}, {"key_norm": "l2"}, {"feature": "silu"}),
    ),
    Remedy(
        r"causal|prefix|leak|low.loss|suspicious",
        "something near the present token looks ahead",
        ({"window": 0}, {"convolution": "none", "shift": "none"}, {"position": "none"}),
    ),
    Remedy(
        r"complex|quadratic", "the cost grows faster than the length", ({"window": 0}, {"steps": 1, "timescales": 1})
    ),
    Remedy(
        r"budget|parameter|memory|out.of|oom",
        "the mixer is too large",
        ({"timescales": 1, "window": 0}, {"steps": 1}, {"widths": "narrow_keys"}, {"gate": "none"}),
    ),
    Remedy(
        r"slow|overrun|time|cpu|silen",
        "a step takes too long",
        ({"timescales": 1}, {"steps": 1}, {"window": 0}, {"decay": "head"}),
    ),
    Remedy(
        r"decode|step",
        "decoding token by token drifts from the whole sequence",
        ({"window": 0}, {"position": "none"}, {"convolution": "none", "shift": "none"}, {"steps": 1}),
    ),
    Remedy(r"shape|static|dtype", "a width does not fit", ({"widths": "square"}, {"steps": 1}, {"window": 0})),
)

_GRADIENT = re.compile(r"gradient|dead")
# A dead parameter's name begins with the attribute that holds it; without the gene the parameter is gone.
_HOLDERS: dict[str, dict[str, Any]] = {
    "shift": {"shift": "none"},
    "feedback": {"feedback": "none"},
    "skip": {"skip": "none"},
    "bonus": {"skip": "none"},
    "slow": {"timescales": 1},
    "nearness": {"window": 0},
    "convolution": {"convolution": "none"},
    "strength": {"strength": "fixed"},
    "forget": {"decay": "constant"},
    "log_rate": {"decay": "constant"},
}


def remedy(genome: Genome, failed: str, evidence: str, attempt: int) -> tuple[str, Genome | None]:
    """What was wrong and the genome to try instead, None when nothing is known; `attempt` counts from 1.

    The name of the gate or anomaly decides; the evidence only where the name says nothing.
    """
    for text in (failed.lower(), evidence[:2000].lower()):
        if _GRADIENT.search(text):
            return _bury(genome, evidence)
        for known in _REMEDIES:
            if re.search(known.failure, text):
                return _apply(genome, known, failed, attempt)
    return f"no remedy is known for {failed or 'this failure'}", None


def _apply(genome: Genome, known: Remedy, failed: str, attempt: int) -> tuple[str, Genome | None]:
    useful = [changed for genes in known.changes if (changed := replace(genome, **genes)) != genome]
    if not useful:
        return f"{failed}: {known.diagnosis}, and every known remedy is already in the program", None
    # Repairs descend from each other, so that an earlier remedy is no longer among the useful ones.
    changed = useful[0]
    return f"{failed}: {known.diagnosis}; {describe(genome, changed)} (attempt {attempt})", changed


def _bury(genome: Genome, evidence: str) -> tuple[str, Genome | None]:
    for holder, genes in _HOLDERS.items():
        if re.search(rf"\b{holder}\b", evidence) and (changed := replace(genome, **genes)) != genome:
            return f"`{holder}` receives no gradient, so it is removed: {describe(genome, changed)}", changed
    return "a parameter receives no gradient, and no gene is known to hold it", None


def describe(old: Genome, new: Genome) -> str:
    """The change in one line: `strength: gate → reflect; window: 0 → 16`."""
    changes = differences(old, new).items()
    return "; ".join(f"{gene}: {before} → {after}" for gene, (before, after) in changes)
