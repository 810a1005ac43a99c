"""Linear attention (Katharopoulos et al. 2020)."""

from torch import Tensor, nn

from engine.linear_attention.ops import elu_plus_one, linear_attention


class Mixer(nn.Module):
    """Positive features in place of the softmax; the state is the sum of all key-value products."""

    def __init__(self, d_model: int, n_heads: int, layer_idx: int, max_len: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.project = nn.Linear(d_model, 3 * d_model, bias=False)
        self.output = nn.Linear(d_model, d_model, bias=False)

    def mix(self, x: Tensor, state: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """`[batch, time, d_model]` to the same, and the state to continue from."""
        q, k, v = self.project(x).unflatten(-1, (3, self.n_heads, -1)).unbind(2)
        out, state = linear_attention(elu_plus_one(q), elu_plus_one(k), v, normalize=True, initial_state=state)
        return self.output(out.flatten(2)), state

    def forward(self, x: Tensor) -> Tensor:
        """The whole sequence."""
        return self.mix(x)[0]

    def step(self, x_t: Tensor, state: tuple[Tensor, Tensor] | None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """One token `[batch, d_model]`."""
        y, state = self.mix(x_t.unsqueeze(1), state)
        return y.squeeze(1), state
