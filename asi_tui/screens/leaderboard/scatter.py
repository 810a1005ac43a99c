"""A cloud of points in braille dots, some of them marked by a character of their own, with a stepped line."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from asi_tui import words
from asi_tui.lines import Row, Span, Tag, fit

_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
AXIS = 9
LOG_FROM = 8.0
"""An axis whose ends lie further apart than by this factor is logarithmic."""


class Point(NamedTuple):
    """What stands at a place: its cost, its score, whose it is."""

    x: float
    y: float
    name: str


class Scale(NamedTuple):
    """Where values lie in a field of `columns` by `rows` cells."""

    left: float
    right: float
    low: float
    high: float
    logarithmic: bool
    columns: int
    rows: int

    def dot(self, x: float, y: float) -> tuple[int, int]:
        """The dot of a point: two to a cell across, four down."""
        if self.logarithmic:
            across = math.log(x / self.left) / math.log(self.right / self.left)
        else:
            across = (x - self.left) / (self.right - self.left)
        down = (self.high - y) / (self.high - self.low)
        return round(across * (self.columns * 2 - 1)), round(down * (self.rows * 4 - 1))


def scale_for(points: Sequence[Point], columns: int, rows: int) -> Scale:
    """The field that holds all points."""
    left, right = min(p.x for p in points), max(p.x for p in points)
    low, high = min(p.y for p in points), max(p.y for p in points)
    logarithmic = left > 0 and right / left > LOG_FROM
    if right - left < 1e-9 * max(1.0, abs(right)):
        left, right = left * 0.9 - 1e-9, right * 1.1 + 1e-9
    if high - low < 1e-9:
        low, high = low - 0.5, high + 0.5
    return Scale(left, right, low, high, logarithmic, columns, rows)


def scatter(points: Sequence[Point], front: Sequence[Point], width: int, height: int, unit: str) -> list[Row]:
    """Draw all points, and the front over them: its steps and a `●` for each member, which leads to it."""
    columns, rows = width - AXIS - 1, height - 1
    if not points or columns < 8 or rows < 3:
        return [(("no points to draw", "dim"),)]
    scale = scale_for(points, columns, rows)
    cloud, steps = _dots(points, scale), _steps(front, scale)
    members: dict[tuple[int, int], str] = {}
    for point in front:
        x, y = scale.dot(point.x, point.y)
        members[x // 2, y // 4] = point.name
    zero = scale.dot(scale.left, 0.0)[1] // 4 if scale.low < 0 < scale.high else -1
    out = [_line(line, scale, cloud, steps, members, zero) for line in range(rows)]
    left, right = words.count(scale.left), f"{words.count(scale.right)} {unit}{', log' if scale.logarithmic else ''}"
    out.append(((" " * AXIS + left + fit(right, columns - len(left), "right"), "dim"),))
    return out


def _line(
    line: int, scale: Scale, cloud: dict[tuple[int, int], int], steps: dict[tuple[int, int], int],
    members: dict[tuple[int, int], str], zero: int,
) -> Row:  # fmt: skip
    tick = ""
    if line in (0, scale.rows - 1):
        tick = words.signed(scale.high - (scale.high - scale.low) * line / (scale.rows - 1))
    elif line == zero and 1 < line < scale.rows - 2:
        tick = "0"
    spans: list[Span] = [(fit(tick, AXIS - 2, "right") + (" ┤" if tick else " │"), "dim")]
    for column in range(scale.columns):
        cell = (column, line)
        if cell in members:
            spans.append(("●", Tag("strong", members[cell])))
            continue
        bits = cloud.get(cell, 0)
        step = steps.get(cell, 0)
        text = chr(0x2800 + (bits | step)) if bits or step else "┈" if line == zero else " "
        style = "series.1" if step else "series.0" if bits else "faint"
        if spans[-1][1] == style and not isinstance(spans[-1][1], Tag):
            spans[-1] = (spans[-1][0] + text, style)
        else:
            spans.append((text, style))
    return tuple(spans)


def _set(grid: dict[tuple[int, int], int], x: int, y: int) -> None:
    cell = (x // 2, y // 4)
    grid[cell] = grid.get(cell, 0) | _DOTS[y % 4][x % 2]


def _dots(points: Sequence[Point], scale: Scale) -> dict[tuple[int, int], int]:
    grid: dict[tuple[int, int], int] = {}
    for point in points:
        _set(grid, *scale.dot(point.x, point.y))
    return grid


def _steps(front: Sequence[Point], scale: Scale) -> dict[tuple[int, int], int]:
    """The staircase through the front: what a cost can buy at most."""
    grid: dict[tuple[int, int], int] = {}
    dots = [scale.dot(point.x, point.y) for point in front]
    for (x0, y0), (x1, y1) in pairwise(dots):
        for x in range(x0, x1 + 1):
            _set(grid, x, y0)
        for y in range(min(y0, y1), max(y0, y1) + 1):
            _set(grid, x1, y)
    if dots:
        for x in range(dots[-1][0], scale.columns * 2):
            _set(grid, x, dots[-1][1])
    return grid
