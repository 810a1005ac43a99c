"""A program under vetting: its mixer in the conditions a gate asks for, and helpers to run and compare it."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from engine.domain import VetSpec
from engine.linear_attention.program import load_mixer

CONDITIONS = ("at initialisation", "after weight jitter", "after training steps")
JITTER = 0.1
TRAINING_STEPS = 12
LEARNING_RATE = 1e-2
COUNTER_JUMP = 100_000


@dataclass
class Outcome:
    """What a gate found. `facts` are fields of the `VetReport` that the gate measured on the way."""

    passed: bool
    evidence: str
    measured: dict[str, float] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)


class GateFailure(Exception):
    """Raised by a helper of a gate when the mixer did something no gate can pass; the message is the evidence."""


class Subject:
    """One program at one tier's sizes."""

    def __init__(self, source: str, spec: VetSpec) -> None:
        self.spec = spec
        self.mixer_class = load_mixer(source)
        self._built: dict[str, nn.Module] = {}

    @property
    def longest(self) -> int:
        """The longest sequence any gate uses, in tokens; what the mixer is told as max_len."""
        return 8 * self.spec.train_length

    @property
    def offers_step(self) -> bool:
        """Whether the mixer can decode token by token."""
        return callable(getattr(self.mixer_class, "step", None))

    def build(self, layer: int = 0, seed: int = 0) -> nn.Module:
        """A freshly initialised mixer. The seed decides the initial weights."""
        torch.manual_seed(seed)
        return self.mixer_class(
            d_model=self.spec.d_model, n_heads=self.spec.n_heads, layer_idx=layer, max_len=self.longest
        )

    def module(self, condition: str) -> nn.Module:
        """A private copy of the mixer in one of `CONDITIONS`, so that no gate sees what another one left behind."""
        if condition not in self._built:
            self._built[condition] = self._prepare(condition)
        return copy.deepcopy(self._built[condition])

    def _prepare(self, condition: str) -> nn.Module:
        if condition == CONDITIONS[0]:
            return self.build(layer=0)
        module = self.build(layer=1)
        if condition == CONDITIONS[1]:
            jitter(module)
        else:
            _train(module, self.probe(2, self.spec.train_length, seed=11))
            _advance_counters(module, self.probe(2, 16, seed=12))
        return module

    def probe(self, batch: int, time: int, seed: int = 1, scale: float = 1.0) -> Tensor:
        """Fixed random inputs `[batch, time, d_model]` with standard deviation `scale`."""
        generator = torch.Generator().manual_seed(seed)
        return scale * torch.randn(batch, time, self.spec.d_model, generator=generator)


def jitter(module: nn.Module, seed: int = 5) -> None:
    """Shake every weight, so that a branch that starts behind a zero takes part in what is observed."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.is_floating_point():
                parameter.add_(JITTER * torch.randn(parameter.shape, generator=generator).to(parameter.dtype))


def forward(module: nn.Module, x: Tensor, train: bool = False, seed: int = 3, private: bool = True) -> Tensor:
    """The mixer's output, detached. Raises GateFailure when it is not a tensor shaped like x.

    Train mode records gradients and eval mode does not, as in training and in use, since a program can tell.

    private: run a copy of the mixer on a copy of x, so that nothing the call leaves behind reaches the next one. The
    global random state is set before each call, so that dropout draws the same mask every time.
    """
    if private:
        module, x = copy.deepcopy(module), x.clone()
    module.train(train)
    torch.manual_seed(seed)
    with torch.set_grad_enabled(train):
        return checked(module(x), x).detach()


def checked(y: object, x: Tensor) -> Tensor:
    """The output when it is a tensor of x's shape and type. Raises GateFailure otherwise."""
    if not isinstance(y, Tensor):
        raise GateFailure(f"forward returned {type(y).__name__} instead of a tensor")
    if y.shape != x.shape:
        raise GateFailure(f"forward returned shape {list(y.shape)} for an input of {list(x.shape)}")
    if y.dtype != x.dtype:
        raise GateFailure(f"forward returned {y.dtype} for an input of {x.dtype}")
    return y


def difference(a: Tensor, b: Tensor) -> Tensor:
    """Elementwise |a - b|, where equal values, two NaNs included, give 0 and a single NaN gives infinity."""
    same = (a == b) | (a.isnan() & b.isnan())
    return torch.where(same, torch.zeros_like(a), (a - b).abs().nan_to_num(nan=torch.inf))


def largest(error: Tensor) -> float:
    """The largest entry, 0 for an empty tensor."""
    return float(error.max()) if error.numel() else 0.0


def mode_name(train: bool) -> str:
    """How evidence calls the mode."""
    return "train mode" if train else "eval mode"


def random_weighting(y: Tensor, seed: int = 9) -> Tensor:
    """A scalar that depends on every output with a different weight, to send gradients back from."""
    generator = torch.Generator().manual_seed(seed)
    return (y * torch.randn(y.shape, generator=generator)).sum() / y.numel() ** 0.5


def _train(module: nn.Module, x: Tensor) -> None:
    """A few steps of sign descent on a made-up target, enough to move every weight and to pass a call counter."""
    module.train()
    target = x.roll(1, dims=1)
    for step in range(TRAINING_STEPS):
        torch.manual_seed(step)
        length = x.shape[1] if step == 0 else 32
        part = x[:, :length].clone()
        loss = (checked(module(part), part) - target[:, :length]).square().mean()
        if loss.requires_grad:
            loss.backward()
        with torch.no_grad():
            for parameter in module.parameters():
                if parameter.grad is not None:
                    parameter.sub_(LEARNING_RATE * parameter.grad.sign())
        module.zero_grad()


def _advance_counters(module: nn.Module, x: Tensor) -> None:
    """Push every call counter far ahead: what it would trigger late in training then shows now."""
    with torch.no_grad():
        module(x)
        before = _counters(module)
        module(x)
    for (owner, name), value in _counters(module).items():
        if before.get((owner, name), value) == value:
            continue
        holder = module.get_submodule(owner)
        current = getattr(holder, name)
        if isinstance(current, Tensor):
            current.fill_(value + COUNTER_JUMP)
        else:
            setattr(holder, name, type(current)(value + COUNTER_JUMP))


def _counters(module: nn.Module) -> dict[tuple[str, str], float]:
    """Every number the module keeps beside its parameters, by submodule and attribute."""
    found: dict[tuple[str, str], float] = {}
    for owner, holder in module.named_modules():
        for name, value in [*vars(holder).items(), *holder.named_buffers(recurse=False)]:
            if isinstance(value, Tensor) and value.numel() == 1 and not value.requires_grad:
                found[owner, name] = value.item()
            elif type(value) in (int, float):
                found[owner, name] = value
    return found
