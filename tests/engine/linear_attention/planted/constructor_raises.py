"""Cannot be constructed."""

from torch import Tensor, nn


class Mixer(nn.Module):
    def __init__(self, d_model: int, n_heads: int, layer_idx: int, max_len: int) -> None:
        super().__init__()
        self.project = nn.Linear(d_model, d_modle)  # noqa: F821

    def forward(self, x: Tensor) -> Tensor:
        return self.project(x)
