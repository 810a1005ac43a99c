"""Screen 5, the leaderboard: every ranked experiment with its interval, size, speed and descent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from asi_tui import words
from asi_tui.lines import Row, Span, clip, pad, restyle, row, rule
from asi_tui.screens.base import Watch
from asi_tui.screens.keys import Key
from asi_tui.screens.parts import interval, table
from engine.client.protocol import BoardRow


class Column(NamedTuple):
    """A column: head, width, alignment, what it sorts by, what it shows, and how early it goes when space is short."""

    head: str
    width: int
    align: str
    by: Callable[[BoardRow], Any]
    text: Callable[[BoardRow], Span]
    priority: int


def _against_parent(one: BoardRow) -> Span:
    if one.against_parent is None:
        return ("", "")
    word = words.verdict(one.against_parent_low, one.against_parent_high)
    text = words.score_cell(one.against_parent, one.against_parent_low, one.against_parent_high)
    return (text, {"better": "good", "worse": "bad"}.get(word, ""))


def _short_id(one: BoardRow) -> Span:
    return ("base" if one.origin == "baseline" else one.experiment, "dim")


def _verdict(one: BoardRow) -> Span:
    word = words.verdict(one.low, one.high)
    return (word, {"better": "good", "worse": "bad"}.get(word, "dim"))


COLUMNS = (
    Column("#", 3, "right", lambda r: r.rank, lambda r: (str(r.rank or ""), "dim"), 0),
    Column("id", 6, "", lambda r: r.experiment, _short_id, 0),
    Column("score", 12, "", lambda r: -r.score, lambda r: (words.score_cell(r.score, r.low, r.high), "strong"), 0),
    Column("verdict", 7, "", lambda r: -(r.low if r.low is not None else -1e9), _verdict, 2),
    Column("vs parent", 12, "", lambda r: -(r.against_parent if r.against_parent is not None else -1e9),
           _against_parent, 4),
    Column("seeds", 5, "right", lambda r: -(r.seeds or 0), lambda r: (str(r.seeds or ""), ""), 1),
    Column("params", 7, "right", lambda r: -(r.parameters or 0), lambda r: (words.count(r.parameters or 0), ""), 3),
    Column("state", 6, "right", lambda r: -(r.state_floats or 0), lambda r: (words.count(r.state_floats or 0), ""), 3),
    Column("tok/s", 6, "right", lambda r: -(r.tokens_per_second or 0),
           lambda r: (words.count(r.tokens_per_second or 0), ""), 4),
    Column("flops", 6, "right", lambda r: -(r.training_flops or 0),
           lambda r: (words.count(r.training_flops or 0), ""), 7),
    Column("cpu", 8, "right", lambda r: -(r.cpu_seconds or 0), lambda r: (words.age(r.cpu_seconds or 0), ""), 6),
    Column("origin", 8, "", lambda r: r.origin, lambda r: ("control" if r.control else r.origin, "dim"), 5),
    Column("parent", 16, "", lambda r: r.parent or "", lambda r: (r.parent or "", "dim"), 5),
)  # fmt: skip


class LeaderboardScreen(Watch):
    """A table with a cursor; Enter opens an experiment."""

    NAME = "Leaderboard"
    SHORT = "Board"

    def __init__(self) -> None:
        super().__init__()
        self.cursor = ""
        self.sort = "score"
        self.reverse = False
        self._sorted: tuple[object, list[BoardRow]] = (None, [])

    def rows(self) -> tuple[list[BoardRow], str]:
        """The rows in the wanted order, and what went wrong with the newest question."""
        state = self.model.state
        stamp = tuple((one.id, one.scored.seeds, one.scored.score) for one in state.ranking() if one.scored)
        entry = self.asi.library.board(hash(stamp))
        found, error = entry.value.rows if entry.value is not None else None, entry.error
        key = (id(found), self.sort, self.reverse)
        if found is not None and self._sorted[0] != key:
            column = next(one for one in COLUMNS if one.head == self.sort)
            self._sorted = (key, sorted(found, key=column.by, reverse=self.reverse))
        return self._sorted[1], error

    def body(self, width: int, height: int) -> list[Row]:
        """The table, then what the chosen row says."""
        rows, error = self.rows()
        order = f"by {self.sort}{', reversed' if self.reverse else ''}"
        if not rows:
            text = f" not there: {error}" if error else " nobody is ranked yet"
            return [rule("leaderboard", width), row((text, "dim"))]
        ids = [one.experiment for one in rows]
        if self.cursor not in ids:
            self.cursor = ids[0]
        self.page = max(1, height - 5)
        index = ids.index(self.cursor)
        self.top = max(0, min(max(self.top, index - self.page + 1), index, max(0, len(rows) - self.page)))
        shown = rows[self.top : self.top + self.page]
        columns, title_width = _fitting(width)
        cells = [[*(column.text(one) for column in columns), self._title(one)] for one in shown]
        heads = [(self._head(column), column.width, column.align) for column in columns]
        lines = table([*heads, ("title", title_width, "")], cells)
        lines = [clip(line, width) for line in lines]
        lines[index - self.top + 1] = restyle(lines[index - self.top + 1], "cursor", width)
        lines += [()] * (self.page + 1 - len(lines))
        where = self.position(len(rows)) or words.plural(len(rows), "experiment")
        head = rule("leaderboard", width, f"{order}, {where}")
        return [head, *lines, *self._foot(rows[index], width)]

    def _head(self, column: Column) -> str:
        return column.head.upper() if column.head == self.sort else column.head

    def _title(self, one: BoardRow) -> Span:
        return (one.title or one.experiment, "dim" if one.origin == "baseline" else "")

    def _foot(self, one: BoardRow, width: int) -> list[Row]:
        low, high = one.low, one.high
        if low is None or high is None or not words.known(low, high):
            text = "too few seeds for an interval"
        else:
            text = f"95 % interval {words.signed(low)} to {words.signed(high)}"
        axis = min(48, width - 44)
        extent = max(abs(one.score), abs(low or 0.0) if words.known(low, high) else 0.0,
                     abs(high or 0.0) if words.known(low, high) else 0.0, 0.5) * 1.2  # fmt: skip
        drawn = interval(one.score, low if low is not None else 1e9, high if high is not None else 1e9, extent, axis)
        return [
            rule(f"{one.experiment} {one.title}", width, "units: seed noise of the baseline, which is 0"),
            pad(row((f" {drawn}  ", "accent"), (text, "dim")), width),
            row((" Enter opens its story", "dim")),
        ]

    def keys(self) -> list[Key]:
        """Moving, sorting, opening."""
        if not self._sorted[1]:
            return []

        def by(lines: int) -> Callable[[], None]:
            return lambda: self._move(lines)

        return [
            Key(("enter",), "Enter", "open", "open the experiment's story", self._open),
            Key(("s",), "s", "sort", "sort by the next column", self._next_sort),
            Key(("o",), "o", "reverse", "turn the order round", self._reverse),
            Key(("up", "k"), "↑", "", "one row up", by(-1), False),
            Key(("down", "j"), "↓", "", "one row down", by(1), False),
            Key(("pageup",), "PgUp", "", "one page up", by(-self.page), False),
            Key(("pagedown", "space"), "PgDn", "", "one page down", by(self.page), False),
            Key(("home", "g"), "Home", "", "to the first row", by(-(10**6)), False),
            Key(("end", "G"), "End", "", "to the last row", by(10**6), False),
        ]

    def _move(self, by: int) -> None:
        ids = [one.experiment for one in self._sorted[1]]
        index = ids.index(self.cursor) if self.cursor in ids else 0
        self.cursor = ids[max(0, min(len(ids) - 1, index + by))]

    def _next_sort(self) -> None:
        heads = [column.head for column in _fitting(self.size.width)[0]]
        self.sort = heads[(heads.index(self.sort) + 1) % len(heads)] if self.sort in heads else "score"

    def _reverse(self) -> None:
        self.reverse = not self.reverse

    def _open(self) -> None:
        if self.cursor in self.model.state.experiments:
            self.open(self.cursor)


def _fitting(width: int) -> tuple[list[Column], int]:
    """The columns that fit beside a readable title."""
    chosen = sorted(COLUMNS, key=lambda column: column.priority)
    wanted = 24 if width < 120 else 36
    while sum(column.width + 2 for column in chosen) + wanted + 2 > width:
        chosen.pop()
    columns = [column for column in COLUMNS if column in chosen]
    return columns, width - 2 - sum(column.width + 2 for column in columns)
