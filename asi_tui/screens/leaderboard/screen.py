"""The table itself: pages from the engine, a cursor that stays with its experiment, order, condition, marks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from asi_tui.collect import View
from asi_tui.lines import BLANK, Row, clip, row, rule
from asi_tui.preferences import save_preferences
from asi_tui.screens.base import Watch
from asi_tui.screens.keys import Key, Question
from asi_tui.screens.leaderboard.axis import axis_for
from asi_tui.screens.leaderboard.choose import NARROW, ROOMY, WIDE, Chooser, over
from asi_tui.screens.leaderboard.columns import Column, Layout, Shown, all_columns, layout
from asi_tui.screens.leaderboard.compare import CompareScreen
from asi_tui.screens.leaderboard.export import ask_path, start_export
from asi_tui.screens.leaderboard.foot import foot_rows
from asi_tui.screens.leaderboard.pages import Pages
from asi_tui.screens.leaderboard.pareto import ParetoScreen
from asi_tui.screens.leaderboard.rows import LEAD, board_row, coming_row, head_row, place_words, title_row
from asi_tui.screens.leaderboard.sql import SqlScreen
from asi_tui.screens.leaderboard.standing import Glance, Scores
from engine.client.protocol import BoardRow

MOST_MARKED = 6
MOST_TASKS = 12
LEAST_FOOT = 5


class LeaderboardScreen(Watch):
    """A table with a cursor; Enter opens an experiment."""

    NAME = "Leaderboard"
    SHORT = "Board"

    def __init__(self) -> None:
        super().__init__()
        self.pages = Pages()
        self.glance = Glance()
        self.cursor = ""
        self.index = 0
        self.marked: list[str] = []
        self.tasks: list[str] = []
        self.chooser: Chooser | None = None
        self.shape = Layout([], 0, 0)

    @property
    def view(self) -> View:
        """What is shown."""
        return self.pages.view

    # --- drawing ---------------------------------------------------------------------------------------------------

    def body(self, width: int, height: int) -> list[Row]:
        """The table, then what the chosen row says."""
        scores = self.glance.scores(self.model)
        if self.pages.settle(self.asi.library, self.glance.stamp):
            self.index = self.top = 0
            self.cursor = ""
        if not self.pages.total:
            return self._nothing(scores, width)
        self._follow()
        foot_room = max(LEAST_FOOT, min(13, height // 4)) if height >= 16 else 4
        self.page = max(1, height - 2 - foot_room - bool(self.pages.refused))
        total = self.pages.total
        self.top = max(0, min(max(self.top, self.index - self.page + 1), self.index, total - self.page))
        self.pages.around(self.top, self.page)
        seen = [self.pages.row(index) for index in range(self.top, min(total, self.top + self.page))]
        lines = self._table(seen, scores, width)
        chosen = self.pages.row(self.index)
        spare = self.page - len(seen)
        foot = [] if chosen is None else foot_rows(chosen, scores.best, self.model.state, width, foot_room + spare)
        if len(seen) < self.page:  # a short table: its foot stands below it and tells as much as there is room for
            lines += [BLANK] if spare > 1 else []
            foot = foot[: foot_room + spare - 1] if spare > 1 else foot
        lines = [*lines, *foot]
        if self.chooser is not None:
            lines = self._choosing(lines, self.chooser, width, height - 1)
        return [self._title(scores, width), *lines]

    def _title(self, scores: Scores, width: int) -> Row:
        notes = []
        if self.shape.dropped and self._choice:
            notes.append(f"{self.shape.dropped} chosen columns have no room")
        if self.marked:
            notes.append(f"{len(self.marked)} marked")
        if self.pages.wanted != self.view:
            notes.append("asking …")
        place = place_words(self.top, self.page, self.pages.total)
        order = next((one.name for one in all_columns([]) if one.order == self.view.order), self.view.order)
        return title_row(self.view, order, place, scores.ranked, notes, width)

    def _table(self, seen: Sequence[BoardRow | None], scores: Scores, width: int) -> list[Row]:
        there = [one for one in seen if one is not None]
        for one in there:
            new = [gain.task for gain in one.tasks if gain.task not in self.tasks]
            self.tasks = [*self.tasks, *new][:MOST_TASKS] if new else self.tasks
        self.shape = layout(all_columns(self.tasks, self.pages.total), self._choice, width - LEAD)
        shown = Shown(scores.best, axis_for(there), self.shape.axis_width)
        lines = [head_row(self.shape, shown, self.view, width)]
        if self.pages.refused:
            lines.insert(0, clip(row((" refused: ", "bad"), (self.pages.refused, "warn")), width))
        known, marks = self.model.state.experiments, set(self.marked)
        for index, found in enumerate(seen, self.top):
            at = index == self.index
            if found is None:
                lines.append(coming_row(index + 1, at, width))
            else:
                link = found.experiment in known
                lines.append(board_row(found, self.shape, shown, found.experiment in marks, at, width, link))
        return lines

    def _choosing(self, lines: list[Row], chooser: Chooser, width: int, height: int) -> list[Row]:
        names = [column.name for column in self.shape.columns]
        panel = chooser.rows(self._columns(), names, WIDE if width >= ROOMY else NARROW, height)
        lines = [*lines, *[BLANK] * (len(panel) - len(lines))]
        return over(lines, panel, width)

    def _nothing(self, scores: Scores, width: int) -> list[Row]:
        """What stands there while there is no row to show."""
        if self.view.where and self.pages.arrived:
            head = title_row(self.view, self.view.order, "no row", scores.ranked, [], width)
            return [head, row((" no row satisfies the condition; f changes it, an empty one shows all", "dim"))]
        if self.pages.error:
            text = f" not there: {self.pages.error}"
        elif scores.ranked and not self.pages.arrived:
            text = " on its way …"
        else:
            text = " nobody is ranked yet: a row appears when a trial has been scored against the baseline"
        return [rule("leaderboard", width), clip(row((text, "dim")), width)]

    def _columns(self) -> list[Column]:
        return all_columns(self.tasks)

    @property
    def _choice(self) -> list[str]:
        return self.chooser.chosen if self.chooser is not None else list(self.asi.preferences.columns)

    def _follow(self) -> None:
        """Keep the cursor on its experiment while rows move."""
        total = self.pages.total
        self.index = max(0, min(self.index, total - 1))
        here = self.pages.row(self.index)
        if self.cursor and here is not None and here.experiment != self.cursor:
            place = self.pages.place(self.cursor, self.index)
            self.index = place if place is not None else self.index
            here = self.pages.row(self.index)
        if here is not None:
            self.cursor = here.experiment

    # --- keys ------------------------------------------------------------------------------------------------------

    def keys(self) -> list[Key]:
        """Moving, sorting, filtering, choosing, comparing, exporting."""
        if self.chooser is not None:
            return self._choosing_keys(self.chooser)
        if not self.pages.total:
            return [Key(("f",), "f", "filter", "show other rows", self._ask_where)] if self.view.where else []
        roomy = self.size.width >= 110
        compare = "compare" if self.marked else "to parent"
        keys = [
            Key(("enter",), "Enter", "open", "open the experiment's story", self._open),
            Key(("s",), "s", "sort", "sort by the next column that is shown", self._next_sort),
            Key(("o",), "o", "turn", "turn the order round", self._reverse, False),
            Key(("f",), "f", "filter", "show only rows for which an expression holds", self._ask_where),
            Key(("c",), "c", "columns", "choose columns", self._choose, roomy),
            Key(("m", "space"), "m", "mark", "mark this row for comparing (up to 6)", self._mark),
            Key(("=",), "=", compare, "compare the marked rows, or this one with its parent", self._compare),
            Key(("v",), "v", "Pareto", "score against cost", self._pareto, roomy),
            Key(("e",), "e", "export", "write all rows to CSV, Parquet or Markdown", self._export, roomy),
            Key(("Q",), "Q", "SQL", "ask the run's database a question of your own", self.ask_sql, False),
        ]  # fmt: skip
        if self.marked or self.pages.refused:
            keys.append(Key(("escape",), "Esc", "", "take all marks away", self._clear, False))
        return [*keys, *self._moving_keys()]

    def _moving_keys(self) -> list[Key]:
        def by(lines: int) -> Callable[[], None]:
            return lambda: self.move(lines)

        half = max(1, self.page // 2)
        return [
            Key(("up", "k"), "↑", "", "one row up", by(-1), False),
            Key(("down", "j"), "↓", "", "one row down", by(1), False),
            Key(("pageup", "ctrl+b"), "PgUp", "", "one page up", by(-self.page), False),
            Key(("pagedown", "ctrl+f"), "PgDn", "", "one page down", by(self.page), False),
            Key(("ctrl+u",), "^U", "", "half a page up", by(-half), False),
            Key(("ctrl+d",), "^D", "", "half a page down", by(half), False),
            Key(("home", "g"), "Home", "", "to the first row", by(-(10**9)), False),
            Key(("end", "G"), "End", "", "to the last row", by(10**9), False),
        ]

    def _choosing_keys(self, chooser: Chooser) -> list[Key]:
        def toggle() -> None:
            chooser.toggle([column.name for column in self.shape.columns])

        return [
            Key(("space",), "Space", "show or hide", "show or hide this column", toggle),
            Key(("up", "k"), "↑", "", "one line up", lambda: chooser.step(-1), False),
            Key(("down", "j"), "↑↓", "choose", "one line down", lambda: chooser.step(1)),
            Key(("enter", "escape", "c"), "Enter", "close", "close the list and keep the choice", self._chosen),
        ]

    def move(self, by: int) -> None:
        """Move the cursor; a row whose page is on its way can be gone to as well."""
        self.index = max(0, min(self.pages.total - 1, self.index + by))
        here = self.pages.row(self.index)
        self.cursor = here.experiment if here is not None else ""

    def wheel(self, lines: int) -> None:
        """The wheel moves the cursor."""
        if self.pages.total and self.chooser is None:
            self.move(lines)

    def _open(self) -> None:
        if self.cursor in self.model.state.experiments:
            self.open(self.cursor)

    def _next_sort(self) -> None:
        orders = [column.order for column in self.shape.columns if column.order]
        now = self.pages.wanted.order
        order = orders[(orders.index(now) + 1) % len(orders)] if now in orders else orders[0]
        self.pages.want(self.pages.wanted._replace(order=order, reverse=False))

    def _reverse(self) -> None:
        wanted = self.pages.wanted
        self.pages.want(wanted._replace(reverse=not wanted.reverse))

    def _ask_where(self) -> None:
        def answer(typed: str) -> None:
            self.pages.want(self.pages.wanted._replace(where=typed))

        text = "show rows where (score > 1 and seeds > 1; empty shows all):"
        self.put(Question(text, answer, "where:", typed=self.view.where))

    def _choose(self) -> None:
        self.chooser = Chooser(self.asi.preferences.columns)

    def _chosen(self) -> None:
        chooser, self.chooser = self.chooser, None
        if chooser is not None and chooser.changed:
            names = [column.name for column in self._columns() if column.name in chooser.chosen]
            hidden = [name for name in chooser.chosen if name not in names]
            self.asi.preferences = msgspec.structs.replace(self.asi.preferences, columns=[*names, *hidden])
            self.run_worker(self._keep_choice(), exit_on_error=True)

    async def _keep_choice(self) -> None:
        error = await asyncio.to_thread(save_preferences, self.asi.preferences)
        self.say(f"chosen for this time only: {error}" if error else "columns kept", bad=bool(error))

    def _mark(self) -> None:
        if self.cursor in self.marked:
            self.marked.remove(self.cursor)
        elif len(self.marked) == MOST_MARKED:
            self.say(f"{MOST_MARKED} rows are marked, no more can be compared", bad=True)
        elif self.cursor:
            self.marked.append(self.cursor)
            self.move(1)

    def _clear(self) -> None:
        self.marked = []
        self.pages.refused = ""

    def _compare(self) -> None:
        names = [*self.marked]
        if len(names) < 2 and self.cursor and self.cursor not in names:
            names.append(self.cursor)
        if len(names) == 1:
            here = self.pages.row(self.index)
            parent = here.parent if here is not None and here.experiment == names[0] else ""
            names += [parent] if parent else []
        if len(names) < 2:
            self.say("mark another row with m to compare with; this one has no parent", bad=True)
        else:
            self.app.push_screen(CompareScreen(names))

    def _pareto(self) -> None:
        self.app.push_screen(ParetoScreen(self.view.where))

    def ask_sql(self) -> None:
        """Open the screen for free questions, with the question at its foot."""
        self.app.push_screen(SqlScreen())

    def _export(self) -> None:
        view = self.view

        def answer(path: Path, replace: bool) -> None:
            start_export(self, view, path, replace)

        ask_path(self, f"all {self.pages.total:,} rows", f"{self.asi.root.name}-leaderboard.csv", answer)
