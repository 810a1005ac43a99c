"""Root-mean-square normalisation, plain and gated. Both act on the last axis."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class RMSNorm(nn.Module):
    """`x / rms(x) * weight`: Zhang & Sennrich 2019."""

    def __init__(self, d: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(d))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """`[..., d]` to the same."""
        return F.rms_norm(x, self.weight.shape, self.weight, self.eps)


class GatedRMSNorm(nn.Module):
    """`rms_norm(x) * activation(gate)`: an output gate.

    Kimi Linear was published with `sigmoid`; Mamba-2, RetNet, GLA and Gated DeltaNet with `silu`. At small budgets
    sigmoid learns recall much sooner: at the start it halves the output, where silu almost closes it.
    """

    def __init__(self, d: int, activation: Literal["sigmoid", "silu"] = "sigmoid", eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(d))
        self.activation = activation
        self.eps = eps

    def forward(self, x: Tensor, gate: Tensor) -> Tensor:
        """x and gate `[..., d]` to the same."""
        opening = gate.sigmoid() if self.activation == "sigmoid" else F.silu(gate)
        return F.rms_norm(x, self.weight.shape, self.weight, self.eps) * opening
