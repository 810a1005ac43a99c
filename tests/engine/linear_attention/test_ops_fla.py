"""The recurrences against the naive references of flash-linear-attention, and the arguments of its kernels."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from engine.linear_attention import ops
from engine.linear_attention.ops import cuda
from tests.engine.linear_attention.test_ops import LENGTHS, assert_same_with_gradients, inputs_for

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="fla.ops cannot be imported without triton"),
    pytest.mark.skipif(importlib.util.find_spec("fla") is None, reason="flash-linear-attention is not installed"),
    pytest.mark.filterwarnings("ignore"),
]


def naive(package: str, name: str) -> Callable[..., Any]:
    return getattr(importlib.import_module(f"fla.ops.{package}.naive"), name)


def reference(name: str) -> Callable[..., tuple[Tensor, Any]]:
    """fla's token-by-token reference with our argument names."""
    if name == "linear_attention":
        recurrent = naive("simple_gla", "naive_recurrent_simple_gla")
        return lambda q, k, v: recurrent(q, k, v, torch.zeros_like(q[..., 0]))
    if name == "simple_gla":
        recurrent = naive("simple_gla", "naive_recurrent_simple_gla")
        return lambda q, k, v, log_decay: recurrent(q, k, v, log_decay)
    if name == "gla":
        recurrent = naive("gla", "naive_recurrent_gla")
        # Its output buffer has the shape of v and its loop writes in place, as all of them do.
        return lambda q, k, v, log_decay: recurrent(q, k, v, log_decay, output_final_state=True)
    if name == "delta_rule":
        recurrent = naive("delta_rule", "delta_rule_recurrence")

        def delta_rule(q: Tensor, k: Tensor, v: Tensor, beta: Tensor) -> tuple[Tensor, Any]:
            output, state = recurrent(*(x.transpose(1, 2) for x in (q, k, v, beta)))
            return output.transpose(1, 2), state

        return delta_rule
    if name == "gated_delta_rule":
        recurrent = naive("gated_delta_rule", "naive_recurrent_gated_delta_rule")
        return lambda q, k, v, log_decay, beta: recurrent(q, k, v, beta, log_decay, output_final_state=True)
    if name == "kda":
        recurrent = naive("kda", "naive_recurrent_kda")
        return lambda q, k, v, log_decay, beta: recurrent(q, k, v, log_decay, beta, output_final_state=True)
    recurrent = naive("gated_delta_product", "naive_recurrent_gated_delta_product")

    def delta_product(q: Tensor, k: Tensor, v: Tensor, beta: Tensor, log_decay: Tensor | None = None) -> Any:
        flat = (x.flatten(1, 2) for x in (k, v))
        return recurrent(q, *flat, log_decay, beta.flatten(1, 2), q.shape[-1] ** -0.5, num_householder=k.shape[2])

    return delta_product


OPS: dict[str, Callable[..., tuple[Tensor, Any]]] = {
    "linear_attention": ops.linear_attention,
    "simple_gla": ops.simple_gla,
    "gla": ops.gla,
    "delta_rule": ops.delta_rule,
    "gated_delta_rule": ops.gated_delta_rule,
    "kda": ops.kda,
    "delta_product": ops.delta_product,
    "delta_product_gated": ops.delta_product,
}


@pytest.mark.parametrize("time", LENGTHS)
@pytest.mark.parametrize("name", list(OPS))
def test_values_and_gradients_match_the_naive_reference(name: str, time: int) -> None:
    torch.manual_seed(time)
    torch.set_num_threads(1)
    assert_same_with_gradients(OPS[name], reference(name), inputs_for(name, time))


@pytest.mark.parametrize("normalize", [False, True])
def test_linear_attention_matches_the_naive_chunk_reference(normalize: bool) -> None:
    torch.manual_seed(0)
    inputs = inputs_for("linear_attention_normalized", 128)
    expected = naive("linear_attn", "naive_chunk_linear_attn")(**inputs, normalize=normalize)
    output, _ = ops.linear_attention(**inputs, normalize=normalize)
    torch.testing.assert_close(output, expected, atol=1e-4, rtol=1e-4)


KERNELS = {
    "linear_attention": ("linear_attn", "chunk_linear_attn"),
    "simple_gla": ("simple_gla", "chunk_simple_gla"),
    "gla": ("gla", "chunk_gla"),
    "delta_rule": ("delta_rule", "chunk_delta_rule"),
    "gated_delta_rule": ("gated_delta_rule", "chunk_gated_delta_rule"),
    "kda": ("kda", "chunk_kda"),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", list(cuda.KERNELS))
def test_the_kernel_is_called_with_arguments_it_names(
    name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No GPU here: the real kernel's signature accepts the call, and the naive reference stands in for its result."""
    asked = []

    def stand_in(package: str, kernel: str) -> Callable[..., Any]:
        signature = inspect.signature(inspect.unwrap(getattr(importlib.import_module(f"fla.ops.{package}"), kernel)))

        def call(*args: Any, **kwargs: Any) -> Any:
            bound = signature.bind(*args, **kwargs).arguments
            assert "kwargs" not in bound, bound["kwargs"]
            assert bound["output_final_state"] is True
            asked.append((package, kernel))
            chosen = next(op for op, pair in KERNELS.items() if pair == (package, kernel))
            wanted = {"log_decay": "g"}
            names = [key for key in ("q", "k", "v", "log_decay", "beta") if wanted.get(key, key) in bound]
            return reference(chosen)(**{key: bound[wanted.get(key, key)] for key in names})

        return call

    monkeypatch.setattr(cuda, "fla_kernel", stand_in)
    inputs = {key: x.to(dtype) for key, x in inputs_for(name, 40).items()}
    output, _ = cuda.KERNELS[name](**inputs)
    expected, _ = OPS[name](**{key: x.float() for key, x in inputs.items()})
    torch.testing.assert_close(output.float(), expected, atol=0.05 if dtype == torch.bfloat16 else 1e-4, rtol=0.02)
    fallback = name == "delta_rule" and dtype == torch.float32
    assert asked == [KERNELS["gated_delta_rule" if fallback else name]]


def test_every_kernel_takes_what_its_recurrence_takes() -> None:
    for name, kernel in cuda.KERNELS.items():
        assert inspect.signature(kernel).parameters.keys() == inspect.signature(OPS[name]).parameters.keys()


def test_no_kernel_without_a_cuda_device() -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    cuda.available.cache_clear()
    assert not cuda.available()
    assert cuda.kernel_for("gla", torch.zeros(1, 64, 1, 8)) is None
