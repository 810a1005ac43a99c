"""Sliding-window attention after a short convolution, with a state of constant size: nothing may object."""

from torch import Tensor, nn

from engine.linear_attention.ops import ShortConvolution, rotary, sliding_window_attention


class Mixer(nn.Module):
    def __init__(self, d_model: int, n_heads: int, layer_idx: int, max_len: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.convolution = ShortConvolution(d_model, 4)
        self.project = nn.Linear(d_model, 3 * d_model, bias=False)
        self.output = nn.Linear(d_model, d_model, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.convolution(x)
        q, k, v = self.project(x).unflatten(-1, (3, self.n_heads, -1)).unbind(2)
        return self.output(sliding_window_attention(rotary(q), rotary(k), v, window=32)[0].flatten(2))
