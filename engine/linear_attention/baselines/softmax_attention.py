"""Softmax attention with rotary positions (Vaswani et al. 2017; Su et al. 2021)."""

from torch import Tensor, nn

from engine.linear_attention.ops import rotary, softmax_attention


class Mixer(nn.Module):
    """Every token looks at all tokens before it; the state is all keys and values so far."""

    def __init__(self, d_model: int, n_heads: int, layer_idx: int, max_len: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.project = nn.Linear(d_model, 3 * d_model, bias=False)
        self.output = nn.Linear(d_model, d_model, bias=False)

    def mix(self, x: Tensor, state: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """`[batch, time, d_model]` to the same, and the state to continue from."""
        q, k, v = self.project(x).unflatten(-1, (3, self.n_heads, -1)).unbind(2)
        position = 0 if state is None else state[0].shape[1]
        out, state = softmax_attention(rotary(q, position), rotary(k, position), v, initial_state=state)
        return self.output(out.flatten(2)), state

    def forward(self, x: Tensor) -> Tensor:
        """The whole sequence."""
        return self.mix(x)[0]

    def step(self, x_t: Tensor, state: tuple[Tensor, Tensor] | None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """One token `[batch, d_model]`."""
        y, state = self.mix(x_t.unsqueeze(1), state)
        return y.squeeze(1), state
