"""What the literature says about genes, in plain words: where estimates from the run's own population begin.

Effects are rough expectations against the gene's first value, in the tasks' own units (accuracy area for skills, bits
per byte saved for `bytes`). They are weak priors: a few measured programs outweigh them.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from engine.agents.evolver.genome import Value


class Knowledge(NamedTuple):
    """What one gene value does.

    reason: in plain words, to follow "it". score: expected effect on the whole score, between -1 and 1 in units of a
    typical gene's effect. tasks: task → expected effect in the task's own units.
    """

    reason: str
    score: float = 0.0
    tasks: Mapping[str, float] = MappingProxyType({})


KNOWN: dict[tuple[str, Value], Knowledge] = {
    ("write", "add"): Knowledge("adds every write, so keys that look alike blur into each other", -0.5),
    ("write", "delta"): Knowledge(
        "erases what a key already holds before it writes, so that a value can be replaced and recalled cleanly",
        0.8,
        {"recall": 0.2, "noisy_recall": 0.15, "bytes": 0.1},
    ),
    ("steps", 1): Knowledge("writes once per token"),
    ("steps", 2): Knowledge(
        "writes twice per token; two reflections make a rotation, which tracks richer states",
        0.1,
        {"parity": 0.02, "recall": 0.02},
    ),
    ("strength", "fixed"): Knowledge("writes every token at full strength", -0.2),
    ("strength", "gate"): Knowledge(
        "lets a token decide how strongly it writes, so that noise can stay out", 0.2, {"noisy_recall": 0.03}
    ),
    ("strength", "reflect"): Knowledge(
        "lets the write overshoot and flip the sign of what is stored, without which parity cannot be tracked",
        0.8,
        {"parity": 0.4},
    ),
    ("strength", "coupled"): Knowledge("ties writing to forgetting by one step size", 0.0, {"bytes": 0.02}),
    ("decay", "none"): Knowledge("never forgets", -0.2, {"bytes": -0.1}),
    ("decay", "constant"): Knowledge("forgets at a fixed pace per head", 0.1, {"bytes": 0.1}),
    ("decay", "head"): Knowledge(
        "lets every token decide how much each head forgets, which clears stale text at once",
        0.4,
        {"bytes": 0.2, "recall": -0.05},
    ),
    ("decay", "channel"): Knowledge(
        "forgets channel by channel, so that slow and fast features can share a head",
        0.3,
        {"bytes": 0.18, "recall": -0.05},
    ),
    ("memory", "short"): Knowledge(
        "starts with a memory of about 16 tokens, which suits text and starves recall",
        -0.3,
        {"bytes": 0.03, "recall": -0.08, "noisy_recall": -0.08},
    ),
    ("memory", "long"): Knowledge(
        "starts with a memory of about 256 tokens, so that early pairs are still there when they are asked for",
        0.2,
        {"recall": 0.05, "noisy_recall": 0.05},
    ),
    ("memory", "spread"): Knowledge("starts every head with a memory of its own, from 16 tokens to 1024"),
    ("timescales", 1): Knowledge("keeps one memory per head"),
    ("timescales", 2): Knowledge("keeps a slow memory beside the fast one", 0.1, {"bytes": 0.02, "recall": 0.03}),
    ("feature", "identity"): Knowledge("uses queries and keys as they are projected"),
    ("feature", "silu"): Knowledge("bends queries, keys and values by SiLU, as the delta-rule line does", 0.1),
    ("feature", "elu"): Knowledge("makes features positive but flat, which blurs what is attended", -0.3),
    ("feature", "relu"): Knowledge("makes features sparse, so that fewer keys collide", 0.1, {"recall": 0.02}),
    ("feature", "squared_relu"): Knowledge("makes features sparse and sharp", 0.1, {"recall": 0.02}),
    ("feature", "softmax"): Knowledge("makes the channels of a key compete, so that keys become nearly one-hot", 0.0),
    ("key_norm", "none"): Knowledge("leaves the length of keys free", -0.1),
    ("key_norm", "l2"): Knowledge("gives every key the same weight in the memory", 0.2, {"recall": 0.03}),
    ("position", "none"): Knowledge("leaves positions to decay and convolution"),
    ("position", "rotary"): Knowledge(
        "turns queries and keys by their position, so that distance can be read", 0.0, {"bytes": 0.05, "recall": 0.01}
    ),
    ("widths", "square"): Knowledge("gives keys and values the same width"),
    ("widths", "narrow_keys"): Knowledge("halves the keys and hands their parameters to the MLP", -0.1),
    ("widths", "wide_values"): Knowledge("trades key width for value width: fewer slots with more in each", 0.0),
    ("widths", "shared_keys"): Knowledge("shares one query and key among the heads and feeds the MLP instead", -0.1),
    ("convolution", "none"): Knowledge("sees the present token only", -0.2),
    ("convolution", "keys"): Knowledge(
        "lets a key carry the tokens before it, which is what binding a value to the key before it needs",
        0.5,
        {"bytes": 0.08, "recall": 0.02},
    ),
    ("convolution", "all"): Knowledge(
        "gives queries, keys and values a view of the last four tokens, the n-grams of text",
        0.6,
        {"bytes": 0.15, "recall": 0.03},
    ),
    ("shift", "none"): Knowledge("does not look back by itself"),
    ("shift", "input"): Knowledge("mixes each input with the previous one, the cheapest bigram", 0.4, {"bytes": 0.1}),
    ("shift", "keys"): Knowledge(
        "mixes each key with the previous one, as an induction head does", 0.3, {"bytes": 0.05}
    ),
    ("window", 0): Knowledge("has no attention of its own"),
    ("window", 16): Knowledge(
        "adds exact attention over the last 16 tokens beside the compressed memory", 0.3, {"bytes": 0.1}
    ),
    ("window", 32): Knowledge(
        "adds exact attention over the last 32 tokens beside the compressed memory", 0.3, {"bytes": 0.1, "recall": 0.05}
    ),
    ("feedback", "none"): Knowledge("reads with the plain query"),
    ("feedback", "subtract"): Knowledge("takes a share of the present key out of the query, a closed-loop correction"),
    ("skip", "none"): Knowledge("gives the present value only through the memory"),
    ("skip", "value"): Knowledge("lets the present value pass the memory by", 0.1, {"bytes": 0.02}),
    ("skip", "bonus"): Knowledge("weighs the present token apart from the memory", 0.1, {"bytes": 0.01}),
    ("gate", "none"): Knowledge("reads without an output gate and leaves its parameters to the MLP"),
    ("gate", "swish"): Knowledge("lets each token scale what it reads", 0.1, {"bytes": 0.03}),
    ("gate", "sigmoid"): Knowledge("lets each token close channels of what it reads", 0.1, {"bytes": 0.03}),
    ("output_norm", "none"): Knowledge("passes the read on as it is", -0.2),
    ("output_norm", "rms"): Knowledge("rescales every head's read, which keeps gradients bounded", 0.2),
    ("output_norm", "denominator"): Knowledge("divides by the sum of weights, so that reads are averages", -0.3),
}
"""Every value of every gene."""

_NOTHING = Knowledge("")


def known(gene: str, value: Value) -> Knowledge:
    """What is known of one gene value."""
    return KNOWN.get((gene, value), _NOTHING)
