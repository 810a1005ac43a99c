"""Gated linear attention (Yang et al. 2023).

The output gate is a sigmoid, which learns sooner at small budgets than the published silu.
"""

from torch import Tensor, nn

from engine.linear_attention.ops import GatedRMSNorm, gla, log_sigmoid_gate


class Mixer(nn.Module):
    """Every channel of the key has its own decay, computed from the token."""

    def __init__(self, d_model: int, n_heads: int, layer_idx: int, max_len: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.project = nn.Linear(d_model, 4 * d_model, bias=False)
        self.forget = nn.Sequential(nn.Linear(d_model, 16, bias=False), nn.Linear(16, d_model))
        self.norm = GatedRMSNorm(d_model // n_heads)
        self.output = nn.Linear(d_model, d_model, bias=False)

    def mix(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """`[batch, time, d_model]` to the same, and the state to continue from."""
        q, k, v, gate = self.project(x).unflatten(-1, (4, self.n_heads, -1)).unbind(2)
        log_decay = log_sigmoid_gate(self.forget(x).unflatten(-1, (self.n_heads, -1)))
        out, state = gla(q, k, v, log_decay, initial_state=state)
        return self.output(self.norm(out, gate).flatten(2)), state

    def forward(self, x: Tensor) -> Tensor:
        """The whole sequence."""
        return self.mix(x)[0]

    def step(self, x_t: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        """One token `[batch, d_model]`."""
        y, state = self.mix(x_t.unsqueeze(1), state)
        return y.squeeze(1), state
