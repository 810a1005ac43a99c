"""Mamba-2 (Dao & Gu 2024).

The output gate is a sigmoid, which learns sooner at small budgets than the published silu.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engine.linear_attention.ops import GatedRMSNorm, log_rates, simple_gla


class Mixer(nn.Module):
    """A step size per head, computed from the token, says how much to forget and how strongly to write.

    Queries and keys are shared by all heads.
    """

    def __init__(self, d_model: int, n_heads: int, layer_idx: int, max_len: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        d_state = d_model // n_heads
        self.widths = [d_model, d_model, d_state, d_state]
        self.project = nn.Linear(d_model, sum(self.widths), bias=False)
        self.step_size = nn.Linear(d_model, n_heads)
        self.log_rate = nn.Parameter(log_rates(n_heads))
        self.skip = nn.Parameter(torch.ones(n_heads, 1))
        self.norm = GatedRMSNorm(d_model)
        self.output = nn.Linear(d_model, d_model, bias=False)

    def mix(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """`[batch, time, d_model]` to the same, and the state to continue from."""
        gate, v, k, q = self.project(x).split(self.widths, -1)
        q, k = (F.silu(part).unsqueeze(2).expand(-1, -1, self.n_heads, -1) for part in (q, k))
        v = F.silu(v).unflatten(-1, (self.n_heads, -1))
        size = F.softplus(self.step_size(x))
        log_decay = -self.log_rate.exp() * size
        out, state = simple_gla(q, k, v * size.unsqueeze(-1), log_decay, initial_state=state, scale=1.0)
        return self.output(self.norm((out + self.skip * v).flatten(2), gate)), state

    def forward(self, x: Tensor) -> Tensor:
        """The whole sequence."""
        return self.mix(x)[0]

    def step(self, x_t: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        """One token `[batch, d_model]`."""
        y, state = self.mix(x_t.unsqueeze(1), state)
        return y.squeeze(1), state
