"""Score against cost: all rows as points, those that nothing beats in both as the front."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from asi_tui import words
from asi_tui.collect import CollectError, View, all_rows
from asi_tui.lines import Row, Span, Tag, beside, clip, paragraph, restyle, row, rule, tagged
from asi_tui.screens.base import Watch
from asi_tui.screens.keys import Key
from asi_tui.screens.leaderboard.computed import Computed
from asi_tui.screens.leaderboard.scatter import Point, scatter
from asi_tui.screens.leaderboard.standing import Glance, bounds
from asi_tui.screens.parts import table
from engine.client.protocol import BoardRow

WIDE = 120
REFRESH_SECONDS = 5.0


class Cost(NamedTuple):
    """What a score is set against: its name, its unit, its value in a row; None where it was not measured."""

    name: str
    unit: str
    of: Callable[[BoardRow], float | None]


def _slowness(row: BoardRow) -> float | None:
    return 1e6 / row.tokens_per_second if row.tokens_per_second else None


COSTS = (
    Cost("parameters", "parameters", lambda r: float(r.parameters) or None),
    Cost("training FLOPs", "FLOPs", lambda r: r.training_flops or None),
    Cost("state", "state floats", lambda r: float(r.state_floats) or None),
    Cost("CPU time", "CPU seconds", lambda r: r.cpu_seconds or None),
    Cost("slowness", "s per 1M tokens", _slowness),
)


class Drawn(NamedTuple):
    """A finished picture: its lines, the members of the front, how many rows have no such cost."""

    lines: list[Row]
    members: list[BoardRow]
    missing: int


def front_of(rows: Sequence[BoardRow], cost: Cost) -> list[BoardRow]:
    """Rows that no other equals at less cost or beats at the same, the cheapest first; one seed is not enough."""
    priced = [(price, one) for one in rows if one.seeds > 1 and bounds(one) and (price := cost.of(one)) is not None]
    members: list[BoardRow] = []
    for _, one in sorted(priced, key=lambda pair: (pair[0], -pair[1].score, pair[1].experiment)):
        if not members or one.score > members[-1].score:
            members.append(one)
    return members


def picture(rows: Sequence[BoardRow], cost: Cost, width: int, height: int) -> Drawn:
    """Everything that takes time, for a worker thread."""
    points = [Point(price, one.score, one.experiment) for one in rows if (price := cost.of(one)) is not None]
    members = front_of(rows, cost)
    front = [Point(cost.of(one) or 0.0, one.score, one.experiment) for one in members]
    return Drawn(scatter(points, front, width, height, cost.unit), members, len(rows) - len(points))


class ParetoScreen(Watch):
    """Opened from the leaderboard with its condition."""

    NAME = "Pareto front"

    def __init__(self, where: str = "") -> None:
        super().__init__()
        self.where = where
        self.cost = 0
        self.cursor = ""
        self.error = ""
        self.rows: list[BoardRow] | None = None
        self.glance = Glance()
        self.drawn: Computed[Drawn] = Computed(self)
        self._members: list[BoardRow] = []
        self._stamp: object = None
        self._fetched = -REFRESH_SECONDS

    def body(self, width: int, height: int) -> list[Row]:
        """The picture, and the members of the front below or beside it."""
        self._refresh()
        cost = COSTS[self.cost]
        where = f", where {self.where}" if self.where else ""
        if self.rows is None or (self.error and not self.rows):
            text = f" not there: {self.error}" if self.error else " on its way …"
            return [rule(f"score against {cost.name}", width), clip(row((text, "dim")), width)]
        if not self.rows:
            return [rule(f"score against {cost.name}", width), row((" no row to draw", "dim"))]
        wide = width >= WIDE
        listed = min(max(3, height // 3), max(3, len(self._members) + 1))
        across, down = (width * 11 // 20, height - 3) if wide else (width, height - listed - 4)
        rows = self.rows
        drawn = self.drawn.get((id(rows), self.cost, across, down), lambda: picture(rows, cost, across, max(4, down)))
        if drawn is None:
            return [rule(f"score against {cost.name}", width), row((" is drawn …", "dim"))]
        self._members = drawn.members
        if self.cursor not in [one.experiment for one in drawn.members]:
            self.cursor = drawn.members[0].experiment if drawn.members else ""
        right = f"{len(drawn.members)} of {len(rows):,} on the front{where}"
        head = rule(f"score against {cost.name}, up and left is better", width, right[: width - 44])
        note = "● front, from two seeds on, by point scores: neighbours may be ties"
        note += f"; {drawn.missing:,} rows without this cost" if drawn.missing else ""
        lines = [clip(_chosen(line, self.cursor), width) for line in drawn.lines]
        if wide:
            members = self._list(drawn.members, cost, width - across - 3, down - 1)
            return [head, *beside(lines, across, members), *paragraph(note, width, "dim")]
        return [head, *lines, *paragraph(note, width, "dim")[:1], *self._list(drawn.members, cost, width, listed)]

    def _list(self, members: Sequence[BoardRow], cost: Cost, width: int, height: int) -> list[Row]:
        """The front as a table, the cheapest first, in at most `height` rows."""
        self.page = max(1, height - 1)
        at = next((i for i, one in enumerate(members) if one.experiment == self.cursor), 0)
        self.top = max(0, min(max(self.top, at - self.page + 1), at, max(0, len(members) - self.page)))
        shown = members[self.top : self.top + self.page]
        columns = [("id", 6, ""), (cost.unit[:15], 15, "right"), ("score", 12, ""), ("seeds", 5, "right"),
                   ("title", max(8, width - 50), "")]  # fmt: skip
        cells: list[list[Span | str]] = [
            [("base" if one.origin == "baseline" else one.experiment, "dim"), words.count(cost.of(one) or 0.0),
             (words.score_cell(one.score, one.low, one.high), "strong"), str(one.seeds), one.title]
            for one in shown
        ]  # fmt: skip
        lines = [clip(line, width) for line in table(columns, cells)]
        for number, one in enumerate(shown, 1):
            if one.experiment == self.cursor:
                lines[number] = restyle(lines[number], "cursor", width)
            if one.experiment in self.model.state.experiments:
                lines[number] = tagged(lines[number], one.experiment)
        return lines if members else [row((" no row with an interval yet: nothing is on the front", "dim"))]

    def _refresh(self) -> None:
        """Fetch all rows when scores have changed, but not again and again while they do."""
        self.glance.scores(self.model)
        stamp, now = self.glance.stamp, time.monotonic()
        if stamp != self._stamp and now - self._fetched > REFRESH_SECONDS:
            self._stamp, self._fetched = stamp, now
            self.run_worker(self._fetch(), exit_on_error=True, exclusive=True, group="rows")

    async def _fetch(self) -> None:
        try:
            self.rows, self.error = await all_rows(self.asi.connection, View("rank", False, self.where)), ""
        except CollectError as error:
            self.error, self._stamp = str(error), None
        await asyncio.sleep(0)
        if self.is_current:
            self.draw()

    # --- keys ------------------------------------------------------------------------------------------------------

    def keys(self) -> list[Key]:
        """Another cost, the members, back."""
        keys = [
            Key(("escape", "backspace", "v"), "Esc", "back", "back to the leaderboard", self.app.pop_screen),
            Key(("x",), "x", "cost", "set the score against the next cost", self._next_cost),
        ]
        if self._members:
            keys += [
                Key(("enter",), "Enter", "open", "open the experiment's story", lambda: self.open(self.cursor)),
                Key(("up", "k"), "↑", "", "the cheaper one", lambda: self._step(-1), False),
                Key(("down", "j", "tab"), "↑↓", "choose", "the dearer one", lambda: self._step(1)),
                Key(("home", "g"), "Home", "", "the cheapest", lambda: self._step(-(10**6)), False),
                Key(("end", "G"), "End", "", "the best", lambda: self._step(10**6), False),
            ]
        return keys

    def _next_cost(self) -> None:
        self.cost = (self.cost + 1) % len(COSTS)

    def _step(self, by: int) -> None:
        names = [one.experiment for one in self._members]
        at = names.index(self.cursor) if self.cursor in names else 0
        self.cursor = names[max(0, min(len(names) - 1, at + by))]

    def wheel(self, lines: int) -> None:
        """The wheel goes over the front."""
        if self._members:
            self._step(1 if lines > 0 else -1)


def _chosen(line: Row, experiment: str) -> Row:
    """The line with the chosen member's point in the style of the cursor."""
    return tuple(
        (text, Tag("cursor", experiment) if isinstance(style, Tag) and style.target == experiment else style)
        for text, style in line
    )
