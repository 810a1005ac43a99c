"""Line plots of training curves in braille characters: two by four dots to a cell, drawn as rows of text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from asi_tui.lines import Row, fit

_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
AXIS = 9
SIGNS = ("━━", "╍╍", "┈┈")
"""How the curves of each colour look, for legends."""


class Series(NamedTuple):
    """One curve: its name, `(x, y)` points in order of x, and the number of its colour."""

    name: str
    points: Sequence[tuple[float, float]]
    colour: int


def _figure(value: float) -> str:
    """A tick's label, in at most seven characters."""
    return f"{value:.3g}" if abs(value) < 1e4 else f"{value:.1e}"


def _dot(grid: dict[tuple[int, int], tuple[int, int]], x: int, y: int, colour: int) -> None:
    cell = (x // 2, y // 4)
    bits, owner = grid.get(cell, (0, colour))
    grid[cell] = (bits | _DOTS[y % 4][x % 2], min(owner, colour))


def _draw(grid: dict[tuple[int, int], tuple[int, int]], dots: list[tuple[int, int]], colour: int) -> None:
    """Join neighbouring dots by lines: a full one for the first colour, ever thinner dots for the others."""
    drawn = 0
    for (x0, y0), (x1, y1) in zip(dots, dots[1:] or dots, strict=False):
        steps = max(abs(x1 - x0), abs(y1 - y0), 1)
        for step in range(steps):
            drawn += 1
            if drawn % (1, 2, 4)[colour] == 0:
                _dot(grid, x0 + (x1 - x0) * step // steps, y0 + (y1 - y0) * step // steps, colour)
    _dot(grid, *dots[-1], colour)


def plot(series: Sequence[Series], width: int, height: int, x_unit: str, x_end: float = 0.0) -> list[Row]:
    """Draw curves into `height` rows of `width` cells, axes included.

    The lowest colour number is drawn on top. `x_end` stretches the x axis to a run's end that lies ahead.
    """
    drawn = [curve for curve in series if curve.points]
    columns, rows = width - AXIS - 1, height - 1
    if not drawn or columns < 8 or rows < 2:
        return [(("no points yet", "dim"),)]
    xs = [x for curve in drawn for x, _ in curve.points]
    ys = [y for curve in drawn for _, y in curve.points]
    left, right = min(0.0, *xs), max(x_end, 1.0, *xs)
    low, high = min(ys), max(ys)
    if high - low < 1e-9:
        low, high = low - 0.5, high + 0.5
    grid: dict[tuple[int, int], tuple[int, int]] = {}
    for curve in sorted(drawn, key=lambda one: -one.colour):
        dots = [
            (
                round((x - left) / (right - left) * (columns * 2 - 1)),
                round((high - y) / (high - low) * (rows * 4 - 1)),
            )
            for x, y in curve.points
        ]
        _draw(grid, dots, curve.colour)
    out: list[Row] = []
    for line in range(rows):
        tick = ""
        if line in (0, rows - 1) or (rows >= 7 and line == rows // 2):
            tick = _figure(high - (high - low) * line / (rows - 1))
        spans = [(fit(tick, AXIS - 2, "right") + (" ┤" if tick else " │"), "dim")]
        for column in range(columns):
            bits, owner = grid.get((column, line), (0, -1))
            style = f"series.{owner}" if bits else ""
            character = chr(0x2800 + bits) if bits else " "
            if spans[-1][1] == style:
                spans[-1] = (spans[-1][0] + character, style)
            else:
                spans.append((character, style))
        out.append(tuple(spans))
    end = f"{right:,.0f} {x_unit}"
    out.append(((" " * (AXIS - 1) + "0" + fit(end, columns, "right"), "dim"),))
    return out
