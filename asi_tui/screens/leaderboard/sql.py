"""Free questions to the run's database: one SELECT, its answer as a table that scrolls both ways."""

from __future__ import annotations

from pathlib import Path

from rich.cells import cell_len

from asi_tui import words
from asi_tui.board_files import WriteError
from asi_tui.lines import Row, Span, clip, fit, paragraph, row, rule
from asi_tui.safe import clean
from asi_tui.screens.base import Watch
from asi_tui.screens.keys import Key, Question
from asi_tui.screens.leaderboard.export import ask_path, write_in_thread
from engine.client.protocol import Table

WIDEST = 44
MEASURED = 200
"""Rows that a column's width is measured on."""
MOST_ROWS = 10_000
HISTORY = 100

EXAMPLE = "SELECT experiment, title, score FROM leaderboard WHERE seeds > 1 LIMIT 20"
TABLES = (
    "Tables: leaderboard, experiments, task_differences, trials, task_scores, approvals, agent_calls, points, scores, "
    "progress. `DESCRIBE` is not a SELECT; `SELECT * FROM trials LIMIT 1` shows a table's columns."
)


class SqlScreen(Watch):
    """Asks at its foot, shows above. The engine answers in a read-only transaction, for a bounded time."""

    NAME = "SQL"
    SCROLLS = True
    history: list[str] = []  # noqa: RUF012 -- of the whole session, whichever screen asked

    def __init__(self) -> None:
        super().__init__()
        self.statement = ""
        self.asked = 0
        self.left = 0
        self._answer: Table | None = None
        self._widths: list[tuple[int, str]] = []

    def on_mount(self) -> None:
        """Ask at once: that is what one came for."""
        self.ask_statement()

    def body(self, width: int, height: int) -> list[Row]:
        """The answer, or what can be asked."""
        if not self.statement:
            return [
                rule("SQL", width, "read-only"),
                *paragraph("One SELECT statement to the run's database. For example:", width, "dim"),
                *paragraph(EXAMPLE, width, "", "   "),
                *paragraph(TABLES, width, "dim"),
            ]
        entry = self.asi.library.sql(self.statement, self.asked, MOST_ROWS)
        if entry.value is not None and entry.value is not self._answer:
            self._take(entry.value)
        answer = self._answer
        head = clip(row((" ", ""), (self.statement, "dim")), width)
        if entry.error:
            return [rule("SQL", width), head, clip(row((" refused: ", "bad"), (entry.error, "warn")), width)]
        if answer is None:
            return [rule("SQL", width), head, row((" on its way …", "dim"))]
        self.page = max(1, height - 3)
        self.top = max(0, min(self.top, len(answer.rows) - self.page))
        self.left = max(0, min(self.left, len(answer.columns) - 1))
        shown = answer.rows[self.top : self.top + self.page]
        heads = self._line(answer.columns, "dim", width)
        return [rule("SQL", width, self._where(answer)), head, heads, *(self._line(line, "", width) for line in shown)]

    def _where(self, answer: Table) -> str:
        total = len(answer.rows)
        rows = self.position(total) or words.plural(total, "row")
        cut = ", there are more" if answer.cut else ""
        columns = f", column {self.left + 1} of {len(answer.columns)} first" if self.left else ""
        return f"{rows}{cut}{columns}"

    def _take(self, answer: Table) -> None:
        """Measure the columns of a new answer."""
        self._answer, self.top, self.left = answer, 0, 0
        self._widths = []
        for index, name in enumerate(answer.columns):
            cells = [line[index] for line in answer.rows[:MEASURED] if index < len(line)]
            widest = max([cell_len(clean(name, WIDEST)), *(cell_len(clean(cell, WIDEST)) for cell in cells)])
            numbers = bool(cells) and all(_number(cell) for cell in cells)
            self._widths.append((min(WIDEST, max(1, widest)), "right" if numbers else ""))

    def _line(self, cells: list[str], style: str, width: int) -> Row:
        spans: list[Span] = []
        for cell, (wide, align) in list(zip(cells, self._widths, strict=False))[self.left :]:
            look = "faint" if cell == "NULL" and not style else style
            spans.append((("  " if spans else " ") + fit(cell, wide, align), look))
        return clip(tuple(spans), width)

    # --- keys ------------------------------------------------------------------------------------------------------

    def keys(self) -> list[Key]:
        """Another question, sideways, the file, back."""
        keys = [
            Key(("escape", "backspace"), "Esc", "back", "back to the leaderboard", self.app.pop_screen),
            Key(("Q", "enter"), "Q", "ask", "another question", self.ask_statement),
        ]
        if self._answer is not None:
            keys += [
                Key(("left", "h"), "←", "", "one column to the left", lambda: self._sideways(-1), False),
                Key(("right", "l"), "←→", "columns", "one column to the right", lambda: self._sideways(1)),
                Key(("e",), "e", "export", "write this answer to CSV, Parquet or Markdown", self._export),
            ]
        return keys

    def _sideways(self, by: int) -> None:
        self.left = max(0, self.left + by)

    def ask_statement(self) -> None:
        """The question at the foot; up and down go through what was asked before."""
        text = "SELECT …, ↑ earlier ones:"
        self.put(Question(text, self._asked, "SQL:", typed=self.statement, history=self.history))

    def _asked(self, typed: str) -> None:
        if not typed:
            return
        if typed in self.history:
            self.history.remove(typed)
        self.history.append(typed)
        del self.history[:-HISTORY]
        self.statement, self.asked, self._answer = typed, self.asked + 1, None

    def copied(self) -> str:
        """The whole answer, with tabs between cells."""
        answer = self._answer
        if answer is None:
            return self.statement
        return "\n".join("\t".join(clean(cell) for cell in line) for line in [answer.columns, *answer.rows])

    def _export(self) -> None:
        answer = self._answer
        assert answer is not None

        def write(path: Path, replace: bool) -> None:
            self.run_worker(self._write(answer, path, replace), exit_on_error=True)

        what = f"{words.plural(len(answer.rows), 'row')}{' (not all)' if answer.cut else ''}"
        ask_path(self, what, f"{self.asi.root.name}-answer.csv", write)

    async def _write(self, answer: Table, path: Path, replace: bool) -> None:
        try:
            await write_in_thread(self, path, answer.columns, _unnull(answer), replace)
        except WriteError as error:
            self.say(f"not exported: {error}", bad=True)


def _unnull(answer: Table) -> list[list[str | int | float | bool | None]]:
    return [[None if cell == "NULL" else cell for cell in line] for line in answer.rows]


def _number(cell: str) -> bool:
    if cell == "NULL":
        return True
    try:
        float(cell)
    except ValueError:
        return False
    return True
