"""Line plots of training curves in braille characters: two by four dots to a cell, drawn as rows of text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from asi_tui.lines import Row, Span, fit

_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
_SPACING = (1, 2, 4, 1, 2, 4)
"""Of so many dots of a line one is drawn, for each colour."""
AXIS = 9
SIGNS = ("━━", "╍╍", "┈┈", "━╍", "╍┈", "━┈")
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
            if drawn % _SPACING[colour] == 0:
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


# --- charts: curves, bands and points with intervals, on linear or logarithmic axes -----------------------------------


class Stroke(NamedTuple):
    """A curve through `(x, y)` points in a style; of its dots every `every`-th is drawn."""

    points: Sequence[tuple[float, float]]
    style: str
    every: int = 1


class Band(NamedTuple):
    """The area between two curves, `(x, low, high)`, in sparse dots."""

    points: Sequence[tuple[float, float, float]]
    style: str


class Points(NamedTuple):
    """Single points with intervals, `(x, y, low, high)`."""

    points: Sequence[tuple[float, float, float, float]]
    style: str
    sign: str = "●"


Layer = Stroke | Band | Points


class Frame(NamedTuple):
    """What part of the plane a chart shows.

    unit: what x is labelled in; `scale` of them make one x. log: x counts in powers of ten. percent: y is a share.
    whole: y counts things, and has no labels between whole numbers.
    """

    left: float
    right: float
    low: float
    high: float
    unit: str
    log: bool = False
    percent: bool = False
    whole: bool = False
    scale: float = 1.0


def nice_step(extent: float, most: int) -> float:
    """The smallest of 1, 2 or 5 times a power of ten that divides `extent` into at most `most` parts."""
    raw = extent / max(1, most)
    power = 10.0 ** math.floor(math.log10(raw))
    return next((power * factor for factor in (1.0, 2.0, 5.0) if power * factor >= raw * 0.999_999), power * 10.0)


def ticks(low: float, high: float, most: int) -> list[float]:
    """Round numbers between two bounds, at most `most` + 1 of them."""
    if high <= low:
        return [low]
    step = nice_step(high - low, most)
    first = math.ceil(low / step - 1e-9)
    return [number * step for number in range(first, math.floor(high / step + 1e-9) + 1)]


class _Canvas:
    """Dots and signs in a frame; what is drawn later lies on top."""

    def __init__(self, frame: Frame, columns: int, rows: int) -> None:
        self.frame, self.columns, self.rows = frame, columns, rows
        self.cells: dict[tuple[int, int], tuple[int, str]] = {}
        self.signs: dict[tuple[int, int], Span] = {}
        self.left, self.right = (math.log10(end) if frame.log else end for end in (frame.left, frame.right))

    def column(self, x: float) -> int:
        """The column of dots of an x; outside the frame where it is there."""
        if self.frame.log:
            x = math.log10(max(x, self.frame.left))
        return round((x - self.left) / (self.right - self.left) * (self.columns * 2 - 1))

    def line(self, y: float) -> int:
        """The line of dots of a y, kept just outside the frame where it is beyond."""
        frame = self.frame
        place = (frame.high - y) / (frame.high - frame.low) * (self.rows * 4 - 1)
        return round(max(-1.0, min(self.rows * 4.0, place)))

    def dot(self, x: int, y: int, style: str) -> None:
        """One dot, when it is inside."""
        if 0 <= x < self.columns * 2 and 0 <= y < self.rows * 4:
            cell = (x // 2, y // 4)
            bits, _ = self.cells.get(cell, (0, ""))
            self.cells[cell] = (bits | _DOTS[y % 4][x % 2], style)

    def draw(self, layer: Layer) -> None:
        """Draw one layer."""
        if isinstance(layer, Stroke):
            self._stroke(layer)
        elif isinstance(layer, Band):
            self._band(layer)
        else:
            self._points(layer)

    def _stroke(self, layer: Stroke) -> None:
        dots = [(self.column(x), self.line(y)) for x, y in layer.points]
        drawn = 0
        for (x0, y0), (x1, y1) in zip(dots, dots[1:] or dots, strict=False):
            steps = max(abs(x1 - x0), abs(y1 - y0), 1)
            for step in range(steps + 1):
                drawn += step > 0
                if drawn % layer.every == 0:
                    self.dot(x0 + (x1 - x0) * step // steps, y0 + (y1 - y0) * step // steps, layer.style)

    def _band(self, layer: Band) -> None:
        places = [(self.column(x), self.line(high), self.line(low)) for x, low, high in layer.points]
        for (x0, top0, bottom0), (x1, top1, bottom1) in pairwise(places):
            for x in range(max(0, x0), min(x1, self.columns * 2 - 1) + 1):
                part = (x - x0) / max(1, x1 - x0)
                top, bottom = top0 + (top1 - top0) * part, bottom0 + (bottom1 - bottom0) * part
                for y in range(max(0, round(top)), min(round(bottom), self.rows * 4 - 1) + 1):
                    if x % 2 == 0 and y % 2 == 0:
                        self.dot(x, y, layer.style)

    def _points(self, layer: Points) -> None:
        for x, y, low, high in layer.points:
            column = self.column(x) // 2
            if not 0 <= column < self.columns:
                continue
            top, bottom = (max(0, min(self.rows - 1, self.line(end) // 4)) for end in (high, low))
            for line in range(top, bottom + 1):
                self.signs[column, line] = ("│", layer.style)
            self.signs[column, max(0, min(self.rows - 1, self.line(y) // 4))] = (layer.sign, layer.style)

    def spans(self, line: int) -> list[Span]:
        """One line of the picture, neighbouring cells of a style joined."""
        out: list[Span] = []
        for column in range(self.columns):
            cell = self.signs.get((column, line))
            if cell is None:
                bits, style = self.cells.get((column, line), (0, ""))
                cell = (chr(0x2800 + bits) if bits else " ", style)
            if out and out[-1][1] == cell[1]:
                out[-1] = (out[-1][0] + cell[0], cell[1])
            else:
                out.append(cell)
        return out


def chart(layers: Sequence[Layer], frame: Frame, width: int, height: int) -> list[Row]:
    """Draw layers into `height` rows of `width` cells, axes included; the last layer lies on top."""
    columns, rows = width - AXIS - 1, height - 1
    if columns < 8 or rows < 2 or frame.right <= frame.left or frame.high <= frame.low:
        return [(("no room for a chart", "dim"),)]
    canvas = _Canvas(frame, columns, rows)
    for layer in layers:
        if layer.points:
            canvas.draw(layer)
    places = [y for y in ticks(frame.low, frame.high, max(2, rows // 3)) if not frame.whole or y == round(y)]
    labels = {canvas.line(y) // 4: y for y in places}
    out: list[Row] = []
    for line in range(rows):
        label = ""
        if line in labels:
            label = f"{labels[line]:.0%}" if frame.percent else _figure(labels[line])
        head = (fit(label, AXIS - 2, "right") + (" ┤" if label else " │"), "dim")
        out.append((head, *canvas.spans(line)))
    out.append(((" " * AXIS + _x_labels(canvas), "dim"),))
    return out


def _x_labels(canvas: _Canvas) -> str:
    """The numbers below the x axis, none touching its neighbour, the last one with the unit."""
    frame, columns = canvas.frame, canvas.columns
    left, right = frame.left * frame.scale, frame.right * frame.scale
    if frame.log:
        powers = range(math.floor(math.log10(left)), math.ceil(math.log10(right)) + 1)
        places = [factor * 10.0**power for power in powers for factor in (1, 2, 5)]
        places = [x for x in places if left <= x <= right * 1.000_001]
    else:
        places = ticks(left, right, max(2, columns // 10))
    cells = [" "] * columns
    free = columns
    for x in reversed(places):
        label = f"{_figure(x)} {frame.unit}" if free == columns else _figure(x)
        middle = canvas.column(x / frame.scale) // 2
        start = max(0, min(columns - len(label), middle - len(_figure(x)) // 2))
        if start + len(label) < free or free == columns:
            cells[start : start + len(label)] = label
            free = start
    return "".join(cells)
