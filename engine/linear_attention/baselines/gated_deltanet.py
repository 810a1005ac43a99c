"""Gated DeltaNet (Yang et al. 2024).

The output gate is a sigmoid, which learns sooner at small budgets than the published silu.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from engine.linear_attention.ops import GatedRMSNorm, gated_delta_rule, l2_normalize, log_rates, softplus_gate


class Mixer(nn.Module):
    """The delta rule, and a decay per head, computed from the token, that can clear the whole memory."""

    def __init__(self, d_model: int, n_heads: int, layer_idx: int, max_len: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.project = nn.Linear(d_model, 4 * d_model, bias=False)
        self.gates = nn.Linear(d_model, 2 * n_heads)
        self.log_rate = nn.Parameter(log_rates(n_heads))
        self.norm = GatedRMSNorm(d_model // n_heads)
        self.output = nn.Linear(d_model, d_model, bias=False)

    def mix(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """`[batch, time, d_model]` to the same, and the state to continue from."""
        q, k, v, gate = self.project(x).unflatten(-1, (4, self.n_heads, -1)).unbind(2)
        strength, forget = self.gates(x).chunk(2, -1)
        q, k, v = l2_normalize(F.silu(q)), l2_normalize(F.silu(k)), F.silu(v)
        log_decay = softplus_gate(forget, self.log_rate)
        out, state = gated_delta_rule(q, k, v, log_decay, strength.sigmoid(), initial_state=state)
        return self.output(self.norm(out, gate).flatten(2)), state

    def forward(self, x: Tensor) -> Tensor:
        """The whole sequence."""
        return self.mix(x)[0]

    def step(self, x_t: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        """One token `[batch, d_model]`."""
        y, state = self.mix(x_t.unsqueeze(1), state)
        return y.squeeze(1), state
