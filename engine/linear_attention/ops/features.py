"""Feature maps for linear attention, gates for recurrences, and rotary positions. All act on the last axis."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def elu_plus_one(x: Tensor) -> Tensor:
    """`elu(x) + 1`, positive: Katharopoulos et al. 2020."""
    return F.elu(x) + 1


def relu_feature(x: Tensor) -> Tensor:
    """`relu(x)`: Kasai et al. 2021, "T2R" without its projection."""
    return F.relu(x)


def squared_relu(x: Tensor) -> Tensor:
    """`relu(x)^2`, sharper than relu: So et al. 2021, "Primer"."""
    return F.relu(x).square()


def softmax_feature(x: Tensor) -> Tensor:
    """`softmax(x)` over the channels: Shen et al. 2018, "Efficient Attention"."""
    return x.softmax(-1)


def hedgehog_feature(x: Tensor) -> Tensor:
    """`softmax([x, -x])`, twice as wide: Zhang et al. 2024, "The Hedgehog & the Porcupine"."""
    return torch.cat([x, -x], -1).softmax(-1)


def taylor_feature(x: Tensor) -> Tensor:
    """Features whose inner product is `1 + s + s^2 / 2` for `s = q . k / sqrt(d)`: Arora et al. 2024, "Based".

    `[..., d]` to `[..., 1 + d + d * d]`: keep d small. Use with `scale=1`.
    """
    x = x * x.shape[-1] ** -0.25
    squares = (x.unsqueeze(-1) * x.unsqueeze(-2)).flatten(-2) / math.sqrt(2)
    return torch.cat([torch.ones_like(x[..., :1]), x, squares], -1)


def l2_normalize(x: Tensor, eps: float = 1e-6) -> Tensor:
    """`x / |x|`, zero for a zero vector."""
    return x * torch.rsqrt(x.square().sum(-1, keepdim=True) + eps)


def rotary(x: Tensor, offset: int = 0, base: float = 10_000.0) -> Tensor:
    """Rotate pairs of channels by an angle that grows with the position: Su et al. 2021, "RoFormer".

    x `[batch, time, heads, d]`, d even; `offset` is the position of the first token. Raises ValueError when d is odd.
    """
    width = x.shape[-1]
    if width % 2:
        raise ValueError(f"rotary needs an even number of channels, got {width}")
    rates = base ** (-torch.arange(0, width, 2, device=x.device, dtype=torch.float32) / width)
    positions = torch.arange(offset, offset + x.shape[1], device=x.device, dtype=torch.float32)
    angles = (positions[:, None] * rates).unsqueeze(1)
    cosine, sine = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    first, second = x.chunk(2, -1)
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine], -1)


def log_sigmoid_gate(x: Tensor, low: float | None = None, temperature: float = 16.0) -> Tensor:
    """A log decay `log(sigmoid(x)) / temperature` (Yang et al. 2023, "GLA"), never below `low` when one is given."""
    gate = F.logsigmoid(x) / temperature
    return gate if low is None else gate.clamp_min(low)


def bounded_gate(x: Tensor, low: float = -5.0) -> Tensor:
    """A log decay `low * sigmoid(x)`, between `low` and 0 with a gradient everywhere: Kimi Linear 2025."""
    return low * x.sigmoid()


def softplus_gate(x: Tensor, log_rate: Tensor) -> Tensor:
    """A log decay `-exp(log_rate) * softplus(x)`: Gu & Dao 2023, "Mamba". `log_rate` broadcasts against x."""
    return -log_rate.exp() * F.softplus(x)


def log_rates(heads: int, shortest: float = 16.0, longest: float = 1024.0) -> Tensor:
    """Initial `log_rate` per head, `[heads]`, for half-lives of `shortest` to `longest` tokens at `x = 0`.

    Long memories at the start: a recurrence that forgets learns recall late, or at a small budget never.
    """
    half_lives = torch.logspace(math.log10(shortest), math.log10(longest), heads)
    return -half_lives.log()


def retention_decay(heads: int) -> Tensor:
    """The constant log decays of RetNet, `log(1 - 2^(-5 - i))` for head i, `[heads]`: Sun et al. 2023."""
    return torch.log1p(-torch.exp2(-5.0 - torch.arange(heads, dtype=torch.float32)))
