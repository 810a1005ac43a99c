"""Intervals drawn on one axis that all rows in view share; the baseline, 0, is a line through all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from rich.cells import cell_len

from asi_tui import words
from asi_tui.screens.leaderboard.standing import bounds
from engine.client.protocol import BoardRow

STEPS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0)


class Axis(NamedTuple):
    """From `low` at the first cell to `high` at the last one."""

    low: float
    high: float

    def place(self, value: float, width: int) -> int:
        """The cell of a value; those outside fall on the edges."""
        share = (value - self.low) / (self.high - self.low)
        return max(0, min(width - 1, round(share * (width - 1))))

    def draw(self, row: BoardRow, width: int) -> str:
        """`├──●──┤`, or a bare point where nothing is known; `◂` and `▸` where it goes on outside."""
        cells = [" "] * width
        cells[self.place(0.0, width)] = "│"
        found = bounds(row)
        if found is not None:
            first, last = self.place(found[0], width), self.place(found[1], width)
            cells[first:last] = "─" * (last - first)
            cells[last] = "▸" if found[1] > self.high else "┤"
            cells[first] = "◂" if found[0] < self.low else "├"
        cells[self.place(row.score, width)] = "○" if found is None else "●"
        return "".join(cells)

    def head(self, width: int) -> str:
        """The axis's own line: its ends, and 0 where there is room for it."""
        cells = [" "] * width
        low, high = _tick(self.low), _tick(self.high)
        cells[: cell_len(low)] = low
        cells[width - cell_len(high) :] = high
        zero = self.place(0.0, width)
        if cell_len(low) < zero < width - cell_len(high) - 1:
            cells[zero] = "0"
        return "".join(cells)[:width]


def _tick(value: float) -> str:
    return "0" if value == 0 else f"{value:+g}"


def axis_for(rows: Sequence[BoardRow]) -> Axis:
    """An axis for rows, with round ends and 0 in it; very wide intervals are cut rather than all others squeezed."""
    values = [row.score for row in rows]
    ends = [end for row in rows for end in bounds(row) or ()]
    if not values:
        return Axis(-1.0, 1.0)
    spread = max(max(values) - min(values), abs(max(values)), abs(min(values)), 0.5)
    low = min(0.0, *values, *(end for end in ends if end >= min(values) - spread))
    high = max(0.0, *values, *(end for end in ends if end <= max(values) + spread))
    step = next((step for step in STEPS if (high - low) / step <= 12), STEPS[-1])
    return Axis(step * (low // step), -step * (-high // step))


def extent_words(row: BoardRow) -> str:
    """The interval in words."""
    found, seeds = bounds(row), words.plural(row.seeds, "seed")
    if found is None:
        return f"{seeds}, too few for an interval"
    return f"95 % interval {words.signed(found[0])} to {words.signed(found[1])} over {seeds}"


def score_words(row: BoardRow, cell: bool = False) -> str:
    """The score with its margin, `±?` where there is none; as a cell of a column where asked."""
    low, high = bounds(row) or (None, None)
    return words.score_cell(row.score, low, high) if cell else words.score(row.score, low, high)
