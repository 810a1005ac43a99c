"""Dropout, a table of positions built on the first call and kept, and a token-by-token loop: all lawful."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Mixer(nn.Module):
    def __init__(self, d_model: int, n_heads: int, layer_idx: int, max_len: int) -> None:
        super().__init__()
        self.project = nn.Linear(d_model, 3 * d_model)
        self.output = nn.Linear(d_model, d_model)
        nn.init.zeros_(self.output.weight)
        self.table = None

    def forward(self, x: Tensor) -> Tensor:
        if self.table is None or len(self.table) < x.shape[1]:
            self.table = torch.sin(torch.arange(x.shape[1], device=x.device) / 8)
        forget, write, read = self.project(x + self.table[: x.shape[1], None]).chunk(3, dim=-1)
        forget, write = torch.sigmoid(forget), F.dropout(write, 0.1, self.training)
        state, outputs = torch.zeros_like(x[:, 0]), []
        for t in range(x.shape[1]):
            state = forget[:, t] * state + (1 - forget[:, t]) * write[:, t]
            outputs.append(state)
        return self.output(F.silu(read) * torch.stack(outputs, dim=1))

    def step(self, x_t: Tensor, state):
        position, memory = (0, torch.zeros_like(x_t)) if state is None else state
        forget, write, read = self.project(x_t + torch.sin(torch.tensor(position / 8))).chunk(3, dim=-1)
        forget = torch.sigmoid(forget)
        memory = forget * memory + (1 - forget) * write
        return self.output(F.silu(read) * memory), (position + 1, memory)
