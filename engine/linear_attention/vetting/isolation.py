"""Gates on memory: nothing passes from one sample of a batch to another, nor from one call to the next."""

from __future__ import annotations

import copy
import types
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from engine.linear_attention.vetting.subject import (
    CONDITIONS,
    Outcome,
    Subject,
    difference,
    forward,
    largest,
    mode_name,
)

BATCH_TOLERANCE = 5e-4
MAX_DEPTH = 6


def batch(subject: Subject) -> Outcome:
    """Changing one sample leaves every other sample bit for bit what it was."""
    for condition in CONDITIONS:
        module = subject.module(condition)
        for train in (False, True):
            for time in (33, subject.spec.train_length):
                x = subject.probe(3, time)
                before = forward(module, x, train)
                for changed in (0, 2):
                    other = x.clone()
                    other[changed] = subject.probe(1, time, seed=2, scale=2.0)[0]
                    error = difference(before, forward(module, other, train))
                    error[changed] = 0
                    if largest(error) > 0:
                        sample = int((error.amax(dim=(1, 2)) > 0).nonzero()[0])
                        return Outcome(
                            False,
                            f"batch: changing sample {changed} changed sample {sample} by {largest(error):.3g} "
                            f"(batch 3, T={time}, {mode_name(train)}, {condition})",
                            {"error": largest(error), "time": time},
                        )
    return _batch_size(subject)


def _batch_size(subject: Subject) -> Outcome:
    """A sample alone gives what it gives among others, within rounding."""
    module = subject.module(CONDITIONS[1])
    x = subject.probe(3, subject.spec.train_length)
    together = forward(module, x)
    error = largest(difference(together[:1], forward(module, x[:1])))
    scale = max(1.0, float(together.nan_to_num().abs().max()))
    if error > BATCH_TOLERANCE * scale:
        return Outcome(
            False, f"batch: a sample alone gives another output than in a batch of 3, by {error:.3g}", {"error": error}
        )
    return Outcome(
        True,
        f"batch: samples do not see each other, in eval and train mode, within {error / scale:.1e} of "
        f"{BATCH_TOLERANCE:.1e} allowed",
        {"error": error / scale},
    )


def stateless(subject: Subject) -> Outcome:
    """The same call gives the same answer, whatever was computed before, and leaves the input alone."""
    for condition in CONDITIONS:
        for train in (False, True):
            failure = _repeat(subject, condition, train) or _remembers(subject, condition, train)
            if failure:
                return Outcome(False, f"stateless: {failure} ({mode_name(train)}, {condition})")
    module = subject.module(CONDITIONS[1])
    x = subject.probe(2, 64)
    noise = largest(difference(forward(module, x, seed=3), forward(module, x, seed=4)))
    if noise > 0:
        return Outcome(
            False,
            f"stateless: in eval mode the output depends on the random state, by {noise:.3g}; noise is for train mode",
            {"error": noise},
        )
    return Outcome(True, "stateless: repeated calls agree to the bit and leave nothing behind, in eval and train mode")


def _repeat(subject: Subject, condition: str, train: bool) -> str:
    """The same input before and after another batch, on one and the same module; empty when all is well."""
    module = subject.module(condition)
    x = subject.probe(2, 64)
    kept = x.clone()
    first = forward(module, x, train, private=False)
    if not torch.equal(x, kept):
        return "forward changed its input in place"
    first = first.clone()
    for between, words in ((None, "the same call twice gives"), (subject.probe(3, 48, seed=2), "after another batch")):
        if between is not None:
            forward(module, between, train, private=False)
        error = largest(difference(first, forward(module, x, train, private=False)))
        if error > 0:
            return f"{words} {'an' if between is None else 'there is an'} output that differs by {error:.3g}"
    return ""


def _remembers(subject: Subject, condition: str, train: bool) -> str:
    """What a call leaves in the module: nothing that depends on the input or on how many calls there were.

    A table that the first call builds and later ones reuse is neither, and may stay.
    """
    module = subject.module(condition)
    forward(module, subject.probe(2, 64), train, private=False)
    other = copy.deepcopy(module)
    once = dict(_memory(module))
    forward(module, subject.probe(2, 64), train, private=False)
    again = dict(_memory(module))
    forward(other, subject.probe(2, 64, seed=2), train, private=False)
    differently = dict(_memory(other))
    for seen, cause in ((again, "with every call"), (differently, "with the input")):
        changed = next((name for name in seen if not _same(once.get(name), seen[name])), None)
        if changed is not None:
            return f"{changed} changes {cause}; a mixer is a function of its input and its weights"
    return ""


def _same(a: object, b: object) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.shape == b.shape and a.dtype == b.dtype and largest(difference(a.float(), b.float())) == 0
    return type(a) is type(b) and bool(a == b)


def _memory(module: nn.Module) -> Iterator[tuple[str, object]]:
    """Every tensor and plain value a module holds, its program's globals included, by a readable name."""
    for owner, holder in module.named_modules():
        prefix = f"self.{owner}." if owner else "self."
        for group in ("_parameters", "_buffers"):
            for name, value in vars(holder)[group].items():
                if value is not None:
                    yield prefix + name, value.detach().clone()
        for name, value in vars(holder).items():
            if not name.startswith("_") or name.lstrip("_") not in _BOOKKEEPING:
                yield from _values(prefix + name, value, MAX_DEPTH)
    namespace = getattr(type(module).forward, "__globals__", {})
    for name, value in list(namespace.items()):
        if not name.startswith("__") and not isinstance(value, types.ModuleType):
            yield from _values(f"the global {name}", value, MAX_DEPTH)


_BOOKKEEPING = frozenset(name.lstrip("_") for name in vars(nn.Module()) if name.startswith("_"))


def _values(name: str, value: object, depth: int) -> Iterator[tuple[str, object]]:
    if depth == 0 or isinstance(value, nn.Module):
        return
    if isinstance(value, Tensor):
        yield name, value.detach().clone()
    elif isinstance(value, int | float | str | complex | None):
        yield name, value
    elif isinstance(value, dict):
        yield f"len({name})", len(value)
        for key, item in list(value.items())[:64]:
            yield from _values(f"{name}[{str(key)[:40]}]", item, depth - 1)
    elif isinstance(value, list | tuple | set | frozenset):
        yield f"len({name})", len(value)
        for index, item in enumerate(list(value)[:64]):
            yield from _values(f"{name}[{index}]", item, depth - 1)
    elif hasattr(value, "__dict__") and not isinstance(value, type) and not callable(value):
        yield from _values(name, vars(value), depth - 1)
