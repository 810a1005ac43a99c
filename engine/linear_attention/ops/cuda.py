"""The same recurrences through fla's Triton kernels, for tensors on an NVIDIA GPU.

Each function here has the name and the signature of the recurrence it replaces. `kernel_for` looks for them only when
a tensor is on CUDA, because importing fla without a GPU succeeds and proves nothing, and importing its kernels takes
seconds. Without fla, and for calls too short for a kernel (decoding), the pure PyTorch forms run on the GPU too.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

SHORTEST_KERNEL_CALL = 16


def kernel_for(name: str, q: Tensor) -> Callable[..., Any] | None:
    """The kernel for the recurrence `name` on q's device, or None where the PyTorch form should run."""
    if not q.is_cuda or q.shape[1] < SHORTEST_KERNEL_CALL or q.dtype == torch.float64 or not available():
        return None
    return KERNELS.get(name)


@functools.cache
def available() -> bool:
    """Whether fla's kernels can run here: a CUDA device, Triton, and fla's operators really importable."""
    if not torch.cuda.is_available():
        return False
    try:
        fla_kernel("simple_gla", "chunk_simple_gla")
    except (ImportError, AttributeError):
        return False
    return True


def fla_kernel(package: str, name: str) -> Callable[..., Any]:
    """One of fla's operators, imported when first asked for."""
    return getattr(importlib.import_module(f"fla.ops.{package}"), name)


def linear_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    normalize: bool = False,
    initial_state: Tensor | tuple[Tensor, Tensor] | None = None,
    scale: float | None = None,
) -> tuple[Tensor, Any]:
    """`additive.linear_attention`; fla keeps an axis of length 1 in its normaliser state, which is removed here."""
    if isinstance(initial_state, tuple):
        initial_state = (initial_state[0], initial_state[1].unsqueeze(1))
    output, state = fla_kernel("linear_attn", "chunk_linear_attn")(
        q, k, v, scale=scale, initial_state=initial_state, output_final_state=True, normalize=normalize
    )
    return output, (state[0], state[1].squeeze(1)) if normalize else state


def simple_gla(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor,
    *,
    initial_state: Tensor | None = None,
    scale: float | None = None,
) -> tuple[Tensor, Tensor]:
    """`additive.simple_gla`."""
    output, state = fla_kernel("simple_gla", "chunk_simple_gla")(
        q, k, v, g=log_decay.contiguous(), scale=scale, initial_state=initial_state, output_final_state=True
    )
    return output, state


def gla(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor,
    *,
    initial_state: Tensor | None = None,
    scale: float | None = None,
) -> tuple[Tensor, Tensor]:
    """`additive.gla`."""
    output, state = fla_kernel("gla", "chunk_gla")(
        q, k, v, g=log_decay.contiguous(), scale=scale, initial_state=initial_state, output_final_state=True
    )
    return output, state


def delta_rule(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    *,
    initial_state: Tensor | None = None,
    scale: float | None = None,
) -> tuple[Tensor, Tensor]:
    """`delta.delta_rule`; fla's own kernel refuses float32, so that goes through the gated one with no decay."""
    if q.dtype == torch.float32:
        return gated_delta_rule(q, k, v, torch.zeros_like(beta), beta, initial_state=initial_state, scale=scale)
    output, state = fla_kernel("delta_rule", "chunk_delta_rule")(
        q, k, v, beta=beta.contiguous(), scale=scale, initial_state=initial_state, output_final_state=True
    )
    return output, state


def gated_delta_rule(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor,
    beta: Tensor,
    *,
    initial_state: Tensor | None = None,
    scale: float | None = None,
) -> tuple[Tensor, Tensor]:
    """`delta.gated_delta_rule`."""
    output, state = fla_kernel("gated_delta_rule", "chunk_gated_delta_rule")(
        q,
        k,
        v,
        g=log_decay.contiguous(),
        beta=beta.contiguous(),
        scale=scale,
        initial_state=initial_state,
        output_final_state=True,
    )
    return output, state


def kda(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor,
    beta: Tensor,
    *,
    initial_state: Tensor | None = None,
    scale: float | None = None,
) -> tuple[Tensor, Tensor]:
    """`delta.kda`."""
    output, state = fla_kernel("kda", "chunk_kda")(
        q,
        k,
        v,
        g=log_decay.contiguous(),
        beta=beta.contiguous(),
        scale=scale,
        initial_state=initial_state,
        output_final_state=True,
    )
    return output, state


KERNELS: dict[str, Callable[..., Any]] = {
    "linear_attention": linear_attention,
    "simple_gla": simple_gla,
    "gla": gla,
    "delta_rule": delta_rule,
    "gated_delta_rule": gated_delta_rule,
    "kda": kda,
}
