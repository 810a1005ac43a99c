"""Figures against their targets, as a table or as JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

MILLISECONDS = 1e3
KILOBYTES = 1e-3
MEGABYTES = 1 / 2**20


class Figure(msgspec.Struct, frozen=True):
    """One measured number. `most` is the target it must not exceed; None where it only informs."""

    name: str
    value: float
    unit: str
    most: float | None = None

    @property
    def verdict(self) -> str:
        """Whether the target is met."""
        if self.most is None:
            return ""
        return "ok" if self.value <= self.most else "MISS"  # not a number is a miss too


def share(values: Sequence[float], part: float) -> float:
    """The value that `part` of them do not exceed; not a number where there are none."""
    if not values:
        return math.nan
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, math.ceil(part * len(ordered)) - 1)]


def spread(name: str, seconds: Sequence[float], p95: float | None) -> list[Figure]:
    """Median, 95th percentile and maximum of times; `p95` is the target in milliseconds."""
    times = [value * MILLISECONDS for value in seconds]
    return [
        Figure(f"{name}, p50 of {len(times)}", share(times, 0.5), "ms"),
        Figure(f"{name}, p95", share(times, 0.95), "ms", p95),
        Figure(f"{name}, max", share(times, 1.0), "ms"),
    ]


def table(figures: Sequence[Figure]) -> str:
    """The figures, aligned."""
    wide = max(len(figure.name) for figure in figures)
    return "\n".join(
        f"{figure.name:<{wide}}  {figure.value:>9.1f} {figure.unit:<5}"
        + ("" if figure.most is None else f"  target ≤ {figure.most:<6g} {figure.verdict}")
        for figure in figures
    )


def as_json(machine: str, figures: Sequence[Figure]) -> str:
    """The figures and the machine that they were measured on."""
    rows = [{**msgspec.structs.asdict(figure), "verdict": figure.verdict} for figure in figures]
    return msgspec.json.format(msgspec.json.encode({"machine": machine, "figures": rows})).decode()
