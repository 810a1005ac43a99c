"""DeltaProduct (Siems et al. 2025)."""

from torch import Tensor, nn
from torch.nn import functional as F

from engine.linear_attention.ops import RMSNorm, delta_product, l2_normalize

STEPS = 2


class Mixer(nn.Module):
    """Several delta-rule steps per token, so that one token can permute what the memory holds."""

    def __init__(self, d_model: int, n_heads: int, layer_idx: int, max_len: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.query = nn.Linear(d_model, d_model, bias=False)
        self.write = nn.Linear(d_model, 2 * STEPS * d_model, bias=False)
        self.strength = nn.Linear(d_model, STEPS * n_heads)
        self.norm = RMSNorm(d_model // n_heads)
        self.output = nn.Linear(d_model, d_model, bias=False)

    def mix(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """`[batch, time, d_model]` to the same, and the state to continue from."""
        q = F.silu(self.query(x)).unflatten(-1, (self.n_heads, -1))
        k, v = F.silu(self.write(x)).unflatten(-1, (2, STEPS, self.n_heads, -1)).unbind(2)
        beta = 2 * self.strength(x).sigmoid().unflatten(-1, (STEPS, self.n_heads))
        out, state = delta_product(l2_normalize(q), l2_normalize(k), v, beta, initial_state=state)
        return self.output(self.norm(out).flatten(2)), state

    def forward(self, x: Tensor) -> Tensor:
        """The whole sequence."""
        return self.mix(x)[0]

    def step(self, x_t: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        """One token `[batch, d_model]`."""
        y, state = self.mix(x_t.unsqueeze(1), state)
        return y.squeeze(1), state
