"""What the chunkwise recurrences share: one calling convention, cutting time into chunks, decayed scores.

Inside this package tensors are `[lanes, chunks, chunk, d]`, a lane being one head of one sequence. A chunkwise form
computes everything inside a chunk with matrix products and carries only the state from chunk to chunk, so that its
cost is linear in time (Hua et al. 2022, "Transformer Quality in Linear Time"; Sun et al. 2023, "Retentive Network").
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor
from torch.amp.autocast_mode import is_autocast_available
from torch.nn import functional as F

from engine.linear_attention.ops import cuda

CHUNK = 32
SUB_CHUNK = 8
# One step's log decay below this forgets everything that float32 could still represent beside a new value.
FORGET_ALL = -50.0

Arguments = ParamSpec("Arguments")
State = TypeVar("State")


def recurrence(
    function: Callable[Arguments, tuple[Tensor, State]],
) -> Callable[Arguments, tuple[Tensor, State]]:
    """Give a recurrence its three common duties.

    On CUDA it goes to fla's kernel of the same name where there is one. Elsewhere it runs in float32 (or float64)
    even under autocast, because states accumulate over the whole sequence; the output has the dtype of `v`.
    """

    signature = inspect.signature(function)

    @functools.wraps(function)
    def call(*args: Arguments.args, **kwargs: Arguments.kwargs) -> tuple[Tensor, State]:
        given = signature.bind(*args, **kwargs).arguments
        kernel = cuda.kernel_for(function.__name__, given["q"])
        if kernel is not None:
            return kernel(**given)
        device = given["q"].device.type
        plain = torch.autocast(device, enabled=False) if is_autocast_available(device) else nullcontext()
        with plain:
            output, state = function(*_widened(args), **_widened(kwargs))
        return output.to(given["v"].dtype), state

    return call


def _widened(item: Any) -> Any:
    """The same arguments with half-precision tensors as float32."""
    if isinstance(item, Tensor):
        return item.float() if item.dtype in (torch.float16, torch.bfloat16) else item
    if isinstance(item, tuple):
        return tuple(_widened(part) for part in item)
    if isinstance(item, dict):
        return {name: _widened(part) for name, part in item.items()}
    return item


def expect_shapes(q: Tensor, k: Tensor, v: Tensor, **others: tuple[Tensor, tuple[int, ...]]) -> None:
    """Raise ValueError unless q, k are `[batch, time, heads, d_key]`, v matches them, and every other has its shape."""
    if q.dim() != 4 or q.shape != k.shape:
        raise ValueError(f"q and k must both be [batch, time, heads, d_key], got {list(q.shape)} and {list(k.shape)}")
    if v.dim() != 4 or v.shape[:3] != q.shape[:3]:
        raise ValueError(f"v must be [batch, time, heads, d_value] beside q {list(q.shape)}, got {list(v.shape)}")
    if q.shape[1] == 0:
        raise ValueError("time must be at least 1")
    for name, (tensor, shape) in others.items():
        if tensor.shape != torch.Size(shape):
            raise ValueError(f"{name} must have the shape {list(shape)}, got {list(tensor.shape)}")


def chunk_length(time: int) -> int:
    """The chunk for a sequence: the usual one, or for short sequences the smallest power of two that holds them."""
    return CHUNK if time >= CHUNK else 1 << (time - 1).bit_length()


def to_chunks(x: Tensor) -> Tensor:
    """`[batch, time, heads, d]` to `[batch * heads, chunks, chunk, d]`, padded with zeros, which change no state."""
    batch, time, heads, width = x.shape
    chunk = chunk_length(time)
    x = x.transpose(1, 2)
    if time % chunk:
        x = F.pad(x, (0, 0, 0, chunk - time % chunk))
    return x.reshape(batch * heads, -1, chunk, width)


def from_chunks(x: Tensor, batch: int, time: int) -> Tensor:
    """`[batch * heads, chunks, chunk, d]` back to `[batch, time, heads, d]`."""
    lanes, width = x.shape[0], x.shape[-1]
    return x.reshape(batch, lanes // batch, -1, width)[:, :, :time].transpose(1, 2)


def start_state(initial_state: Tensor | None, k: Tensor, v: Tensor) -> Tensor:
    """The state before the first token as `[batch * heads, d_key, d_value]`, zero where none is given.

    Raises ValueError when the given one is not `[batch, heads, d_key, d_value]`.
    """
    batch, _, heads, d_key = k.shape
    shape = (batch, heads, d_key, v.shape[-1])
    if initial_state is None:
        return v.new_zeros(batch * heads, d_key, v.shape[-1])
    if initial_state.shape != torch.Size(shape):
        raise ValueError(f"initial_state must have the shape {list(shape)}, got {list(initial_state.shape)}")
    return initial_state.reshape(batch * heads, d_key, v.shape[-1])


def cumulative_decay(log_decay: Tensor) -> Tensor:
    """The log decay from each chunk's start through each token, `[lanes, chunks, chunk, 1 or d_key]`."""
    return to_chunks(log_decay.clamp_min(FORGET_ALL)).cumsum(-2)


def decayed_scores(keys: Tensor, cumulative: Tensor | None, *readers: Tensor) -> list[Tensor]:
    """`scores[i, j] = sum_d reader[i, d] keys[j, d] exp(cumulative[i, d] - cumulative[j, d])` for j <= i, else 0.

    One `[lanes, chunks, chunk, chunk]` per reader (the queries, or the keys themselves). `cumulative` is None (no
    decay), one number per token, or one per token and channel. Only differences of the cumulative decay are
    exponentiated and none of them is positive, so that no decay however strong overflows (the secondary chunking of
    GLA, Yang et al. 2023, section 4.3).
    """
    if cumulative is None:
        return [(reader @ keys.mT).tril() for reader in readers]
    if cumulative.shape[-1] == 1:
        between = _decay_between(cumulative)
        return [(reader @ keys.mT) * between for reader in readers]
    return _channel_decayed_scores(keys, cumulative, readers)


def _decay_between(cumulative: Tensor) -> Tensor:
    """`exp(cumulative[i] - cumulative[j])` for j <= i, else 0: `[..., chunk, chunk]` from `[..., chunk, 1]`."""
    later = torch.ones(cumulative.shape[-2], cumulative.shape[-2], dtype=torch.bool, device=cumulative.device).triu(1)
    return (cumulative - cumulative.mT).masked_fill(later, -torch.inf).exp()


def _channel_decayed_scores(keys: Tensor, cumulative: Tensor, readers: tuple[Tensor, ...]) -> list[Tensor]:
    """`decayed_scores` with a decay per channel: pairwise inside sub-chunks, matrix products between them."""
    chunk = keys.shape[-2]
    sub = min(SUB_CHUNK, chunk)
    inside = [block.unbind(2) for block in _pairwise_scores(keys, cumulative, readers, sub)]
    rows: list[list[Tensor]] = [[] for _ in readers]
    for index, first in enumerate(range(0, chunk, sub)):
        blocks = [block[index] for block in inside]
        if first:
            # Earlier sub-chunks are seen through the start of this one, at which both factors are at most one.
            start = cumulative[..., first - 1 : first, :]
            earlier = keys[..., :first, :] * (start - cumulative[..., :first, :]).exp()
            since = (cumulative[..., first : first + sub, :] - start).exp()
            across = [(reader[..., first : first + sub, :] * since) @ earlier.mT for reader in readers]
            blocks = [torch.cat(pair, -1) for pair in zip(across, blocks, strict=True)]
        for row, block in zip(rows, blocks, strict=True):
            row.append(F.pad(block, (0, chunk - first - sub)))
    return [torch.cat(row, -2) for row in rows]


def _pairwise_scores(keys: Tensor, cumulative: Tensor, readers: tuple[Tensor, ...], sub: int) -> list[Tensor]:
    """The scores inside each sub-chunk, `[lanes, chunks, chunk / sub, sub, sub]`, column by column."""
    key, decay = keys.unflatten(2, (-1, sub)), cumulative.unflatten(2, (-1, sub))
    blocked = [reader.unflatten(2, (-1, sub)) for reader in readers]
    columns: list[list[Tensor]] = [[] for _ in readers]
    for j in range(sub):
        faded = key[..., j : j + 1, :] * (decay[..., j:, :] - decay[..., j : j + 1, :]).exp()
        for column, reader in zip(columns, blocked, strict=True):
            column.append(F.pad((reader[..., j:, :] * faded).sum(-1), (j, 0)))
    return [torch.stack(column, -1) for column in columns]
