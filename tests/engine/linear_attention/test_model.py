"""The backbone keeps every program at the same number of parameters and adds no leak of its own."""

import math

import pytest
import torch
from torch import nn

from engine.linear_attention import baselines, budget
from engine.linear_attention.model import ShortConvolution, build_model, rate_factor
from engine.linear_attention.program import load_mixer
from engine.linear_attention.tiers import TIERS, max_length, reference_parameters

TIER = TIERS["probe"]


class Plain(nn.Module):
    def __init__(self, d_model: int, n_heads: int, layer_idx: int, max_len: int, width: int = 1) -> None:
        super().__init__()
        self.mix = nn.Sequential(nn.Linear(d_model, width * d_model), nn.Linear(width * d_model, d_model))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.mix(x)


@pytest.mark.parametrize("name", baselines.names())
@pytest.mark.parametrize("task", ["recall", "bytes"])
def test_every_baseline_has_the_reference_size(name: str, task: str) -> None:
    plan = TIER.plan(task)
    model = build_model(load_mixer(baselines.source(name)), TIER, plan, seed=0)
    assert abs(budget.count_parameters(model) / reference_parameters(TIER, plan) - 1) < 0.01


def test_a_mixer_that_leaves_no_room_is_refused_with_the_limit() -> None:
    with pytest.raises(ValueError, match="at most"):
        build_model(lambda *sizes: Plain(*sizes, width=20), TIER, TIER.plan("recall"), seed=0)


def test_widths_of_layers_differ_by_at_most_one() -> None:
    hidden = budget.match_mlp_hidden(100_000, 10_000, [4_000, 4_000, 4_100], 32)
    assert max(hidden) - min(hidden) <= 1
    assert abs(10_000 + 12_100 + 3 * 32 * sum(hidden) - 100_000) <= 3 * 32 / 2


def test_backbones_start_alike_whatever_the_mixer_draws() -> None:
    plan = TIER.plan("recall")
    first = build_model(load_mixer(baselines.source("deltanet")), TIER, plan, seed=3)
    second = build_model(load_mixer(baselines.source("softmax_attention")), TIER, plan, seed=3)
    other = build_model(load_mixer(baselines.source("softmax_attention")), TIER, plan, seed=4)
    assert torch.equal(first.head.weight, second.head.weight) or first.blocks[0].mlp.inner.weight.shape != (
        second.blocks[0].mlp.inner.weight.shape
    )
    assert torch.equal(first.blocks[0].convolution.weight, second.blocks[0].convolution.weight)
    assert not torch.equal(second.head.weight, other.head.weight)


def test_short_convolution_is_causal_and_reaches_three_back() -> None:
    convolution = ShortConvolution(4)
    x = torch.randn(2, 9, 4)
    changed = x.clone()
    changed[:, 5] += 1
    difference = (convolution(x) - convolution(changed)).abs().amax((0, 2))
    assert (difference[:5] == 0).all()
    assert (difference[5:9] > 0).all()
    longer = torch.cat([changed, torch.randn(2, 3, 4)], 1)
    assert torch.equal(convolution(longer)[:, :9], convolution(changed))


def test_a_mixer_that_changes_the_shape_is_refused() -> None:
    class Narrow(Plain):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x[:, :-1]

    model = build_model(Narrow, TIER, TIER.plan("recall"), seed=0)
    with pytest.raises(ValueError, match="mixer returned"):
        model(torch.zeros(2, 8, dtype=torch.long))


def test_flops_of_a_linear_layer_are_two_per_multiply_add() -> None:
    assert budget.forward_flops(nn.Linear(32, 64, bias=False), torch.randn(10, 32)) == 2 * 10 * 32 * 64


@pytest.mark.parametrize("name", ["softmax_attention", "deltanet"])
def test_flops_show_what_is_quadratic(name: str) -> None:
    mixer = load_mixer(baselines.source(name))(64, 2, 0, 4096)
    short, long = (budget.forward_flops(mixer, torch.randn(1, time, 64)) for time in (512, 2048))
    exponent = math.log(long / short) / math.log(4)
    assert (exponent > 1.3) == (name == "softmax_attention")


def test_elementwise_and_fourier_work_is_not_free() -> None:
    class Elementwise(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (x[:, :, None] * x[:, None]).tril().sum(2)

    class Fourier(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.fft.irfft(torch.fft.rfft(x, dim=1), n=x.shape[1], dim=1)

    x = torch.randn(1, 128, 8)
    assert budget.forward_flops(Elementwise(), x) >= 128 * 128 * 8
    assert budget.forward_flops(Fourier(), x) > 10 * x.numel()


def test_state_is_counted_through_step() -> None:
    deltanet = load_mixer(baselines.source("deltanet"))(64, 2, 0, max_length(TIER.plan("recall")))
    assert budget.state_floats(deltanet, 64) >= 2 * 32 * 32
    assert budget.state_floats(Plain(64, 2, 0, 8), 64) == 0


def test_learning_rate_rises_then_falls() -> None:
    rates = [rate_factor(step, 100) for step in range(100)]
    assert rates[:10] == sorted(rates[:10])
    assert rates[9] == 1.0
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert 0.1 <= rates[-1] < 0.11
