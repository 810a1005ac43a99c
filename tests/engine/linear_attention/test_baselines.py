"""Each baseline as a program: it loads, learns, is causal, decodes, and stays within its own sequence."""

from __future__ import annotations

import ast
import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn

from engine.linear_attention import baselines
from engine.linear_attention.program import load_mixer

ALLOWED = {"torch", "math", "typing", "dataclasses", "einops", "engine.linear_attention.ops"}
NAMES = baselines.names()


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


def build(name: str, d_model: int = 64, n_heads: int = 2, jitter: float = 0.0) -> nn.Module:
    mixer = load_mixer(baselines.source(name))(d_model, n_heads, 0, 128)
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter.add_(jitter * torch.randn_like(parameter))
    return mixer


def test_names_sources_and_descriptions_belong_together() -> None:
    assert {"softmax_attention", "deltanet", "gated_deltanet", "mamba2", "gla", "retnet"} <= set(NAMES)
    for name in NAMES:
        assert "class Mixer(nn.Module)" in baselines.source(name)
        assert len(baselines.DESCRIPTIONS[name]) <= 100
    with pytest.raises(KeyError, match="no baseline"):
        baselines.source("../program")


def test_listing_baselines_does_not_load_torch() -> None:
    code = "import sys, engine.linear_attention.baselines as b; b.source('gla'); sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize("name", NAMES)
def test_imports_only_what_a_program_may(name: str) -> None:
    for node in ast.walk(ast.parse(baselines.source(name))):
        if isinstance(node, ast.Import):
            assert {alias.name.split(".")[0] for alias in node.names} <= ALLOWED
        if isinstance(node, ast.ImportFrom):
            module = node.module or ""
            assert module in ALLOWED or module.split(".")[0] in ALLOWED


@pytest.mark.parametrize("time", [1, 17, 64, 70])
@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_learns(name: str, time: int) -> None:
    mixer = build(name)
    x = torch.randn(3, time, 64, requires_grad=True)
    y = mixer(x)
    assert y.shape == x.shape
    assert y.isfinite().all()
    (y * torch.randn_like(y)).sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    for label, parameter in mixer.named_parameters():
        assert parameter.grad is not None, label
        assert parameter.grad.isfinite().all(), label
        if time > 1:
            assert parameter.grad.abs().max() > 0, label


@pytest.mark.parametrize("jitter", [0.0, 0.3])
@pytest.mark.parametrize("name", NAMES)
def test_exactly_causal(name: str, jitter: float) -> None:
    mixer = build(name, jitter=jitter)
    for time in (17, 64, 70, 128):
        x = torch.randn(2, time, 64)
        y = mixer(x)
        for t in (1, 16, time // 2 + 1, time - 1):
            changed = torch.cat([x[:, :t], 3 * torch.randn(2, time - t, 64)], 1)
            assert torch.equal(mixer(changed)[:, :t], y[:, :t]), (time, t)
            assert (mixer(x[:, :t]) - y[:, :t]).abs().max() < 1e-4, (time, t)


@pytest.mark.parametrize("name", NAMES)
def test_sequences_of_a_batch_do_not_see_each_other(name: str) -> None:
    mixer = build(name)
    x = torch.randn(3, 70, 64)
    changed = x.clone()
    changed[1] = torch.randn(70, 64)
    assert torch.equal(mixer(changed)[[0, 2]], mixer(x)[[0, 2]])


@pytest.mark.parametrize("name", NAMES)
def test_decoding_token_by_token_gives_the_same(name: str) -> None:
    mixer = build(name, jitter=0.1)
    x = torch.randn(2, 70, 64)
    y, state, outputs = mixer(x), None, []
    for t in range(70):
        output, state = mixer.step(x[:, t], state)
        outputs.append(output)
    assert (torch.stack(outputs, 1) - y).abs().max() <= 1e-4


@pytest.mark.parametrize("name", [name for name in NAMES if name != "softmax_attention"])
def test_the_decoding_state_does_not_grow(name: str) -> None:
    mixer = build(name)

    def floats(state: Tensor | tuple) -> int:
        return sum(part.numel() for part in (state if isinstance(state, tuple) else (state,)) if hasattr(part, "numel"))

    _, state = mixer.step(torch.randn(1, 64), None)
    first = floats(state)
    for _ in range(5):
        _, state = mixer.step(torch.randn(1, 64), state)
    assert floats(state) == first > 0


@pytest.mark.parametrize("name", NAMES)
def test_finite_at_eight_times_the_length_and_on_large_inputs(name: str) -> None:
    mixer = build(name)
    assert mixer(torch.randn(1, 1024, 64)).isfinite().all()
    assert mixer(1e3 * torch.randn(1, 128, 64)).isfinite().all()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def Mixer(", "does not compile"),
        ("x = 1\0", "does not compile"),
        ("x = 1", "no class named Mixer"),
        ("class Mixer: ...", "derives from torch.nn.Module"),
        ("Mixer = 3", "derives from torch.nn.Module"),
    ],
)
def test_a_source_without_a_mixer_is_refused(source: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_mixer(source)


def test_programs_may_use_dataclasses_and_do_not_share_their_names() -> None:
    source = """
import dataclasses
from torch import nn
@dataclasses.dataclass
class State:
    size: "int"
class Mixer(nn.Module):
    state = State(WIDTH)
"""
    assert load_mixer(f"WIDTH = 1\n{source}").state.size == 1  # type: ignore[attr-defined]
    assert load_mixer(f"WIDTH = 2\n{source}").state.size == 2  # type: ignore[attr-defined]
    with pytest.raises(NameError):
        load_mixer(source)
