"""The three pictures of the scaling screen: the count of candidates, the best score, children against parents."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from asi_tui.fits import Fit
from asi_tui.growth import Clock, Growth, Mark
from asi_tui.lines import Row, Span, clip, row
from asi_tui.plot import SIGNS, Band, Frame, Layer, Points, Stroke, chart

View = Literal["count", "best", "beats"]
VIEWS: tuple[View, ...] = ("count", "best", "beats")
TITLES: dict[View, str] = {
    "count": "candidates better than the baseline",
    "best": "best score so far",
    "beats": "children better than their parents",
}

CHANCE = 0.025
"""The share of intervals that would lie above zero if no child differed from its parent."""

FAR_INTERVAL = 1.0
"""Intervals may take so much more room than the values themselves, before they leave the picture."""


class Look(NamedTuple):
    """How the x axis is drawn."""

    clock: Clock
    log: bool

    @property
    def unit(self) -> str:
        """The unit of the x axis, short."""
        return "h" if self.clock == "hours" else "experiments"


def picture(growth: Growth, view: View, look: Look, width: int, height: int) -> list[Row]:
    """A legend and a chart."""
    drawn = {"count": _count, "best": _best, "beats": _beats}[view](growth, look)
    if drawn is None:
        return [row((f" {NOTHING[view]}", "dim"))]
    legend, layers, frame = drawn
    drawn_rows = chart(layers, frame, width - 1, height - 1)
    return [clip(row(" ", *legend), width), *(clip(line, width) for line in drawn_rows)]


NOTHING: dict[View, str] = {
    "count": "nothing was spent on proposals yet",
    "best": "no proposal has a score with an interval yet",
    "beats": "too few children can be compared with their parents yet",
}

Drawn = tuple[list[Span], list[Layer], Frame]


def _x(look: Look) -> Callable[[Mark], float]:
    return (lambda mark: mark.hours) if look.clock == "hours" else (lambda mark: mark.experiments)


def _stairs(marks: Sequence[Mark], x: Callable[[Mark], float]) -> list[tuple[float, float]]:
    """Points of a count that stays until it grows."""
    out: list[tuple[float, float]] = []
    for mark in marks:
        if out:
            out.append((x(mark), out[-1][1]))
        out.append((x(mark), mark.value))
    return out


def _frame(look: Look, right: float, first: float, low: float, high: float, percent: bool = False) -> Frame | None:
    """The part of the plane that is shown; a logarithmic axis begins at the first event."""
    if right <= 0:
        return None
    left = min(max(first, right * 1e-4), right / 2) if look.log else 0.0
    if high - low < 1e-9:
        low, high = low - 0.5, high + 0.5
    unit, scale = ("min", 60.0) if look.clock == "hours" and right < 1 else (look.unit, 1.0)
    return Frame(left, right, low, high, unit, look.log, percent, scale=scale)


def _count(growth: Growth, look: Look) -> Drawn | None:
    x = _x(look)
    fit = growth.fit(look.clock)
    own, controls = _stairs(growth.counts, x), _stairs(growth.control_counts, x)
    end = x(growth.counts[-1])
    ahead = fit is not None and not fit.cautions
    right = fit.band[-1][0] if fit is not None and ahead else end
    shown = [point for point in fit.band if point[0] <= right * 1.000_001] if fit is not None else []
    high = max([growth.counts[-1].value, 1.0, *(point[1] for point in shown)])
    high = max(high, min(2 * high, max((point[3] for point in shown), default=0.0)))
    first = next((x(mark) for mark in growth.counts if x(mark) > 0), right)
    frame = _frame(look, right, first / 2, 0.0, high * 1.03)
    if frame is None:
        return None
    frame = frame._replace(whole=True)
    layers: list[Layer] = []
    legend: list[Span] = [(SIGNS[0], "series.0"), (" so far", "dim")]
    if fit is not None:
        layers += _fit_layers(fit, shown)
        name = "saturating" if fit.shape == "saturating" else "line"
        legend += [("  ━━", "series.2"), (f" {name}", "dim"), (" ⠕", "faint"), (" 95 %", "dim")]
        if ahead:
            legend += [("  ┈┈", "series.2"), (" ahead", "dim")]
    if len(controls) > 1:
        layers.append(Stroke(controls, "series.1", 2))
        legend += [("  " + SIGNS[1], "series.1"), (" controls", "dim")]
    return legend, [*layers, Stroke(own, "series.0")], frame


def _fit_layers(fit: Fit, shown: Sequence[tuple[float, float, float, float]]) -> list[Layer]:
    """The band, the fitted curve over the data, and beyond them in single dots."""
    inside = [(x, y) for x, y, _, _ in shown if x <= fit.end]
    beyond = [(x, y) for x, y, _, _ in shown if x >= fit.end]
    return [
        Band([(x, low, high) for x, _, low, high in shown], "faint"),
        Stroke(inside, "series.2"),
        Stroke(beyond, "series.2", 4),
    ]


def _best(growth: Growth, look: Look) -> Drawn | None:
    if not growth.best:
        return None
    x = _x(look)
    marks, controls = growth.best, growth.control_best
    values = [mark.value for mark in (*marks, *controls)] + [0.0]
    spread = max(values) - min(values) or 1.0
    low = max(min(mark.low for mark in marks), min(values) - FAR_INTERVAL * spread)
    high = min(max(mark.high for mark in marks), max(values) + FAR_INTERVAL * spread)
    right = x(growth.counts[-1])
    frame = _frame(look, right, x(marks[0]), min(low, *values), max(high, *values))
    if frame is None:
        return None
    zero: list[Layer] = [Stroke([(frame.left, 0.0), (frame.right, 0.0)], "faint", 3)]
    band = Band(_held(marks, x), "faint")
    legend: list[Span] = [(SIGNS[0], "series.0"), (" best so far", "dim"), (" ⠕", "faint"), (" 95 %", "dim")]
    layers: list[Layer] = [band, *zero]
    if controls:
        layers.append(Stroke(_stairs(controls, x), "series.1", 2))
        legend += [("  " + SIGNS[1], "series.1"), (" best control", "dim")]
    legend.append(("  0: baseline", "dim"))
    return legend, [*layers, Stroke(_stairs(marks, x), "series.0")], frame


def _held(marks: Sequence[Mark], x: Callable[[Mark], float]) -> list[tuple[float, float, float]]:
    """The interval of the best, which stays until a better one comes."""
    out: list[tuple[float, float, float]] = []
    for mark in marks:
        if out:
            out.append((x(mark), *out[-1][1:]))
        out.append((x(mark), mark.low, mark.high))
    return out


def _beats(growth: Growth, look: Look) -> Drawn | None:
    if not growth.beats:
        return None
    x = _x(look)
    points = [(x(mark), mark.value, mark.low, mark.high) for mark in growth.beats]
    right = x(growth.counts[-1])
    frame = _frame(look, right, points[0][0] / 1.5, 0.0, min(1.0, 1.05 * max(point[3] for point in points)), True)
    if frame is None:
        return None
    chance = Stroke([(frame.left, CHANCE), (frame.right, CHANCE)], "series.1", 3)
    legend: list[Span] = [("●", "series.0"), (" share", "dim"), ("  │", "series.0"), (" 95 %", "dim"),
                          ("  ┈┈", "series.1"), (" by chance", "dim")]  # fmt: skip
    return legend, [chance, Points(points, "series.0")], frame
