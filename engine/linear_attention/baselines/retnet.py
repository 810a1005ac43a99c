"""RetNet (Sun et al. 2023).

The output gate is a sigmoid, which learns sooner at small budgets than the published silu.
"""

from torch import Tensor, nn

from engine.linear_attention.ops import GatedRMSNorm, retention_decay, rotary, simple_gla


class Mixer(nn.Module):
    """Each head forgets at a constant rate of its own; positions are rotations of queries and keys."""

    log_decay: Tensor

    def __init__(self, d_model: int, n_heads: int, layer_idx: int, max_len: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.project = nn.Linear(d_model, 4 * d_model, bias=False)
        self.norm = GatedRMSNorm(d_model // n_heads)
        self.output = nn.Linear(d_model, d_model, bias=False)
        self.register_buffer("log_decay", retention_decay(n_heads), persistent=False)

    def mix(self, x: Tensor, state: tuple[Tensor, int] | None = None) -> tuple[Tensor, tuple[Tensor, int]]:
        """`[batch, time, d_model]` to the same, and the state to continue from: the memory and the position."""
        memory, position = (None, 0) if state is None else state
        q, k, v, gate = self.project(x).unflatten(-1, (4, self.n_heads, -1)).unbind(2)
        log_decay = self.log_decay.expand(q.shape[:3])
        out, memory = simple_gla(rotary(q, position), rotary(k, position), v, log_decay, initial_state=memory)
        return self.output(self.norm(out, gate).flatten(2)), (memory, position + x.shape[1])

    def forward(self, x: Tensor) -> Tensor:
        """The whole sequence."""
        return self.mix(x)[0]

    def step(self, x_t: Tensor, state: tuple[Tensor, int] | None) -> tuple[Tensor, tuple[Tensor, int]]:
        """One token `[batch, d_model]`."""
        y, state = self.mix(x_t.unsqueeze(1), state)
        return y.squeeze(1), state
