"""Questions to the projection that a person words: pages of the leaderboard under a condition, and free SELECTs.

The words are a person's, but rows hold what models wrote, and a question may be as costly as it likes: each runs in a
read-only transaction on a cursor of its own, as exactly one statement, for a bounded time, to a bounded answer.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any, NamedTuple

import duckdb
import msgspec

from store.state import Call

MAX_ROWS = 10_000
"""Most rows of an answer."""
MAX_QUESTION = 20_000
"""Longest question or condition, in characters."""
MAX_CELL = 2_000
"""Longest cell, in characters."""
MAX_ANSWER = 8_000_000
"""Most characters of an answer."""


class TaskGain(msgspec.Struct, frozen=True):
    """Paired difference to the baseline on one task; `noise` is the noise floor's SD."""

    task: str
    difference: float
    noise: float


class LeaderboardRow(msgspec.Struct, frozen=True):
    """One line of the leaderboard; the measured columns are None where nothing was measured.

    parameters, state_floats, training_flops, tokens: of one trial. cpu_seconds: spent on all its trials in this run.
    """

    rank: int
    experiment: str
    title: str
    origin: str
    parent: str
    control: bool
    tier: str
    score: float
    low: float | None
    high: float | None
    seeds: int
    against_parent: float | None
    against_parent_low: float | None
    against_parent_high: float | None
    parameters: int
    state_floats: int
    training_flops: float | None
    tokens: int | None
    cpu_seconds: float
    steps_per_second: float | None
    tokens_per_second: float | None
    program: str
    outcome: str
    tasks: list[TaskGain] = []


COLUMNS = tuple(name for name in LeaderboardRow.__struct_fields__ if name != "tasks")
"""By what a leaderboard can be ordered, and what its conditions are about."""
_ALIASES = {
    "state": "state_floats",
    "flops": "training_flops",
    "cpu": "cpu_seconds",
    "speed": "tokens_per_second",
}
_MOST_FIRST = frozenset(
    {
        "score", "low", "high", "seeds", "against_parent", "against_parent_low", "against_parent_high", "tokens",
        "steps_per_second", "tokens_per_second", "control",
    }
)  # fmt: skip


class Answer(NamedTuple):
    """Column names and cells as text; `cut` when there was more."""

    columns: list[str]
    rows: list[list[str]]
    cut: bool


class Desk:
    """Hands out cursors for questions to one connection, and stops those that take too long."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection
        self._lock = threading.Lock()
        self._busy: dict[int, _Question] = {}

    @contextlib.contextmanager
    def cursor(self, seconds: float, asker: object = None) -> Iterator[duckdb.DuckDBPyConnection]:
        """A cursor inside of a read-only transaction; it is interrupted after so many seconds, or by `stop`.

        Raises:
            ValueError: what was done with it is wrong, or was interrupted; the message is one line.
        """
        cursor = self._connection.cursor()
        question = _Question(cursor, asker, [])
        timer = threading.Timer(seconds, self._interrupt, (question, f"it took longer than {seconds:g} s"))
        timer.daemon = True
        with self._lock:
            self._busy[id(question)] = question
        timer.start()
        try:
            cursor.execute("BEGIN TRANSACTION READ ONLY")
            yield cursor
        except duckdb.InterruptException:
            why = question.causes[0] if question.causes else "it was interrupted"
            raise ValueError(f"the question was stopped: {why}") from None
        except duckdb.OutOfMemoryException:
            raise ValueError("the question needs more memory than there is for it; ask for less") from None
        except duckdb.Error as error:
            raise ValueError(first_line(error)) from None
        finally:
            timer.cancel()
            with self._lock:  # so that nobody interrupts a closed cursor
                del self._busy[id(question)]
                cursor.close()

    def stop(self, cause: str, asker: object = None) -> None:
        """Interrupt everything that is being asked, or only what this asker asks."""
        with self._lock:
            busy = [question for question in self._busy.values() if asker is None or question.asker is asker]
        for question in busy:
            self._interrupt(question, cause)

    def _interrupt(self, question: _Question, cause: str) -> None:
        with self._lock:
            if id(question) in self._busy:
                question.causes.append(cause)
                question.cursor.interrupt()


class _Question(NamedTuple):
    """One that is being answered; `causes` fills with why it was interrupted."""

    cursor: duckdb.DuckDBPyConnection
    asker: object
    causes: list[str]


def first_line(error: Exception) -> str:
    """What an error of DuckDB says, on one line of bounded length."""
    lines = str(error).splitlines() or [type(error).__name__]
    return lines[0][:300]


def check_statement(cursor: duckdb.DuckDBPyConnection, sql: str) -> bool:
    """Refuse what is not one statement that reads; returns whether it is a SELECT (and no EXPLAIN).

    Raises:
        ValueError: it is none.
    """
    if len(sql) > MAX_QUESTION:
        raise ValueError(f"a question has at most {MAX_QUESTION:,} characters")
    statements = cursor.extract_statements(sql)
    kinds = [statement.type for statement in statements]
    if kinds not in ([duckdb.StatementType.SELECT], [duckdb.StatementType.EXPLAIN]):
        raise ValueError("a query is one SELECT statement")
    return kinds == [duckdb.StatementType.SELECT]


def ask(cursor: duckdb.DuckDBPyConnection, sql: str, limit: int) -> Answer:
    """Answer one SELECT (or EXPLAIN) with at most `limit` rows of text.

    Raises:
        ValueError: it is no such statement.
        duckdb.Error: it is wrong.
    """
    limit = max(1, min(limit, MAX_ROWS))
    if check_statement(cursor, sql):
        # Cells become text inside of DuckDB, where they are cut before they cost us anything.
        inner = sql.strip().rstrip(";")
        cells = f"left(CAST(COLUMNS(*) AS VARCHAR), {MAX_CELL + 1})"
        cursor.execute(f"SELECT {cells} FROM (\n{inner}\n) LIMIT {limit + 1}")
    else:
        cursor.execute(sql)
    columns = [_cut(str(column[0]), 200) for column in cursor.description or []]
    rows: list[list[str]] = []
    size = sum(map(len, columns))
    while found := cursor.fetchmany(200):
        for cells_found in found:
            row = ["NULL" if cell is None else _cut(str(cell), MAX_CELL) for cell in cells_found]
            size += sum(len(cell) + 3 for cell in row)
            if len(rows) == limit or size > MAX_ANSWER:
                return Answer(columns, rows, True)
            rows.append(row)
    return Answer(columns, rows, False)


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def board(
    cursor: duckdb.DuckDBPyConnection, limit: int, order: str, offset: int, where: str, reverse: bool
) -> tuple[list[LeaderboardRow], int]:
    """A page of the leaderboard and the number of rows that satisfy the condition.

    Raises:
        ValueError: the order or the condition is wrong; the message names the columns.
    """
    ordering = _ordering(order, reverse)
    condition = f"WHERE (\n{_condition(where)}\n)" if where.strip() else ""
    try:
        total = cursor.execute(f"SELECT count(*) FROM leaderboard {condition}").fetchall()[0][0]
        statement = f"SELECT {', '.join(COLUMNS)} FROM leaderboard {condition} ORDER BY {ordering} LIMIT ? OFFSET ?"
        rows = cursor.execute(statement, [limit, offset]).fetchall()
    except (duckdb.InterruptException, duckdb.OutOfMemoryException):
        raise
    except duckdb.Error as error:
        if not condition:
            raise
        raise _wrong(first_line(error)) from None
    gains: dict[str, list[TaskGain]] = {}
    tasks = cursor.execute(
        "SELECT experiment, task, difference, noise FROM task_differences WHERE list_contains(?, experiment) "
        "ORDER BY ALL",
        [[row[1] for row in rows]],
    )
    for experiment, *gain in tasks.fetchall():
        gains.setdefault(experiment, []).append(TaskGain(*gain))
    return [LeaderboardRow(*(*row, gains.get(row[1], []))) for row in rows], total


def _condition(where: str) -> str:
    """The condition, if it is one expression and nothing else."""
    if len(where) > MAX_QUESTION:
        raise ValueError(f"a condition has at most {MAX_QUESTION:,} characters")
    try:
        duckdb.SQLExpression(where)
    except duckdb.Error as error:
        raise _wrong(first_line(error)) from None
    return where


def _wrong(reason: str) -> ValueError:
    return ValueError(f"the condition is wrong ({reason}); its columns are {', '.join(COLUMNS)}")


def _ordering(order: str, reverse: bool) -> str:
    column = _ALIASES.get(order, order or "rank")
    if column not in COLUMNS:
        raise ValueError(f"a leaderboard can be ordered by {', '.join(COLUMNS)}; not by {_cut(order, 60)!r}")
    direction = "DESC" if (column in _MOST_FIRST) != reverse else "ASC"
    return f"{column} {direction} NULLS LAST, rank" if column != "rank" else f"rank {direction}"


def calls(cursor: duckdb.DuckDBPyConnection, experiment: str, limit: int) -> list[Call]:
    """The newest agent calls of an experiment, oldest first."""
    found: list[tuple[Any, ...]] = cursor.execute(
        "SELECT id, experiment, role, agent, prompt, started, reply, coalesce(seconds, 0.0), coalesce(ok, true), error "
        "FROM agent_calls WHERE experiment = ? ORDER BY started DESC, rowid DESC LIMIT ?",
        [experiment, limit],
    ).fetchall()
    return [Call(*row) for row in reversed(found)]
