"""A long convolution by a padded Fourier transform: causal to the reader, but T log T and never exact."""

import torch
from torch import Tensor, nn


class Mixer(nn.Module):
    def __init__(self, d_model: int, n_heads: int, layer_idx: int, max_len: int) -> None:
        super().__init__()
        self.value = nn.Linear(d_model, d_model, bias=False)
        self.gate = nn.Linear(d_model, d_model)
        self.filter = nn.Parameter(torch.randn(d_model, max_len) * torch.exp(-torch.arange(max_len) / 16))

    def past(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.gate(x)) * self.value(x).cumsum(dim=1) / 16

    def forward(self, x: Tensor) -> Tensor:
        y = self.past(x)
        length = x.shape[1]
        spectrum = torch.fft.rfft(x.transpose(1, 2), n=2 * length) * torch.fft.rfft(
            self.filter[:, :length], n=2 * length
        )
        return y + torch.fft.irfft(spectrum, n=2 * length)[..., :length].transpose(1, 2)
