"""The lines of the table: its head, a row, a row that is still on its way, the line above all of them."""

from __future__ import annotations

from collections.abc import Sequence

from asi_tui import words
from asi_tui.collect import View
from asi_tui.lines import Row, Span, clip, fit, restyle, row, rule, tagged
from asi_tui.screens.leaderboard.columns import Layout, Shown
from asi_tui.screens.leaderboard.standing import sign
from engine.client.protocol import BoardRow

LEAD = 4
"""Cells before the first column: the mark for comparing, the sign of the standing."""

SIGN_TONES = {"★": "good", "~": "accent", "?": "warn", "↑": "warn"}


def head_row(shape: Layout, shown: Shown, view: View, width: int) -> Row:
    """The heads; that of the column which orders the rows stands out, the axis names its ends."""
    spans: list[Span] = [(" " * LEAD, "")]
    for number, column in enumerate(shape.columns):
        ordered = bool(column.order) and column.order == view.order
        head = column.head.upper() if ordered else column.head
        text = shown.axis.head(column.width) if column.name == "interval" else fit(head, column.width, column.align)
        spans.append((("  " if number else "") + text, "title" if ordered else "dim"))
    return clip(tuple(spans), width)


def board_row(one: BoardRow, shape: Layout, shown: Shown, marked: bool, chosen: bool, width: int, link: bool) -> Row:
    """One experiment; every cell of it leads to its story."""
    standing = sign(one, shown.best)
    spans: list[Span] = [(" ●" if marked else "  ", "strong"), (f"{standing} ", SIGN_TONES.get(standing, ""))]
    for number, column in enumerate(shape.columns):
        text, style = column.text(one, shown)
        spans.append((("  " if number else "") + fit(text, column.width, column.align), style))
    line = clip(tuple(spans), width)
    if chosen:
        line = restyle(line, "cursor", width)
    return tagged(line, one.experiment) if link else line


def coming_row(number: int, chosen: bool, width: int) -> Row:
    """A row whose page is on its way."""
    line = row((f"{' ' * LEAD}{number:>5}  …", "faint"))
    return restyle(line, "cursor", width) if chosen else line


def title_row(view: View, order: str, found: str, ranked: int, notes: Sequence[str], width: int) -> Row:
    """The line above: the order, the condition, where one is, what is missing."""
    parts = [f"by {order}{', reversed' if view.reverse else ''}", *notes, found]
    if view.where:
        parts[-1] = f"{found}, {ranked:,} in all"
        room = width - 22 - sum(len(part) + 2 for part in parts)
        where = view.where if len(view.where) <= room else view.where[: max(8, room - 1)] + "…"
        parts.insert(1, f"where {where}")
    return rule("leaderboard", width, ", ".join(parts))


def place_words(top: int, page: int, total: int) -> str:
    """Which rows are in view."""
    if total <= page:
        return words.plural(total, "row")
    return f"{top + 1:,}–{min(total, top + page):,} of {total:,}"
