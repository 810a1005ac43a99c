"""DeltaProduct: several delta-rule steps per token, whose state transition is a product of Householder matrices."""

from __future__ import annotations

import torch
from torch import Tensor

from engine.linear_attention.ops.delta import delta_rule, gated_delta_rule


def delta_product(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    log_decay: Tensor | None = None,
    *,
    initial_state: Tensor | None = None,
    scale: float | None = None,
) -> tuple[Tensor, Tensor]:
    """n delta-rule steps per token, read after the last: Siems et al. 2025, "DeltaProduct".

    q `[batch, time, heads, d_key]`, k `[batch, time, n, heads, d_key]`, v `[batch, time, n, heads, d_value]`, beta
    `[batch, time, n, heads]`, log_decay `[batch, time, heads]` applied once per token, before its first step. Returns
    the output `[batch, time, heads, d_value]` and the state `[batch, heads, d_key, d_value]`. Raises ValueError when
    the shapes do not fit.
    """
    if k.dim() != 5 or v.dim() != 5 or k[:, :, 0].shape != q.shape or beta.shape != k.shape[:-1]:
        raise ValueError(
            "delta_product needs q [batch, time, heads, d_key], k [batch, time, n, heads, d_key], v alike and beta "
            f"[batch, time, n, heads]; got {list(q.shape)}, {list(k.shape)}, {list(v.shape)}, {list(beta.shape)}"
        )
    steps = k.shape[2]
    # The rule runs over time * n steps; the queries and decays of the other steps are zero.
    queries = _beside_zeros(q, steps, position=steps - 1)
    keys, values, strengths = k.flatten(1, 2), v.flatten(1, 2), beta.flatten(1, 2)
    if log_decay is None:
        output, state = delta_rule(queries, keys, values, strengths, initial_state=initial_state, scale=scale)
    else:
        decays = _beside_zeros(log_decay, steps, position=0)
        output, state = gated_delta_rule(
            queries, keys, values, decays, strengths, initial_state=initial_state, scale=scale
        )
    return output[:, steps - 1 :: steps], state


def _beside_zeros(x: Tensor, steps: int, position: int) -> Tensor:
    """`[batch, time, ...]` to `[batch, time * steps, ...]`: x at one step of each token and zeros at the others."""
    if steps == 1:
        return x
    zeros = torch.zeros_like(x)
    return torch.stack([x if step == position else zeros for step in range(steps)], 2).flatten(1, 2)
