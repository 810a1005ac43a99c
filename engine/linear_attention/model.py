"""The fixed backbone around a mixer, and its fixed optimiser. A program brings the mixer and nothing else.

Embedding, then per layer `x + Mixer(Conv(RMSNorm(x)))` and `x + SwiGLU(RMSNorm(x))`, then RMSNorm and a linear head.
Whether there is a convolution is the task's decision and the same for every mixer.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.linear_attention.budget import count_parameters, match_mlp_hidden
from engine.linear_attention.tasks import TASKS, Plan, public_seed
from engine.linear_attention.tiers import (
    CONVOLUTION_WIDTH,
    Tier,
    backbone_parameters,
    max_length,
    reference_parameters,
)

MixerFactory = Callable[[int, int, int, int], nn.Module]

WEIGHT_DECAY = 0.01
WARMUP = 0.1
FINAL_RATE = 0.1
GRADIENT_CLIP = 1.0


class ShortConvolution(nn.Module):
    """Causal depthwise convolution with a residual path, `[batch, time, d_model]` → the same."""

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(CONVOLUTION_WIDTH, d_model).uniform_(-0.5, 0.5))

    def forward(self, x: Tensor) -> Tensor:
        """Mix every channel with its last few values."""
        time = x.shape[1]
        padded = F.pad(x, (0, 0, CONVOLUTION_WIDTH - 1, 0))
        taps = [padded[:, tap : tap + time] * self.weight[tap] for tap in range(CONVOLUTION_WIDTH)]
        return x + torch.stack(taps).sum(0)


class SwiGLU(nn.Module):
    """Gated MLP of Shazeer (2020), without biases, `[batch, time, d_model]` → the same."""

    def __init__(self, d_model: int, hidden: int) -> None:
        super().__init__()
        self.inner = nn.Linear(d_model, 2 * hidden, bias=False)
        self.outer = nn.Linear(hidden, d_model, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Transform every position by itself."""
        gate, value = self.inner(x).chunk(2, dim=-1)
        return self.outer(F.silu(gate) * value)


class Block(nn.Module):
    """Pre-norm residual block: token mixing, then channel mixing."""

    def __init__(self, d_model: int, mixer: nn.Module, hidden: int, short_convolution: bool) -> None:
        super().__init__()
        self.mixer_norm = nn.RMSNorm(d_model, eps=1e-6)
        self.convolution = ShortConvolution(d_model) if short_convolution else None
        self.mixer = mixer
        self.mlp_norm = nn.RMSNorm(d_model, eps=1e-6)
        self.mlp = SwiGLU(d_model, hidden)

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, time, d_model]` → the same. Raises ValueError when the mixer changes the shape."""
        inner = self.mixer_norm(x)
        mixed = self.mixer(inner if self.convolution is None else self.convolution(inner))
        if not isinstance(mixed, Tensor) or mixed.shape != x.shape:
            raise ValueError(f"the mixer returned {getattr(mixed, 'shape', type(mixed))} for an input of {x.shape}")
        x = x + mixed
        return x + self.mlp(self.mlp_norm(x))


class Backbone(nn.Module):
    """The whole model, tokens `[batch, time]` → logits `[batch, time, vocabulary]`."""

    def __init__(self, vocabulary: int, d_model: int, blocks: list[Block]) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, d_model)
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.RMSNorm(d_model, eps=1e-6)
        self.head = nn.Linear(d_model, vocabulary, bias=False)
        nn.init.normal_(self.embedding.weight, std=1.0)
        nn.init.normal_(self.head.weight, std=d_model**-0.5)

    def forward(self, tokens: Tensor) -> Tensor:
        """Predict the target of every position."""
        x = self.embedding(tokens)
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.head(self.norm(x))
        return logits


def build_model(factory: MixerFactory, tier: Tier, plan: Plan, seed: int) -> Backbone:
    """The model of one trial; backbone and mixers are seeded apart, so that backbones start alike for every program.

    Raises ValueError when the mixer is too large for the matched budget.
    """
    mixers = []
    for layer in range(tier.n_layers):
        torch.manual_seed(public_seed("mixer", plan.task, seed, layer))
        mixers.append(factory(tier.d_model, tier.n_heads, layer, max_length(plan)))
    sizes = [count_parameters(mixer) for mixer in mixers]
    backbone = backbone_parameters(tier, plan)
    hidden = match_mlp_hidden(reference_parameters(tier, plan), backbone, sizes, tier.d_model)
    torch.manual_seed(public_seed("backbone", plan.task, seed))
    blocks = [
        Block(tier.d_model, mixer, width, plan.short_convolution) for mixer, width in zip(mixers, hidden, strict=True)
    ]
    return Backbone(TASKS[plan.task].vocabulary, tier.d_model, blocks)


def build_optimizer(model: nn.Module, learning_rate: float) -> torch.optim.Optimizer:
    """AdamW; matrices decay, vectors (norms, biases, decay rates) do not."""
    matrices = [parameter for parameter in model.parameters() if parameter.requires_grad and parameter.ndim >= 2]
    vectors = [parameter for parameter in model.parameters() if parameter.requires_grad and parameter.ndim < 2]
    groups = [{"params": matrices, "weight_decay": WEIGHT_DECAY}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=learning_rate, betas=(0.9, 0.95), fused=True)


def rate_factor(step: int, steps: int) -> float:
    """Share of the peak learning rate at `step` (from 0): linear warm-up, then cosine down to `FINAL_RATE`."""
    warmup = max(1, round(WARMUP * steps))
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return FINAL_RATE + (1 - FINAL_RATE) * 0.5 * (1 + math.cos(math.pi * progress))
