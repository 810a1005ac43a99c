"""Causal depthwise convolution, the short memory beside a recurrence (Poli et al. 2023, "Hyena"; Gu & Dao 2023)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def causal_convolution(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, initial_state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Each channel filtered over time by its own kernel: `y_t = sum_i weight[:, i] x_{t - kernel + 1 + i} + bias`.

    x `[batch, time, d]`, weight `[d, kernel]` with the present token's tap last, bias `[d]`. Returns the output like x
    and the state `[batch, kernel - 1, d]`, the last inputs, zero before the first. Raises ValueError when the shapes
    do not fit.
    """
    if x.dim() != 3 or weight.dim() != 2 or weight.shape[0] != x.shape[-1]:
        raise ValueError(f"need x [batch, time, d] and weight [d, kernel], got {list(x.shape)}, {list(weight.shape)}")
    reach, time = weight.shape[1] - 1, x.shape[1]
    if initial_state is None:
        padded = F.pad(x, (0, 0, reach, 0))
    else:
        padded = torch.cat([initial_state, x], 1)
    y = padded[:, :time] * weight[:, 0]
    for tap in range(1, reach + 1):
        y = torch.addcmul(y, padded[:, tap : tap + time], weight[:, tap])
    return y if bias is None else y + bias, padded[:, time:]


class ShortConvolution(nn.Module):
    """A causal depthwise convolution with its weights: `[batch, time, d]` to the same.

    `activation` is applied to the output; None leaves it linear.
    """

    def __init__(self, d: int, kernel_size: int = 4, activation: Literal["silu"] | None = "silu") -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(d, kernel_size).uniform_(-1, 1) * kernel_size**-0.5)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """The filtered sequence."""
        return self.run(x)[0]

    def run(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The filtered sequence and the state to continue from, for decoding."""
        y, state = causal_convolution(x, self.weight, None, state)
        return F.silu(y) if self.activation == "silu" else y, state
