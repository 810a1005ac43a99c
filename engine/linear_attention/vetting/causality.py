"""Gates on time: no output may depend on what comes after it, nor on how much comes after it."""

from __future__ import annotations

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

BATCH = 4
PREFIX_TOLERANCE = 5e-4
ROUNDING = 1e-5


def causal(subject: Subject) -> Outcome:
    """Replace the inputs from t on: the outputs before t stay bit for bit what they were.

    Sample b of a batch is replaced from its own t, so that two forward passes probe `BATCH` positions. On one thread of
    a CPU a causal mixer repeats itself exactly, hence the threshold 0.
    """
    probes = 0
    for condition in CONDITIONS:
        module = subject.module(condition)
        for train in (False, True):
            for time, cuts in _plan(subject.spec.train_length):
                probes += len(cuts)
                if _leak(module, subject, time, cuts, train) is not None:
                    return _explain(module, subject, condition, train, time, cuts)
    return Outcome(
        True,
        f"causal: {probes} replaced futures, {', '.join(CONDITIONS)}, eval and train mode, up to "
        f"T={_longest(subject.spec.train_length)}: earlier outputs unchanged to the bit",
        {"probes": probes},
    )


def _longest(train_length: int) -> int:
    return 2 * train_length + 44


def _plan(train_length: int) -> list[tuple[int, list[int]]]:
    """Lengths and the positions to cut at: on and off the usual chunk boundaries, early and late."""
    full = train_length
    return [
        (7, [1, 3, 4, 6]),
        (65, [1, 17, 40, 64]),
        (full, [1, full // 4, full // 2 + 5, full - 1]),
        (full, [full // 8, full // 2, full // 2 + 1, full - 9]),
        (2 * full, [full // 2 + 3, full - 1, full + 1, 2 * full - 2]),
        (_longest(full), [full // 3, full + 1, full + 33, _longest(full) - 2]),
    ]


def _leak(
    module: nn.Module, subject: Subject, time: int, cuts: list[int], train: bool
) -> tuple[int, int, float] | None:
    """The first cut whose replaced future changed an earlier output: (cut, changed position, size), or None."""
    x = subject.probe(len(cuts), time)
    fresh = subject.probe(len(cuts), time, seed=2, scale=2.0)
    changed = x.clone()
    for sample, cut in enumerate(cuts):
        changed[sample, cut:] = fresh[sample, cut:]
    before = forward(module, x, train)
    if not _earlier_errors(before, forward(module, changed, train), cuts):
        return None
    # Replace one sample at a time: what only reaches it through the other samples is for the batch gate to name.
    for sample, cut in enumerate(cuts):
        alone = x.clone()
        alone[sample, cut:] = fresh[sample, cut:]
        error = difference(before, forward(module, alone, train))[sample, :cut]
        if largest(error) > 0:
            return cut, int((error.amax(dim=-1) > 0).nonzero()[0]), largest(error)
    return None


def _earlier_errors(before: Tensor, after: Tensor, cuts: list[int]) -> bool:
    error = difference(before, after)
    return any(largest(error[sample, :cut]) > 0 for sample, cut in enumerate(cuts))


def _explain(module: nn.Module, subject: Subject, condition: str, train: bool, time: int, cuts: list[int]) -> Outcome:
    """The evidence at the smallest length that shows the leak."""
    lengths = [
        length for length in (2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 129, 160, 192, 256) if length < time
    ]
    shortest = time
    found = _leak(module, subject, time, cuts, train)
    for length in lengths:
        candidates = sorted({1, length // 3, length // 2, length - 1} - {0})
        smaller = _leak(module, subject, length, candidates, train)
        if smaller is not None:
            shortest, found = length, smaller
            break
    assert found is not None
    cut, position, size = found
    qualifier = "; shorter sequences do not show it" if shortest > 2 else ""
    if size < ROUNDING:
        qualifier += "; so little may be rounding, which mixing all positions causes and causal code does not"
    return Outcome(
        False,
        f"causal: replacing the inputs from t={cut} on changed the output at t={position} by {size:.3g} "
        f"(T={shortest}, {mode_name(train)}, {condition}{qualifier})",
        {"cut": cut, "position": position, "error": size, "time": shortest},
    )


def prefix(subject: Subject) -> Outcome:
    """A prefix alone gives what it gives inside the whole sequence, within rounding."""
    worst = 0.0
    full = subject.spec.train_length
    for condition in CONDITIONS:
        module = subject.module(condition)
        for time, cuts in ((full, (1, full // 4 + 1, full // 2, full - 1)), (_longest(full), (full, full + 3))):
            x = subject.probe(2, time)
            whole = forward(module, x)
            scale = max(1.0, float(whole.nan_to_num().abs().max()))
            for cut in cuts:
                error = difference(whole[:, :cut], forward(module, x[:, :cut]))
                worst = max(worst, largest(error) / scale)
                if worst > PREFIX_TOLERANCE:
                    position = int(torch.nonzero(error.amax(dim=(0, 2)) > PREFIX_TOLERANCE * scale)[0])
                    return Outcome(
                        False,
                        f"prefix: the first {cut} tokens alone give another output at t={position} than inside "
                        f"T={time}, by {largest(error):.3g} (eval mode, {condition})",
                        {"cut": cut, "position": position, "error": largest(error), "time": time},
                    )
    return Outcome(
        True,
        f"prefix: outputs do not depend on the total length, within {worst:.1e} of {PREFIX_TOLERANCE:.1e} allowed",
        {"error": worst},
    )
