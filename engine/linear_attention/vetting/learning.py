"""Gates on training: gradients reach the weights, and numbers stay finite where training may lead."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from engine.linear_attention.vetting.subject import (
    CONDITIONS,
    Outcome,
    Subject,
    checked,
    forward,
    random_weighting,
)

MAX_DEAD_SHARE = 0.25
SCALES = (1.0, 0.0, 1e2, 1e4)


def gradient(subject: Subject) -> Outcome:
    """Gradients are finite, reach the input, and reach nearly every weight; those they never reach are named.

    A weight counts as dead only when it has no gradient in any condition: right behind a zero-initialised output
    everything is silent at first, and lawfully so.
    """
    alive: set[str] = set()
    sizes = {name: parameter.numel() for name, parameter in subject.module(CONDITIONS[1]).named_parameters()}
    trainable = {n for n, parameter in subject.module(CONDITIONS[1]).named_parameters() if parameter.requires_grad}
    reaches_input = False
    for condition in CONDITIONS:
        module = subject.module(condition)
        x = subject.probe(2, subject.spec.train_length).requires_grad_()
        y = _output(module, x)
        if (position := _first_broken(y)) is not None:
            return Outcome(False, f"gradient: the output itself is {_value(y)} from t={position} on ({condition})")
        loss = random_weighting(y)
        if not loss.requires_grad:
            return Outcome(False, f"gradient: the output is detached from weights and input ({condition})")
        loss.backward()
        for name, tensor in [("the input", x), *module.named_parameters()]:
            if tensor.grad is not None and not tensor.grad.isfinite().all():
                return Outcome(False, f"gradient: the gradient of {name} is not finite ({condition})")
        alive |= {n for n, p in module.named_parameters() if p.grad is not None and p.grad.any()}
        reaches_input |= x.grad is not None and bool(x.grad.any())
    dead = sorted(trainable - alive)
    total, lost = sum(sizes.values()), sum(sizes[name] for name in dead)
    measured = {"dead": len(dead), "dead_share": lost / max(1, total)}
    facts = {"dead_parameters": dead[:100]}
    named = f"{', '.join(dead[:5])}{', …' if len(dead) > 5 else ''} ({lost} of {total} weights)"
    if not reaches_input:
        return Outcome(False, "gradient: no gradient reaches the input", measured, facts)
    if total and lost > MAX_DEAD_SHARE * total:
        return Outcome(False, f"gradient: no gradient ever reaches {named}", measured, facts)
    silent = f"none ever reaches {named}" if dead else "every weight receives one"
    return Outcome(True, f"gradient: all finite; {silent}", measured, facts)


def _output(module: nn.Module, x: Tensor) -> Tensor:
    module.train()
    torch.manual_seed(3)
    return checked(module(x.clone()), x)


def stability(subject: Subject) -> Outcome:
    """Outputs and gradients stay finite on silent, ordinary and huge inputs, and outputs at 8 times the length."""
    for condition in CONDITIONS:
        for scale in SCALES:
            x = subject.probe(2, subject.spec.train_length, scale=scale).requires_grad_()
            module = subject.module(condition)
            y = checked(module(x.clone()), x)
            where = f"(T={x.shape[1]}, {condition})"
            if (position := _first_broken(y)) is not None:
                return Outcome(
                    False,
                    f"stability: the output is {_value(y)} from t={position} on for inputs of size {scale:g} {where}",
                    {"scale": scale, "position": position},
                )
            if scale <= 1 and y.requires_grad:
                random_weighting(y).backward()
                broken = [n for n, p in module.named_parameters() if p.grad is not None and not p.grad.isfinite().all()]
                if broken:
                    return Outcome(
                        False,
                        f"stability: the gradient of {broken[0]} is not finite for inputs of size {scale:g} {where}",
                        {"scale": scale},
                    )
    x = subject.probe(1, subject.longest)
    y = forward(subject.module(CONDITIONS[1]), x)
    if (position := _first_broken(y)) is not None:
        return Outcome(
            False,
            f"stability: at T={subject.longest} the output is {_value(y)} from t={position} on",
            {"position": position},
        )
    size = y.square().mean(dim=(0, 2)).sqrt()
    eighth = subject.longest // 8
    growth = float(size[-eighth:].mean() / size[:eighth].mean().clamp_min(1e-12))
    return Outcome(
        True,
        f"stability: finite for inputs up to {SCALES[-1]:g} and at T={subject.longest}, "
        f"where the last eighth is {growth:.2f} times as large as the first",
        {"growth": growth},
    )


def _first_broken(y: Tensor) -> int | None:
    broken = (~y.isfinite()).any(dim=-1).any(dim=0).nonzero()
    return int(broken[0]) if len(broken) else None


def _value(y: Tensor) -> str:
    return "NaN" if bool(y.isnan().any()) else "infinite"
