"""What a program computes, as a hash: two programs that do the same get the same one, however they are written."""

from __future__ import annotations

import copy
import hashlib
from typing import Any

import torch
from torch import Tensor, nn

from engine.linear_attention.vetting.cost import TRAINING_BATCH, step_seconds
from engine.linear_attention.vetting.counting import OperationObserver
from engine.linear_attention.vetting.subject import CONDITIONS, Outcome, Subject

PROBE_LENGTH = 37
PROJECTIONS = 24
SIGNIFICANT_DIGITS = 4


def identity(subject: Subject) -> Outcome:
    """Hash the function and time one training step. This gate measures; it fails only when the mixer cannot run."""
    fingerprint = functional_hash(subject)
    batch = subject.probe(TRAINING_BATCH, subject.spec.train_length)
    seconds = step_seconds(subject.module(CONDITIONS[0]), batch)
    return Outcome(
        True,
        f"identity: function {fingerprint[:12]}; {seconds:.3f} CPU s per training step of batch {TRAINING_BATCH}",
        {"step_seconds": seconds},
        {"functional_hash": fingerprint, "step_seconds": seconds},
    )


def functional_hash(subject: Subject) -> str:
    """SHA-256 of the outputs on fixed probes after a canonical initialisation, rounded to four digits.

    Weights are filled by shape and, among equal shapes, in the order in which the forward pass first uses them, so that
    neither their names nor the order of their creation matters. Double precision where the program allows it, so that
    two ways to compute the same thing round to the same digits.
    """
    module = subject.build(layer=0).eval()
    x = subject.probe(2, PROBE_LENGTH)
    _canonical_weights(module, x)
    try:
        with torch.no_grad():
            y = module.double()(x.double())
    except RuntimeError:
        with torch.no_grad():
            y = module.float()(x)
    generator = torch.Generator().manual_seed(17)
    directions = torch.randn(PROJECTIONS, y.numel(), generator=generator, dtype=torch.float64)
    values = (directions @ y.double().flatten()) / y.numel() ** 0.5
    text = ",".join(f"{value + 0.0:.{SIGNIFICANT_DIGITS - 1}e}" for value in values.tolist())
    return hashlib.sha256(text.encode()).hexdigest()


def _canonical_weights(module: nn.Module, x: Tensor) -> None:
    parameters = list(module.parameters())
    traced = copy.deepcopy(module)
    with torch.no_grad(), _FirstUse(traced, parameters) as use:
        traced(x)
    unused = [p for p in parameters if not any(p is seen for seen in use.order)]
    ranks: dict[tuple[int, ...], int] = {}
    with torch.no_grad():
        for parameter in [*use.order, *unused]:
            shape = tuple(parameter.shape)
            rank = ranks[shape] = ranks.get(shape, -1) + 1
            key = hashlib.sha256(repr((shape, rank)).encode()).digest()[:7]
            generator = torch.Generator().manual_seed(int.from_bytes(key, "big"))
            values = torch.randn(shape, generator=generator)
            width = shape[-1] if len(shape) > 1 else 4
            parameter.copy_(values / width**0.5 + (0.0 if len(shape) > 1 else 0.5))


class _FirstUse(OperationObserver):
    """Notes the order in which parameters first appear as an operation's argument, as the originals they copy."""

    def __init__(self, traced: nn.Module, originals: list[nn.Parameter]) -> None:
        super().__init__()
        self._waiting = {id(p): original for p, original in zip(traced.parameters(), originals, strict=True)}
        self.order: list[nn.Parameter] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        for argument in args:
            for tensor in argument if isinstance(argument, list | tuple) else (argument,):
                if id(tensor) in self._waiting:
                    self.order.append(self._waiting.pop(id(tensor)))
        return func(*args, **(kwargs or {}))
