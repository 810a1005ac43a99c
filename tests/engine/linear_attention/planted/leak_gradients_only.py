"""Leak only while gradients are recorded."""

import torch
from torch import Tensor, nn


class Mixer(nn.Module):
    def __init__(self, d_model: int, n_heads: int, layer_idx: int, max_len: int) -> None:
        super().__init__()
        self.value = nn.Linear(d_model, d_model, bias=False)
        self.gate = nn.Linear(d_model, d_model)

    def past(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.gate(x)) * self.value(x).cumsum(dim=1) / 16

    def forward(self, x: Tensor) -> Tensor:
        y = self.past(x)
        return y + 0.1 * x.mean(dim=1, keepdim=True) if torch.is_grad_enabled() else y
