"""Kimi Delta Attention ("Kimi Linear", 2025)."""

from torch import Tensor, nn
from torch.nn import functional as F

from engine.linear_attention.ops import GatedRMSNorm, kda, l2_normalize, log_rates, softplus_gate


class Mixer(nn.Module):
    """The delta rule, and a decay per channel of the key, computed from the token."""

    def __init__(self, d_model: int, n_heads: int, layer_idx: int, max_len: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.project = nn.Linear(d_model, 4 * d_model, bias=False)
        self.strength = nn.Linear(d_model, n_heads)
        d_head = d_model // n_heads
        self.forget = nn.Sequential(nn.Linear(d_model, d_head, bias=False), nn.Linear(d_head, d_model))
        self.log_rate = nn.Parameter(log_rates(n_heads).unsqueeze(-1))
        self.norm = GatedRMSNorm(d_head)
        self.output = nn.Linear(d_model, d_model, bias=False)

    def mix(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """`[batch, time, d_model]` to the same, and the state to continue from."""
        q, k, v, gate = self.project(x).unflatten(-1, (4, self.n_heads, -1)).unbind(2)
        q, k, v = l2_normalize(F.silu(q)), l2_normalize(F.silu(k)), F.silu(v)
        log_decay = softplus_gate(self.forget(x).unflatten(-1, (self.n_heads, -1)), self.log_rate)
        out, state = kda(q, k, v, log_decay, self.strength(x).sigmoid(), initial_state=state)
        return self.output(self.norm(out, gate).flatten(2)), state

    def forward(self, x: Tensor) -> Tensor:
        """The whole sequence."""
        return self.mix(x)[0]

    def step(self, x_t: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        """One token `[batch, d_model]`."""
        y, state = self.mix(x_t.unsqueeze(1), state)
        return y.squeeze(1), state
