"""Recurrences that only add to their state: linear attention, RetNet / Mamba-2, gated linear attention.

All three are `S_t = diag(a_t) S_{t-1} + k_t v_t^T`, `o_t = scale * S_t^T q_t` with a decay `a_t` that is one, a
number per head, or a number per key channel. With `A_i` the product of the decays from the chunk's start through
token i, and S the state before the chunk:

    o_i = (A_i q_i)^T S + sum_{j <= i} (q_i^T diag(A_i / A_j) k_j) v_j
    S'  = diag(A_end) S + sum_j (A_end / A_j) k_j v_j^T
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from engine.linear_attention.ops.chunkwise import (
    cumulative_decay,
    decayed_scores,
    expect_shapes,
    from_chunks,
    recurrence,
    start_state,
    to_chunks,
)

SMALLEST_NORMALISER = 1e-6


@recurrence
def linear_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    normalize: bool = False,
    initial_state: Tensor | tuple[Tensor, Tensor] | None = None,
    scale: float | None = None,
) -> tuple[Tensor, Any]:
    """`S_t = S_{t-1} + k_t v_t^T`: Katharopoulos et al. 2020, "Transformers are RNNs".

    q, k `[batch, time, heads, d_key]` (after their feature map), v `[batch, time, heads, d_value]`. Returns the output
    `[batch, time, heads, d_value]` and the state `[batch, heads, d_key, d_value]`. With `normalize` the output is
    divided by `q_t^T z_t`, `z_t` being the sum of the keys, and the state is the pair `(S, z)`, z
    `[batch, heads, d_key]`; use non-negative features then.
    """
    expect_shapes(q, k, v)
    if not normalize:
        if isinstance(initial_state, tuple):
            raise ValueError("initial_state is a pair (S, z) only with normalize=True")
        return _additive(q, k, v, None, initial_state, scale)
    if isinstance(initial_state, Tensor):
        raise ValueError("with normalize=True initial_state is a pair (S, z)")
    joined = None if initial_state is None else torch.cat([initial_state[0], initial_state[1].unsqueeze(-1)], -1)
    output, state = _additive(q, k, F.pad(v, (0, 1), value=1.0), None, joined, scale)
    numerator, normaliser = output[..., :-1], output[..., -1:]
    safe = torch.where(
        normaliser < 0, normaliser.clamp_max(-SMALLEST_NORMALISER), normaliser.clamp_min(SMALLEST_NORMALISER)
    )
    return numerator / safe, (state[..., :-1], state[..., -1])


@recurrence
def simple_gla(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor,
    *,
    initial_state: Tensor | None = None,
    scale: float | None = None,
) -> tuple[Tensor, Tensor]:
    """`S_t = exp(log_decay_t) S_{t-1} + k_t v_t^T` with one decay per head.

    A constant decay is RetNet (Sun et al. 2023), one computed from the token is Mamba-2's SSD (Dao & Gu 2024). q, k
    `[batch, time, heads, d_key]`, v `[batch, time, heads, d_value]`, log_decay `[batch, time, heads]`, at most 0.
    Returns the output like v and the state `[batch, heads, d_key, d_value]`.
    """
    expect_shapes(q, k, v, log_decay=(log_decay, q.shape[:3]))
    return _additive(q, k, v, log_decay.unsqueeze(-1), initial_state, scale)


@recurrence
def gla(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor,
    *,
    initial_state: Tensor | None = None,
    scale: float | None = None,
) -> tuple[Tensor, Tensor]:
    """`S_t = diag(exp(log_decay_t)) S_{t-1} + k_t v_t^T`: Yang et al. 2023, "Gated Linear Attention".

    q, k and log_decay (at most 0) `[batch, time, heads, d_key]`, v `[batch, time, heads, d_value]`. Returns the output
    like v and the state `[batch, heads, d_key, d_value]`.
    """
    expect_shapes(q, k, v, log_decay=(log_decay, q.shape))
    return _additive(q, k, v, log_decay, initial_state, scale)


def _additive(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor | None, initial_state: Tensor | None, scale: float | None
) -> tuple[Tensor, Tensor]:
    """The chunk form of the module's docstring; `log_decay` has a last axis of 1 or d_key."""
    batch, time, heads, d_key = q.shape
    state = start_state(initial_state, k, v)
    query, key, value = to_chunks(q * (d_key**-0.5 if scale is None else scale)), to_chunks(k), to_chunks(v)
    decay = None if log_decay is None else cumulative_decay(log_decay)
    (scores,) = decayed_scores(key, decay, query)
    output = scores @ value
    kept = None
    if decay is not None:
        query = query * decay.exp()
        key = key * (decay[:, :, -1:] - decay).exp()
        kept = decay[:, :, -1].unsqueeze(-1).exp().unbind(1)
    before = []
    for index, written in enumerate((key.mT @ value).unbind(1)):
        before.append(state)
        state = written + (state if kept is None else state * kept[index])
    output = output + query @ torch.stack(before, 1)
    return from_chunks(output, batch, time), state.reshape(batch, heads, d_key, -1)
