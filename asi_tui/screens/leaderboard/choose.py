"""The list of columns that one chooses from, drawn over the table while it is open."""

from __future__ import annotations

from collections.abc import Sequence

from asi_tui.lines import Row, clip, fit, pad, restyle, row, rule
from asi_tui.screens.leaderboard.columns import ALWAYS, Column

WIDE, NARROW = 58, 27
ROOMY = 100
"""From so many cells on, the list says what each column shows."""
FIT = "as many as fit"


class Chooser:
    """Which columns are wanted; none means as many as fit."""

    def __init__(self, chosen: Sequence[str]) -> None:
        self.chosen = list(chosen)
        self.open = False
        self.changed = False
        self.at = 0
        self._names: list[str] = []

    def step(self, by: int) -> None:
        """Move over the list."""
        self.at = max(0, min(len(self._names), self.at + by))

    def toggle(self, shown: Sequence[str]) -> None:
        """Take the column in or out; `shown` is what one begins with where nothing was chosen before."""
        self.changed = True
        if self.at == 0:
            self.chosen = [] if self.chosen else list(shown)
            return
        name = self._names[self.at - 1]
        base = self.chosen or list(shown)
        self.chosen = [one for one in base if one != name] if name in base else [*base, name]

    def rows(self, columns: Sequence[Column], shown: Sequence[str], width: int, height: int) -> list[Row]:
        """The list, in at most `height` rows."""
        free = [column for column in columns if column.name not in ALWAYS]
        self._names = [column.name for column in free]
        self.at = min(self.at, len(free))
        lines = [row(f" {'●' if not self.chosen else '○'} {FIT}")]
        for column in free:
            on = column.name in self.chosen if self.chosen else column.name in shown
            mark = "●" if on else "○"
            name = column.head if column.name.startswith("task:") else column.name
            lines.append(row(f" {mark} {fit(name, 17)} ", (column.about if width >= WIDE else "", "dim")))
        lines = [pad(clip(line, width), width) for line in lines]
        lines[self.at] = restyle(lines[self.at], "cursor", width)
        page = max(1, height - 2)
        top = max(0, min(self.at - page // 2, len(lines) - page))
        hint = row((" Enter closes and keeps", "dim"))
        return [rule("columns", width), *lines[top : top + page], pad(hint, width)]


def over(table: Sequence[Row], panel: Sequence[Row], width: int) -> list[Row]:
    """The panel drawn over the right end of the table, a line between them."""
    wide = sum(len(text) for text, _ in panel[1]) if len(panel) > 1 else NARROW
    out = []
    for number, line in enumerate(table):
        if number < len(panel):
            line = (*pad(line, width - wide - 2), ("│ ", "rule"), *panel[number])
        out.append(line)
    return out
