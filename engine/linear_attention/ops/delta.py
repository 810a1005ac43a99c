"""Recurrences that correct their state: the delta rule, its gated form, and Kimi Delta Attention.

Before writing, each erases what its key already returns:

    S_t = diag(a_t) S_{t-1};  S_t += b_t k_t (v_t - S_t^T k_t)^T;  o_t = scale * S_t^T q_t

so a chunk writes not v_i but the corrections u_i, and these solve a unit lower triangular system (the UT transform of
Yang et al. 2024, "Parallelizing Linear Transformers with the Delta Rule over Sequence Length"). With `A_i` the product
of the decays from the chunk's start through token i, and S the state before the chunk:

    u_i + b_i sum_{j < i} (k_i^T diag(A_i / A_j) k_j) u_j = b_i (v_i - S^T A_i k_i)
    o_i = (A_i q_i)^T S + sum_{j <= i} (q_i^T diag(A_i / A_j) k_j) u_j
    S'  = diag(A_end) S + sum_j (A_end / A_j) k_j u_j^T

Keys should have unit length; b_t then lies in (0, 1), or in (0, 2) for negative eigenvalues (Grazzi et al. 2024).
"""

from __future__ import annotations

import torch
from torch import Tensor

from engine.linear_attention.ops.chunkwise import (
    cumulative_decay,
    decayed_scores,
    expect_shapes,
    from_chunks,
    recurrence,
    start_state,
    to_chunks,
)


@recurrence
def delta_rule(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    *,
    initial_state: Tensor | None = None,
    scale: float | None = None,
) -> tuple[Tensor, Tensor]:
    """The delta rule without decay: DeltaNet, Schlag et al. 2021 and Yang et al. 2024.

    q, k `[batch, time, heads, d_key]`, v `[batch, time, heads, d_value]`, beta `[batch, time, heads]`. Returns the
    output like v and the state `[batch, heads, d_key, d_value]`.
    """
    expect_shapes(q, k, v, beta=(beta, q.shape[:3]))
    return _delta(q, k, v, None, beta, initial_state, scale)


@recurrence
def gated_delta_rule(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor,
    beta: Tensor,
    *,
    initial_state: Tensor | None = None,
    scale: float | None = None,
) -> tuple[Tensor, Tensor]:
    """The delta rule with one decay per head: Yang et al. 2024, "Gated Delta Networks".

    q, k `[batch, time, heads, d_key]`, v `[batch, time, heads, d_value]`, log_decay (at most 0) and beta
    `[batch, time, heads]`. Returns the output like v and the state `[batch, heads, d_key, d_value]`.
    """
    expect_shapes(q, k, v, log_decay=(log_decay, q.shape[:3]), beta=(beta, q.shape[:3]))
    return _delta(q, k, v, log_decay.unsqueeze(-1), beta, initial_state, scale)


@recurrence
def kda(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor,
    beta: Tensor,
    *,
    initial_state: Tensor | None = None,
    scale: float | None = None,
) -> tuple[Tensor, Tensor]:
    """The delta rule with a decay per key channel: Kimi Delta Attention, "Kimi Linear" 2025.

    q, k and log_decay (at most 0) `[batch, time, heads, d_key]`, v `[batch, time, heads, d_value]`, beta
    `[batch, time, heads]`. Returns the output like v and the state `[batch, heads, d_key, d_value]`.
    """
    expect_shapes(q, k, v, log_decay=(log_decay, q.shape), beta=(beta, q.shape[:3]))
    return _delta(q, k, v, log_decay, beta, initial_state, scale)


def _delta(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor | None,
    beta: Tensor,
    initial_state: Tensor | None,
    scale: float | None,
) -> tuple[Tensor, Tensor]:
    """The chunk form of the module's docstring; `log_decay` has a last axis of 1 or d_key."""
    batch, time, heads, d_key = q.shape
    state = start_state(initial_state, k, v)
    query, key, value = to_chunks(q * (d_key**-0.5 if scale is None else scale)), to_chunks(k), to_chunks(v)
    strength = to_chunks(beta.unsqueeze(-1))
    decay = None if log_decay is None else cumulative_decay(log_decay)
    seen, overlap = decayed_scores(key, decay, query, key)
    grown = None if decay is None else decay.exp()
    read = key if grown is None else key * grown
    right = strength * torch.cat([value, read], -1)
    solved = torch.linalg.solve_triangular(strength * overlap.tril(-1), right, upper=False, unitriangular=True)
    values, erasers = solved.split([value.shape[-1], d_key], -1)
    kept = None
    if decay is not None and grown is not None:
        query = query * grown
        key = key * (decay[:, :, -1:] - decay).exp()
        kept = grown[:, :, -1].unsqueeze(-1).unbind(1)
    before, corrections = [], []
    for index, (write_key, new, eraser) in enumerate(
        zip(key.mT.unbind(1), values.unbind(1), erasers.unbind(1), strict=True)
    ):
        before.append(state)
        corrections.append(torch.baddbmm(new, eraser, state, alpha=-1))
        state = torch.baddbmm(state if kept is None else state * kept[index], write_key, corrections[-1])
    output = query @ torch.stack(before, 1) + seen @ torch.stack(corrections, 1)
    return from_chunks(output, batch, time), state.reshape(batch, heads, d_key, -1)
