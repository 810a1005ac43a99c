"""Softmax attention, full and in a sliding window, with the calling convention of the recurrences."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from engine.linear_attention.ops.chunkwise import expect_shapes

SMALLEST_BLOCK = 16


def softmax_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    initial_state: tuple[Tensor, Tensor] | None = None,
    scale: float | None = None,
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Causal softmax attention: Vaswani et al. 2017. Its cost is quadratic and its state grows: the reference.

    q, k `[batch, time, heads, d_key]`, v `[batch, time, heads, d_value]`. Returns the output like v and the state,
    which is all keys and values so far, in the same layout.
    """
    expect_shapes(q, k, v)
    if initial_state is not None:
        k, v = torch.cat([initial_state[0], k], 1), torch.cat([initial_state[1], v], 1)
    time, total = q.shape[1], k.shape[1]
    mask = None
    if time != total:
        mask = torch.ones(time, total, dtype=torch.bool, device=q.device).tril(total - time)
    output = F.scaled_dot_product_attention(
        q.transpose(1, 2),
        k.transpose(1, 2),
        v.transpose(1, 2),
        attn_mask=mask,
        is_causal=mask is None,
        scale=scale,
    )
    return output.transpose(1, 2), (k, v)


def sliding_window_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    window: int,
    *,
    initial_state: tuple[Tensor, Tensor] | None = None,
    scale: float | None = None,
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Softmax attention over the last `window` tokens, this one included: Beltagy et al. 2020, "Longformer".

    q, k `[batch, time, heads, d_key]`, v `[batch, time, heads, d_value]`. Queries go in blocks, each of which sees
    only the keys within its reach, so that the cost is linear in time. Returns the output like v and the state: the
    last `window - 1` keys and values, fewer at the beginning. Raises ValueError when the window is empty.
    """
    expect_shapes(q, k, v)
    if window < 1:
        raise ValueError(f"window must be at least 1, got {window}")
    batch, time, heads, _ = q.shape
    past = 0
    if initial_state is not None:
        past = initial_state[0].shape[1]
        k, v = torch.cat([initial_state[0], k], 1), torch.cat([initial_state[1], v], 1)
    keep = min(window - 1, k.shape[1])
    state = (k[:, k.shape[1] - keep :], v[:, v.shape[1] - keep :])

    block = min(max(window, SMALLEST_BLOCK), time)
    blocks = -(-time // block)
    missing = window - 1 - past
    padding = (0, 0, 0, 0, missing, blocks * block - time)
    queries = F.pad(q, (0, 0, 0, 0, 0, blocks * block - time)).unflatten(1, (blocks, block)).transpose(2, 3)
    reach = block + window - 1
    keys, values = (F.pad(x, padding).unfold(1, reach, block).movedim(-1, 3) for x in (k, v))

    device = q.device
    behind = torch.arange(reach, device=device) - torch.arange(block, device=device).unsqueeze(-1)
    position = torch.arange(blocks, device=device).unsqueeze(-1) * block + torch.arange(reach, device=device)
    mask = (behind >= 0) & (behind < window) & (position >= missing)[:, None, :]
    output = F.scaled_dot_product_attention(
        queries.flatten(0, 1),
        keys.flatten(0, 1),
        values.flatten(0, 1),
        attn_mask=mask.unsqueeze(1).repeat(batch, 1, 1, 1),
        scale=scale,
    )
    output = output.unflatten(0, (batch, blocks)).transpose(2, 3).reshape(batch, blocks * block, heads, -1)
    return output[:, :time], state
