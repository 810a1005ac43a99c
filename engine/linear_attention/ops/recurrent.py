"""The recurrences token by token: slow, and the definition that the chunkwise forms are tested against."""

from __future__ import annotations

import torch
from torch import Tensor


def recurrent_memory(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor | None = None,
    beta: Tensor | None = None,
    *,
    initial_state: Tensor | None = None,
    scale: float | None = None,
) -> tuple[Tensor, Tensor]:
    """Any matrix memory: decay the state, then write; with `beta` erase first what the key returns (delta rule).

    q, k `[batch, time, heads, d_key]`, v `[batch, time, heads, d_value]`, log_decay `[batch, time, heads]` or with a
    last axis d_key, beta `[batch, time, heads]`. Returns the output like v and the state
    `[batch, heads, d_key, d_value]`.
    """
    batch, time, heads, d_key = q.shape
    state = v.new_zeros(batch, heads, d_key, v.shape[-1]) if initial_state is None else initial_state
    outputs = []
    for t in range(time):
        if log_decay is not None:
            decay = log_decay[:, t].exp()
            state = state * (decay.unsqueeze(-1) if decay.dim() == 3 else decay[:, :, None, None])
        written = v[:, t]
        if beta is not None:
            written = beta[:, t].unsqueeze(-1) * (written - torch.einsum("bhkv,bhk->bhv", state, k[:, t]))
        state = state + k[:, t].unsqueeze(-1) * written.unsqueeze(-2)
        outputs.append(torch.einsum("bhkv,bhk->bhv", state, q[:, t]) * (d_key**-0.5 if scale is None else scale))
    return torch.stack(outputs, 1), state


def recurrent_delta_product(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, log_decay: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """`delta_product` token by token; the same shapes."""
    outputs, state = [], None
    for t in range(q.shape[1]):
        for step in range(k.shape[2]):
            decay = None
            if log_decay is not None:
                decay = log_decay[:, t : t + 1] * (step == 0)
            output, state = recurrent_memory(
                q[:, t : t + 1],
                k[:, t : t + 1, step],
                v[:, t : t + 1, step],
                decay,
                beta[:, t : t + 1, step],
                initial_state=state,
            )
        outputs.append(output)
    assert state is not None
    return torch.cat(outputs, 1), state


def windowed_softmax(q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
    """Softmax attention of each token over the last `window` tokens, one token at a time; shapes as in the ops."""
    outputs = []
    for t in range(q.shape[1]):
        start = max(0, t + 1 - window)
        scores = torch.einsum("bhd,bshd->bhs", q[:, t], k[:, start : t + 1]) * q.shape[-1] ** -0.5
        outputs.append(torch.einsum("bhs,bshd->bhd", scores.softmax(-1), v[:, start : t + 1]))
    return torch.stack(outputs, 1)
