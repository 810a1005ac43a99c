"""Matched budgets: how wide the MLP may be beside a mixer, and what a forward pass costs.

FLOPs count one multiply-add as two. Matrix products and convolutions are counted exactly; fused attention is counted
through its unfused form, triangular solves and FFTs by their textbook cost, and every other operation by the number
of elements it writes, so that a mixer cannot hide its cost in operations that a matmul counter does not see.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

# Forward once, backward about twice (Kaplan et al. 2020).
TRAINING_FACTOR = 3


def match_mlp_hidden(total: int, backbone: int, mixers: list[int], d_model: int) -> list[int]:
    """SwiGLU widths per layer that bring the model's parameters closest to `total`.

    mixers: parameters of each layer's mixer. Layers may differ by one, so that the match is finer than one width for
    all. Raises ValueError when the mixers leave no room for an MLP.
    """
    room = (total - backbone - sum(mixers)) / (3 * d_model)
    units = round(room)
    if units < len(mixers):
        largest = (total - backbone) // len(mixers) - 3 * d_model
        raise ValueError(f"the mixer has {max(mixers)} parameters; at most {largest} fit the matched budget")
    each, more = divmod(units, len(mixers))
    return [each + (layer < more) for layer in range(len(mixers))]


def count_parameters(module: nn.Module) -> int:
    """Trainable parameters, shared ones once."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


def forward_flops(model: nn.Module, *inputs: Tensor) -> float:
    """FLOPs of one forward pass in the model's present mode; run it on a copy when the model keeps state."""
    counter = FlopCounterMode(display=False)
    others = _OtherOperations()
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), others, counter:
        model(*inputs)
    return float(counter.get_total_flops()) + others.flops


class _OtherOperations(TorchDispatchMode):
    """Adds up what FlopCounterMode does not know."""

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0.0

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        packet = func._overloadpacket
        name = packet.__name__
        if packet in _COUNTED or func.is_view:
            return result
        written: float = sum(item.numel() for item in _tensors(result))
        if name in ("linalg_solve_triangular", "triangular_solve"):
            written *= args[0].shape[-1]
        elif name.startswith("_fft"):
            written *= 5 * max(1.0, math.log2(max(2, _tensors(args[0])[0].numel())))
        self.flops += written
        return result


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    return [item for item in value if isinstance(item, Tensor)] if isinstance(value, list | tuple) else []


_COUNTED = set(FlopCounterMode(display=False).flop_registry)


def state_floats(mixer: nn.Module, d_model: int) -> int:
    """Floats of recurrent state per sequence that `mixer.step` carries; 0 when the mixer offers no `step`."""
    step = getattr(mixer, "step", None)
    if not callable(step):
        return 0
    with torch.no_grad():
        _, state = step(torch.zeros(1, d_model), None)
    return _state_size(state)


def _state_size(state: Any) -> int:
    if isinstance(state, Tensor):
        return state.numel()
    if isinstance(state, dict):
        return sum(_state_size(item) for item in state.values())
    return sum(_state_size(item) for item in state) if isinstance(state, list | tuple) else 0
