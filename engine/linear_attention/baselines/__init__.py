"""The published mixers, as ordinary programs: vetted, trained and scored like any candidate."""

from __future__ import annotations

from importlib import resources

DESCRIPTIONS = {
    "softmax_attention": "Softmax attention with rotary positions: the quadratic reference.",
    "linear_attention": "Linear attention with positive features and a normaliser: the oldest of the family.",
    "retnet": "RetNet: linear attention with a constant decay per head.",
    "mamba2": "Mamba-2: one decay and one input strength per head, computed from the token.",
    "gla": "Gated linear attention: a decay per key channel, computed from the token.",
    "deltanet": "DeltaNet: erases what a key already holds before it writes.",
    "deltanet_negative": "DeltaNet with writing strengths up to 2, whose eigenvalues reach -1.",
    "gated_deltanet": "Gated DeltaNet: the delta rule with a decay per head.",
    "kda": "Kimi Delta Attention: the delta rule with a decay per key channel.",
    "delta_product": "DeltaProduct: two delta-rule steps per token.",
}


def names() -> list[str]:
    """The baselines' names, simplest first."""
    return list(DESCRIPTIONS)


def source(name: str) -> str:
    """The program of one baseline. Raises KeyError when there is none of that name."""
    if name not in DESCRIPTIONS:
        raise KeyError(f"no baseline {name!r}; there are {', '.join(DESCRIPTIONS)}")
    return resources.files(__name__).joinpath(f"{name}.py").read_text(encoding="utf-8")
