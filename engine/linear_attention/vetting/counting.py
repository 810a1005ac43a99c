"""Counts what a computation costs, operation by operation, and fits how the cost grows with the length.

One count alone is blind somewhere: matrix products miss elementwise work, and fused attention on a CPU is in
nobody's list of matrix products; sizes of outputs miss what a fused kernel keeps inside. So several are kept and
the steepest one speaks.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

METRICS = ("flops", "elements", "largest")


class OperationObserver(TorchDispatchMode):
    """A dispatch mode that does without torch's compiler, whose import alone would cost a second."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False


class CostCounter(OperationObserver):
    """Counts every operation executed inside the context.

    flops: of matrix products, convolutions, fused attention and Fourier transforms, two per multiply-add.
    elements: read or written, whichever is more, summed over all operations that compute something.
    largest: elements of the largest tensor an operation produced.
    """

    def __init__(self) -> None:
        super().__init__()
        self.flops: Counter[str] = Counter()
        self.elements: Counter[str] = Counter()
        self.largest: Counter[str] = Counter()
        self.shapes: dict[str, list[int]] = {}
        self.softmax_shapes: set[tuple[int, ...]] = set()
        self.transformed: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func._overloadpacket.__name__
        outputs = list(_tensors(out))
        if func.is_view or not outputs:
            return out
        inputs = list(_tensors((args, kwargs)))
        written = sum(t.numel() for t in outputs)
        self.elements[name] += max([written, *(t.numel() for t in inputs)])
        largest = max(outputs, key=Tensor.numel)
        if largest.numel() > self.largest[name]:
            self.largest[name] = largest.numel()
            self.shapes[name] = list(largest.shape)
        self.flops[name] += self._flops(func, name, args, kwargs or {}, out, inputs, outputs)
        if "softmax" in name and "backward" not in name:
            self.softmax_shapes.add(tuple(outputs[0].shape))
        return out

    def _flops(
        self, func: Any, name: str, args: Any, kwargs: Any, out: Any, inputs: list[Tensor], outputs: list[Tensor]
    ) -> int:
        if "attention" in name and len(inputs) >= 2:
            query, key = [t for t in inputs if t.dim() >= 3][:2]
            return 4 * query.numel() * key.shape[-2] * (2 if "backward" in name else 1)
        if name.startswith("_fft"):
            lengths = {max(inputs[0].shape[d], outputs[0].shape[d]) for d in args[1]}
            self.transformed |= lengths
            return sum(int(5 * max(inputs[0].numel(), outputs[0].numel()) * math.log2(max(2, n))) for n in lengths)
        if func._overloadpacket in flop_registry:
            return int(flop_registry[func._overloadpacket](*args, **kwargs, out_val=out))
        if name in ("mv", "dot", "addmv", "vdot"):
            return 2 * max(t.numel() for t in inputs)
        if "solve" in name or "linalg" in name or "cholesky" in name:
            return max(t.numel() for t in inputs) * inputs[0].shape[-1]
        return 0

    def totals(self) -> dict[str, float]:
        """The three counts, by name."""
        return {
            "flops": float(sum(self.flops.values())),
            "elements": float(sum(self.elements.values())),
            "largest": float(max(self.largest.values(), default=0)),
        }


def exponent(small: float, large: float, ratio: float = 2.0) -> float:
    """The power with which a cost grows when the length grows by `ratio`; 0 when there is no cost."""
    return math.log(large / small) / math.log(ratio) if small > 0 and large > 0 else 0.0


def culprit(small: CostCounter, large: CostCounter, metric: str) -> str:
    """The operation that added most to a metric between two lengths, with the shape of what it made."""
    before, after = getattr(small, metric), getattr(large, metric)
    name = max(after, key=lambda op: after[op] - before[op])
    return f"{name} producing {large.shapes.get(name, [])}"


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from _tensors(item)


def count(module: torch.nn.Module, x: Tensor, backward: bool = True) -> CostCounter:
    """What one forward pass on x, and the way back, costs.

    Elements are counted on the way forward only: autograd goes back through `x[:, t]` in a loop over t by making a
    whole gradient for each t, which would make every token-by-token recurrence look quadratic.
    """
    torch.manual_seed(3)
    with CostCounter() as counter:
        y = module(x.clone())
        if backward and isinstance(y, Tensor) and y.requires_grad:
            forward_elements = counter.elements.copy()
            y.sum().backward()
            counter.elements = forward_elements
    return counter
