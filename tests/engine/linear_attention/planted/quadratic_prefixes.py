"""Sums every prefix anew, token by token: no large tensor, no matrix product, and quadratic all the same."""

import torch
from torch import Tensor, nn


class Mixer(nn.Module):
    def __init__(self, d_model: int, n_heads: int, layer_idx: int, max_len: int) -> None:
        super().__init__()
        self.value = nn.Linear(d_model, d_model, bias=False)
        self.gate = nn.Linear(d_model, d_model)

    def forward(self, x: Tensor) -> Tensor:
        value = self.value(x)
        prefixes = [value[:, : t + 1].sum(dim=1) for t in range(x.shape[1])]
        return torch.sigmoid(self.gate(x)) * torch.stack(prefixes, dim=1) / 16
