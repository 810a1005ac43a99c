"""The recurrences: their definitions, their nestings, continuation, exact causality, stability."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from engine.linear_attention import ops
from engine.linear_attention.ops import cuda, recurrent

LENGTHS = [1, 17, 70, 128]
Inputs = dict[str, Tensor]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


def inputs_for(name: str, time: int, batch: int = 2, heads: int = 3, d_key: int = 8, d_value: int = 12) -> Inputs:
    """Random inputs of one op, by argument name."""
    shape = (batch, time, heads)
    steps = (batch, time, 2, heads) if name.startswith("delta_product") else shape
    delta = "delta" in name or name == "kda"
    k = torch.randn(*steps, d_key)
    found = {
        "q": torch.randn(*shape, d_key),
        "k": ops.l2_normalize(k) if delta else k,
        "v": torch.randn(*steps, d_value),
    }
    if name == "linear_attention_normalized":
        found["q"], found["k"] = found["q"].exp(), found["k"].exp()
    if name in ("gla", "kda"):
        found["log_decay"] = -torch.rand(*shape, d_key) * 2
    elif name in ("simple_gla", "gated_delta_rule", "delta_product_gated"):
        found["log_decay"] = -torch.rand(*shape) * 2
    if delta:
        found["beta"] = torch.rand(*steps) * 2
    return found


def windowed(q: Tensor, k: Tensor, v: Tensor, **options: Any) -> tuple[Tensor, Any]:
    return ops.sliding_window_attention(q, k, v, 5, **options)


def normalized(q: Tensor, k: Tensor, v: Tensor, **options: Any) -> tuple[Tensor, Any]:
    return ops.linear_attention(q, k, v, normalize=True, **options)


OPS: dict[str, Callable[..., tuple[Tensor, Any]]] = {
    "linear_attention": ops.linear_attention,
    "linear_attention_normalized": normalized,
    "simple_gla": ops.simple_gla,
    "gla": ops.gla,
    "delta_rule": ops.delta_rule,
    "gated_delta_rule": ops.gated_delta_rule,
    "kda": ops.kda,
    "delta_product": ops.delta_product,
    "delta_product_gated": ops.delta_product,
    "softmax_attention": ops.softmax_attention,
    "sliding_window": windowed,
}
MEMORIES = ["linear_attention", "simple_gla", "gla", "delta_rule", "gated_delta_rule", "kda"]


def assert_same_with_gradients(
    function: Callable[..., tuple[Tensor, Any]],
    reference: Callable[..., tuple[Tensor, Any]],
    inputs: Inputs,
    tolerance: float = 1e-4,
) -> None:
    """Equal outputs, final states and gradients to every input."""
    answers = []
    for call in (function, reference):
        leaves = {key: tensor.clone().requires_grad_() for key, tensor in inputs.items()}
        output, state = call(**leaves)
        generator = torch.Generator().manual_seed(1)
        objective = (output * torch.randn(output.shape, generator=generator)).sum()
        if isinstance(state, Tensor):
            objective = objective + (state * torch.randn(state.shape, generator=generator)).sum()
        found = torch.autograd.grad(objective, list(leaves.values()))
        answers.append([output, *found])
    for mine, theirs in zip(*answers, strict=True):
        scale = max(1.0, theirs.abs().max().item())
        assert (mine - theirs).abs().max().item() <= tolerance * scale


@pytest.mark.parametrize("time", LENGTHS)
@pytest.mark.parametrize("name", MEMORIES)
def test_chunk_form_is_the_token_by_token_recurrence(name: str, time: int) -> None:
    assert_same_with_gradients(OPS[name], recurrent.recurrent_memory, inputs_for(name, time))


@pytest.mark.parametrize("time", LENGTHS)
@pytest.mark.parametrize("name", ["delta_product", "delta_product_gated"])
def test_delta_product_is_its_token_by_token_recurrence(name: str, time: int) -> None:
    assert_same_with_gradients(ops.delta_product, recurrent.recurrent_delta_product, inputs_for(name, time))


@pytest.mark.parametrize("time", LENGTHS)
def test_normalised_linear_attention_is_a_weighted_mean(time: int) -> None:
    inputs = inputs_for("linear_attention_normalized", time)
    output, _ = normalized(**inputs)
    weights = torch.einsum("bthd,bshd->bhts", inputs["q"], inputs["k"]).tril()
    expected = torch.einsum("bhts,bshd->bthd", weights / weights.sum(-1, keepdim=True), inputs["v"])
    torch.testing.assert_close(output, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("window", [1, 2, 16, 33, 200])
@pytest.mark.parametrize("time", LENGTHS)
def test_sliding_window_sees_exactly_its_window(window: int, time: int) -> None:
    inputs = inputs_for("sliding_window", time)
    assert_same_with_gradients(
        lambda q, k, v: (ops.sliding_window_attention(q, k, v, window)[0], None),
        lambda q, k, v: (recurrent.windowed_softmax(q, k, v, window), None),
        inputs,
    )


def test_sliding_window_costs_time_times_window_not_time_squared() -> None:
    """The largest tensor grows with time, not with its square."""

    class Largest(torch.utils._python_dispatch.TorchDispatchMode):
        size = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = func(*args, **(kwargs or {}))
            for tensor in result if isinstance(result, tuple) else (result,):
                if isinstance(tensor, Tensor):
                    self.size = max(self.size, tensor.numel())
            return result

    sizes = []
    for time in (512, 2048):
        with Largest() as largest:
            ops.sliding_window_attention(**inputs_for("sliding_window", time), window=16)
        sizes.append(largest.size)
    assert sizes[1] <= 4.1 * sizes[0]


@pytest.mark.parametrize("cut", [1, 16, 32, 45, 69])
@pytest.mark.parametrize("name", list(OPS))
def test_continuing_from_the_state_equals_one_pass(name: str, cut: int) -> None:
    inputs = inputs_for(name, 70)
    whole, final = OPS[name](**inputs)
    before, state = OPS[name](**{key: x[:, :cut] for key, x in inputs.items()})
    after, resumed = OPS[name](**{key: x[:, cut:] for key, x in inputs.items()}, initial_state=state)
    torch.testing.assert_close(torch.cat([before, after], 1), whole, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(resumed, final, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", list(OPS))
def test_one_token_at_a_time_equals_one_pass(name: str) -> None:
    inputs = inputs_for(name, 40)
    whole, _ = OPS[name](**inputs)
    state, outputs = None, []
    for t in range(40):
        output, state = OPS[name](**{key: x[:, t : t + 1] for key, x in inputs.items()}, initial_state=state)
        outputs.append(output)
    torch.testing.assert_close(torch.cat(outputs, 1), whole, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("time", [17, 64, 70, 128])
@pytest.mark.parametrize("name", list(OPS))
def test_the_past_does_not_change_by_a_bit_when_the_future_does(name: str, time: int) -> None:
    inputs = inputs_for(name, time, heads=2, d_key=32, d_value=32)
    output, _ = OPS[name](**inputs)
    other = inputs_for(name, time, heads=2, d_key=32, d_value=32)
    for t in {1, 7, 8, 16, time // 2 + 1, time - 1}:
        changed = {key: torch.cat([x[:, :t], 3 * other[key][:, t:]], 1) for key, x in inputs.items()}
        assert torch.equal(OPS[name](**changed)[0][:, :t], output[:, :t]), t


@pytest.mark.parametrize("name", list(OPS))
def test_sequences_of_a_batch_do_not_see_each_other(name: str) -> None:
    inputs = inputs_for(name, 70, batch=3, heads=2, d_key=32, d_value=32)
    output, _ = OPS[name](**inputs)
    changed = {key: x.clone() for key, x in inputs.items()}
    for x in changed.values():
        x[1] = x[1] * 0.5
    found = OPS[name](**changed)[0]
    assert torch.equal(found[0], output[0])
    assert torch.equal(found[2], output[2])
    assert not torch.equal(found[1], output[1])


@pytest.mark.parametrize("time", [17, 70])
def test_special_cases_agree(time: int) -> None:
    """Every op reduces to the simpler one inside it when its extra freedom is switched off."""
    data = inputs_for("kda", time)
    q, k, v, beta = data["q"], data["k"], data["v"], data["beta"]
    per_head = -torch.rand(q.shape[:3]) * 2
    per_channel = per_head.unsqueeze(-1).expand(q.shape)
    none, no_channel = torch.zeros_like(per_head), torch.zeros_like(q)

    def same(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor], tolerance: float) -> None:
        torch.testing.assert_close(one, other, atol=tolerance, rtol=tolerance)

    same(ops.simple_gla(q, k, v, none), ops.linear_attention(q, k, v), 0)
    same(ops.gla(q, k, v, no_channel), ops.linear_attention(q, k, v), 2e-6)
    same(ops.gla(q, k, v, per_channel), ops.simple_gla(q, k, v, per_head), 2e-6)
    same(ops.gated_delta_rule(q, k, v, none, beta), ops.delta_rule(q, k, v, beta), 0)
    same(ops.kda(q, k, v, no_channel, beta), ops.delta_rule(q, k, v, beta), 1e-5)
    same(ops.kda(q, k, v, per_channel, beta), ops.gated_delta_rule(q, k, v, per_head, beta), 1e-5)
    one_step = (q, k.unsqueeze(2), v.unsqueeze(2), beta.unsqueeze(2))
    same(ops.delta_product(*one_step), ops.delta_rule(q, k, v, beta), 0)
    same(ops.delta_product(*one_step, per_head), ops.gated_delta_rule(q, k, v, per_head, beta), 0)
    full = ops.softmax_attention(q, k, v)[0]
    torch.testing.assert_close(ops.sliding_window_attention(q, k, v, time)[0], full, atol=2e-6, rtol=2e-6)


def test_orthonormal_keys_are_recalled_exactly_by_the_delta_rule_after_an_overwrite() -> None:
    """Writing a key twice keeps only the newer value; linear attention returns the sum of both."""
    keys = torch.eye(4)[[0, 1, 2, 1]].reshape(1, 4, 1, 4)
    values = torch.arange(8.0).reshape(1, 4, 1, 2)
    ask = torch.eye(4)[1].expand(1, 4, 1, 4)
    recalled, _ = ops.delta_rule(ask, keys, values, torch.ones(1, 4, 1), scale=1.0)
    added, _ = ops.linear_attention(ask, keys, values, scale=1.0)
    assert torch.equal(recalled[0, 3, 0], values[0, 3, 0])
    assert torch.equal(added[0, 3, 0], values[0, 1, 0] + values[0, 3, 0])


@pytest.mark.parametrize("decay", [-20.0, -1e4, -torch.inf])
@pytest.mark.parametrize("name", ["simple_gla", "gla", "gated_delta_rule", "kda"])
def test_strong_decay_neither_overflows_nor_loses_accuracy(name: str, decay: float) -> None:
    """Every third step forgets (almost) everything; the others hardly anything."""
    inputs = inputs_for(name, 70)
    log_decay = torch.full_like(inputs["log_decay"], -0.01)
    log_decay[:, ::3] = decay
    inputs["log_decay"] = log_decay
    expected, _ = recurrent.recurrent_memory(**inputs)
    torch.testing.assert_close(OPS[name](**inputs)[0], expected, atol=1e-3, rtol=1e-3)
    inputs["log_decay"] = log_decay.clamp_min(-1e4).requires_grad_()
    OPS[name](**inputs)[0].sum().backward()
    assert inputs["log_decay"].grad is not None
    assert inputs["log_decay"].grad.isfinite().all()


@pytest.mark.parametrize("name", list(OPS))
def test_finite_on_long_sequences_and_large_inputs(name: str) -> None:
    inputs = inputs_for(name, 1024, batch=1)
    inputs["v"] = inputs["v"] * 1e4
    if "delta" not in name and name != "kda":
        inputs["q"], inputs["k"] = inputs["q"] * 1e4, inputs["k"] * 1e4
    output, state = OPS[name](**inputs)
    assert output.isfinite().all()
    for part in state if isinstance(state, tuple) else (state,):
        assert part.isfinite().all()


@pytest.mark.parametrize("name", MEMORIES)
def test_half_precision_and_autocast_run_in_float32_inside(name: str) -> None:
    inputs = inputs_for(name, 40)
    half = {key: x.bfloat16() for key, x in inputs.items()}
    rounded = {key: x.float() for key, x in half.items()}
    output, state = OPS[name](**half)
    expected, _ = OPS[name](**rounded)
    assert output.dtype == torch.bfloat16
    assert state.dtype == torch.float32
    assert torch.equal(output, expected.bfloat16())
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(OPS[name](**inputs)[0], OPS[name](**inputs)[0].float())
        inside = OPS[name](**inputs)[0]
    assert torch.equal(inside, OPS[name](**inputs)[0])


@pytest.mark.parametrize("name", list(OPS))
def test_shapes_come_out_right_on_the_meta_device(name: str) -> None:
    """Costs are counted there, without computing anything."""
    inputs = inputs_for(name, 70)
    output, _ = OPS[name](**{key: x.to("meta") for key, x in inputs.items()})
    assert output.shape == OPS[name](**inputs)[0].shape


def test_shapes_that_do_not_fit_are_refused_by_name() -> None:
    inputs = inputs_for("kda", 8)
    with pytest.raises(ValueError, match="log_decay must have the shape"):
        ops.gla(inputs["q"], inputs["k"], inputs["v"], inputs["log_decay"][..., 0])
    with pytest.raises(ValueError, match="beta must have the shape"):
        ops.delta_rule(inputs["q"], inputs["k"], inputs["v"], inputs["beta"].unsqueeze(-1))
    with pytest.raises(ValueError, match="v must be"):
        ops.linear_attention(inputs["q"], inputs["k"], inputs["v"][:, :4])
    with pytest.raises(ValueError, match="initial_state must have the shape"):
        ops.linear_attention(inputs["q"], inputs["k"], inputs["v"], initial_state=torch.zeros(1))
    with pytest.raises(ValueError, match="window must be at least 1"):
        ops.sliding_window_attention(inputs["q"], inputs["k"], inputs["v"], 0)


@pytest.mark.parametrize(("time", "kernel"), itertools.product([1, 5, 40], [1, 4]))
def test_causal_convolution_is_the_sum_of_its_taps(time: int, kernel: int) -> None:
    x, weight, bias = torch.randn(2, time, 6), torch.randn(6, kernel), torch.randn(6)
    y, state = ops.causal_convolution(x, weight, bias)
    expected = torch.nn.functional.conv1d(x.mT, weight.unsqueeze(1), bias, padding=kernel - 1, groups=6)
    torch.testing.assert_close(y, expected[..., :time].mT, atol=1e-5, rtol=1e-5)
    assert state.shape == (2, kernel - 1, 6)
    layer, memory, outputs = ops.ShortConvolution(6, kernel), None, []
    for t in range(time):
        part, memory = layer.run(x[:, t : t + 1], memory)
        outputs.append(part)
    torch.testing.assert_close(torch.cat(outputs, 1), layer(x), atol=1e-6, rtol=1e-6)


def test_rotary_scores_depend_only_on_distance() -> None:
    q, k = torch.randn(1, 1, 1, 8), torch.randn(1, 1, 1, 8)
    near = (ops.rotary(q, 5) * ops.rotary(k, 2)).sum()
    far = (ops.rotary(q, 105) * ops.rotary(k, 102)).sum()
    torch.testing.assert_close(near, far, atol=1e-4, rtol=1e-4)
    x = torch.randn(1, 9, 2, 8)
    torch.testing.assert_close(ops.rotary(x)[:, 4:], ops.rotary(x[:, 4:], offset=4))
    with pytest.raises(ValueError, match="even number"):
        ops.rotary(torch.randn(1, 2, 1, 7))


def test_features_and_gates_keep_their_promises() -> None:
    x, y = 5 * torch.randn(50, 6), torch.randn(50, 6)
    for feature in (ops.elu_plus_one, ops.relu_feature, ops.squared_relu, ops.softmax_feature, ops.hedgehog_feature):
        assert (feature(x) >= 0).all()
    similarity = (y * y.roll(1, 0)).sum(-1) / 6**0.5
    product = (ops.taylor_feature(y) * ops.taylor_feature(y.roll(1, 0))).sum(-1)
    torch.testing.assert_close(product, 1 + similarity + similarity**2 / 2, atol=1e-5, rtol=1e-5)
    assert ops.l2_normalize(torch.zeros(3, 4)).abs().max() == 0
    torch.testing.assert_close(ops.l2_normalize(x).norm(dim=-1), torch.ones(50), atol=1e-4, rtol=1e-4)
    assert (ops.log_sigmoid_gate(100 * x) <= 0).all()
    assert (ops.log_sigmoid_gate(100 * x, low=-1) >= -1).all()
    assert ((ops.bounded_gate(100 * x) <= 0) & (ops.bounded_gate(100 * x) >= -5)).all()
    half_lives = torch.log(torch.tensor(0.5)) / ops.softplus_gate(torch.zeros(3), ops.log_rates(3, 16, 1024))
    torch.testing.assert_close(half_lives, torch.tensor([16.0, 128.0, 1024.0]), atol=1e-2, rtol=1e-4)
    normalised = ops.RMSNorm(6)(x)
    torch.testing.assert_close(ops.GatedRMSNorm(6)(x, y), normalised * y.sigmoid())
    torch.testing.assert_close(ops.GatedRMSNorm(6, "silu")(x, y), normalised * torch.nn.functional.silu(y))


def test_tensors_on_the_cpu_never_ask_for_a_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(package: str, name: str) -> Callable[..., Any]:
        raise AssertionError(f"{package}.{name} was asked for")

    monkeypatch.setattr(cuda, "fla_kernel", refuse)
    ops.gla(**inputs_for("gla", 64))
