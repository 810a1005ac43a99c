"""The DuckDB projection: leaderboard, experiments, trials, curves, approvals, agent calls.

A cache of the journal and the trials' curve files, made for questions. It can be deleted at any time and `rebuild`
makes it again, to the same answer (`dump` is what must be equal). The engine is the only one to open it.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import pyarrow as pa

from store import curves, journal, questions
from store import events as ev
from store.folding import fold
from store.questions import Answer, LeaderboardRow, TaskGain
from store.schema import FORMAT, KEYS, SCHEMAS, Batch, Row, collect, create_statements, table
from store.state import Call, RunState

__all__ = [
    "Answer", "LeaderboardRow", "Projection", "ProjectionBroken", "ProjectionError", "ProjectionLocked",
    "RebuildReport", "TaskGain", "open_in_step", "rebuild",
]  # fmt: skip

MEMORY_LIMIT = "256MB"
TEMPORARY_LIMIT = "1GB"
CHUNK = 2000
RETRIES = 20
PAGE_SECONDS = 5.0
"""How long one page of the leaderboard may take."""
ASK_SECONDS = 20.0
"""How long a free question may take."""


class ProjectionError(Exception):
    """The database cannot be used; the message is one line."""


class ProjectionLocked(ProjectionError):
    """Another process has the database open."""


class ProjectionBroken(ProjectionError):
    """Damaged, of another version, or not what the journal says: `rebuild` helps."""


class RebuildReport(NamedTuple):
    """What was read to make the projection; `reason` says why it was made anew, empty where it was not."""

    records: int
    head: str
    experiments: int
    trials: int
    points: int
    seconds: float
    reason: str


class Projection:
    """An open projection. Writing is serialised by a lock; reads use their own cursor and may come from any thread."""

    def __init__(self, path: Path, connection: duckdb.DuckDBPyConnection, seq: int, head: str) -> None:
        """Use `Projection.open` or `open_in_step`."""
        self.path, self.seq, self.head = path, seq, head
        self._connection = connection
        self._lock = threading.Lock()
        self._questions = questions.Desk(connection)

    @classmethod
    def open(cls, path: Path) -> Projection:
        """Open or create the database.

        Raises:
            ProjectionLocked: another process has it open.
            ProjectionBroken: it is damaged or of another version.
        """
        try:
            connection = duckdb.connect(
                str(path),
                config={
                    "memory_limit": MEMORY_LIMIT,
                    "threads": 1,
                    "autoinstall_known_extensions": False,
                    "autoload_known_extensions": False,
                },
            )
        except duckdb.Error as error:
            text = str(error).splitlines()[0]
            if "lock on file" in text:
                raise ProjectionLocked(f"{path} is open in another process: {text}") from None
            raise ProjectionBroken(f"{path} cannot be opened: {text}") from None
        try:
            seq, head = _prepare(connection, path)
        except (duckdb.Error, ProjectionError) as error:
            connection.close()
            raise ProjectionBroken(f"{path}: {str(error).splitlines()[0]}") from None
        return cls(path, connection, seq, head)

    def close(self) -> None:
        """Write everything into the database file and close it."""
        with self._lock:
            self._connection.close()

    # --- writing ---

    def apply(self, records: list[ev.Record], state: RunState) -> None:
        """Bring the projection up to the last of `records`; `state` has them folded in.

        Raises:
            ValueError: records are missing between the projection and the first of these.
        """
        fresh = [record for record in records if record.seq > self.seq]
        if fresh:
            self.write(collect(fresh, state))

    def write(self, batch: Batch) -> None:
        """Write a collected batch in one transaction; a batch that is in already changes nothing.

        Raises:
            ValueError: records are missing between the projection and the batch.
        """
        with self._lock:
            if batch.seq <= self.seq:
                return
            if batch.first > self.seq + 1:
                raise ValueError(f"the projection is at record {self.seq}, the batch begins at {batch.first}")
            self._with_memory(lambda: self._transaction(lambda: self._write(batch)))
            self.seq, self.head = batch.seq, batch.head

    def _with_memory(self, work: Callable[[], None]) -> None:
        """Questions share the memory with the writing: where it runs out, they go first."""
        for _ in range(RETRIES):
            try:
                return work()
            except duckdb.OutOfMemoryException:
                self.stop_asking("the engine needed the memory; ask for less")
                time.sleep(0.05)
        return work()

    def _transaction(self, work: Callable[[], None]) -> None:
        self._connection.execute("BEGIN TRANSACTION")
        try:
            work()
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    def _write(self, batch: Batch) -> None:
        for name, key in KEYS.items():
            if batch.changed[name]:
                changed = pa.table({"key": batch.changed[name]})
                self._with(changed, f"DELETE FROM {name} WHERE {key} IN (SELECT key FROM incoming)")
            if batch.rows[name]:
                self._with(table(name, batch.rows[name]), f"INSERT INTO {name} SELECT * FROM incoming")
        for reply in batch.replies:
            self._connection.execute(
                "UPDATE agent_calls SET reply = ?, seconds = ?, ok = ?, tokens_in = ?, tokens_out = ?, cost = ?, "
                "error = ? WHERE id = ?",
                list(reply),
            )
        self._connection.execute("UPDATE meta SET seq = ?, head = ?", [batch.seq, batch.head])

    def _with(self, incoming: pa.Table, statement: str) -> None:
        self._connection.register("incoming", incoming)
        try:
            self._connection.execute(statement)
        finally:
            self._connection.unregister("incoming")

    def add_points(self, trial: str, points: Iterable[curves.Point]) -> None:
        """Add points of a running trial; a (task, step) that is there already stays as it is."""
        rows = [(trial, p.task, p.step, p.steps, p.loss, p.seconds, p.gradient_norm) for p in _first(points)]
        self._add("points", trial, rows)

    def add_scores(self, trial: str, scores: Iterable[curves.Score]) -> None:
        """Add scored points of a running trial; a (task, step) that is there already stays as it is."""
        self._add("scores", trial, [(trial, s.task, s.step, s.value, s.loss) for s in _first(scores)])

    def load_curves(self, trials: Path, trial: str) -> int:
        """Replace the trial's points and scores by what its files hold; call it when the trial has ended.

        Returns the number of points.
        """
        points = curves.read_points(trials, trial).lines
        scores = curves.read_scores(trials, trial).lines
        with self._lock:
            for name in ("points", "scores", "progress"):
                self._connection.execute(f"DELETE FROM {name} WHERE trial = ?", [trial])
        self.add_points(trial, points)
        self.add_scores(trial, scores)
        return len(points)

    def _add(self, name: str, trial: str, rows: list[Row]) -> None:
        if not rows:
            return
        known = f"SELECT 1 FROM {name} k WHERE k.trial = '{trial}' AND k.task = i.task AND k.step = i.step"

        def work() -> None:
            self._with(table(name, rows), f"INSERT INTO {name} SELECT * FROM incoming i WHERE NOT EXISTS ({known})")
            if name == "points":
                self._connection.execute("DELETE FROM progress WHERE trial = ?", [trial])
                self._connection.execute(
                    "INSERT INTO progress SELECT trial, task, max(step), max(steps) FROM points WHERE trial = ? "
                    "GROUP BY trial, task",
                    [trial],
                )

        if not curves.is_trial_id(trial):
            raise ValueError(f"{trial!r} is no trial")
        with self._lock:
            self._with_memory(lambda: self._transaction(work))

    # --- reading ---

    def leaderboard(
        self, limit: int = 100, order: str = "rank", *, offset: int = 0, where: str = "", reverse: bool = False
    ) -> list[LeaderboardRow]:
        """A page of the best experiments, with their per-task differences to the baseline. See `board`."""
        return self.board(limit, order, offset=offset, where=where, reverse=reverse)[0]

    def board(
        self, limit: int = 100, order: str = "rank", *, offset: int = 0, where: str = "", reverse: bool = False
    ) -> tuple[list[LeaderboardRow], int]:
        """A page of the leaderboard, and how many rows satisfy the condition `where` in all.

        Raises:
            ValueError: the order or the condition is wrong, or takes too long; one line.
        """
        with self._questions.cursor(PAGE_SECONDS) as cursor:
            return questions.board(cursor, limit, order, offset, where, reverse)

    def calls(self, experiment: str, limit: int) -> list[Call]:
        """The newest `limit` agent calls of an experiment, oldest first."""
        with self._questions.cursor(PAGE_SECONDS) as cursor:
            return questions.calls(cursor, experiment, limit)

    def ask(self, sql: str, limit: int = questions.MAX_ROWS, asker: object = None) -> Answer:
        """At most `limit` rows of one statement, which can only read, with every cell as bounded text.

        It may take `ASK_SECONDS`; `asker` is what `stop_asking` knows it by.

        Raises:
            ValueError: it is not one readable statement, or is wrong, or took too long; one line.
        """
        with self._questions.cursor(ASK_SECONDS, asker) as cursor:
            return questions.ask(cursor, sql, limit)

    def stop_asking(self, cause: str, asker: object = None) -> None:
        """Interrupt what is being asked (by one asker, where given); who waits gets a `ValueError` with the cause."""
        self._questions.stop(cause, asker)

    def curve(self, trial: str) -> list[curves.Point]:
        """The training points of a trial, by task and step."""
        columns = "task, step, steps, loss, seconds, gradient_norm"
        rows = self._read(f"SELECT {columns} FROM points WHERE trial = ? ORDER BY task, step", [trial])
        return [curves.Point(*row) for row in rows]

    def scores(self, trial: str) -> list[curves.Score]:
        """The scored points of a trial, by task and step."""
        rows = self._read("SELECT task, step, value, loss FROM scores WHERE trial = ? ORDER BY task, step", [trial])
        return [curves.Score(*row) for row in rows]

    def query(self, sql: str) -> tuple[list[str], list[Row]]:
        """Column names and at most 10,000 rows of one statement, which can only read.

        Raises:
            ValueError: it is not one readable statement, or it is wrong; the message is one line.
        """
        with self._questions.cursor(ASK_SECONDS) as cursor:
            questions.check_statement(cursor, sql)
            cursor.execute(sql)
            names = [column[0] for column in cursor.description or []]
            return names, cursor.fetchmany(questions.MAX_ROWS)

    def dump(self) -> dict[str, list[Row]]:
        """Every table and the leaderboard, each in one fixed order: equal dumps mean equal projections."""
        return {name: self._read(f"SELECT * FROM {name} ORDER BY ALL") for name in (*SCHEMAS, "meta", "leaderboard")}

    def _read(self, sql: str, parameters: list[Any] | None = None) -> list[Row]:
        cursor = self._connection.cursor()
        try:
            return cursor.execute(sql, parameters or []).fetchall()
        finally:
            cursor.close()


def _first(lines: Iterable[Any]) -> list[Any]:
    """The first line of each (task, step)."""
    found: dict[tuple[str, int], Any] = {}
    for line in lines:
        found.setdefault((line.task, line.step), line)
    return list(found.values())


def _prepare(connection: duckdb.DuckDBPyConnection, path: Path) -> tuple[int, str]:
    """Lock the settings down and make the tables where there are none; returns the last record that is in."""
    temporary = str(path.with_name(f".{path.name}.tmp")).replace("'", "''")
    connection.execute(f"SET temp_directory = '{temporary}'")
    connection.execute(f"SET max_temp_directory_size = '{TEMPORARY_LIMIT}'")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    os.chmod(path, 0o600)
    if not connection.execute("SELECT count(*) FROM duckdb_tables()").fetchall()[0][0]:
        connection.execute("BEGIN TRANSACTION")
        for statement in create_statements():
            connection.execute(statement)
        connection.execute("COMMIT")
    found = connection.execute("SELECT seq, head, format FROM meta").fetchall()
    if len(found) != 1 or found[0][2] != FORMAT:
        made_by = found[0][2] if found else "none"
        raise ProjectionBroken(f"has tables of version {made_by}, this asi uses {FORMAT}")
    return found[0][0], found[0][1]


def open_in_step(run: Path, known: Mapping[int, str] | None = None) -> tuple[Projection, RebuildReport]:
    """Open a run's projection and bring it up to the journal; rebuild it where it is damaged or says something else.

    Args:
        run: the run directory.
        known: hashes of the journal's newest records by sequence number, where somebody has just read it: a projection
            that ends at one of them is believed without reading all again, and left to be brought up by its owner.

    Raises:
        ProjectionLocked: another process has it open.
        JournalCorrupt: the journal itself cannot be believed.
    """
    path = run / "asi.duckdb"
    try:
        projection = Projection.open(path)
    except ProjectionBroken as broken:
        report = rebuild(run, reason=str(broken))
        return Projection.open(path), report
    if known is not None and known.get(projection.seq) == projection.head:
        return projection, RebuildReport(projection.seq, projection.head, 0, 0, 0, 0.0, "")
    try:
        report = _follow(projection, run)
    except ProjectionBroken as broken:
        projection.close()
        report = rebuild(run, reason=str(broken))
        projection = Projection.open(path)
    return projection, report


def rebuild(run: Path, reason: str = "asked for") -> RebuildReport:
    """Make a run's projection anew from its journal and curve files, and put it in the old one's place.

    Raises:
        ProjectionLocked: an engine has it open; the old one is untouched.
        JournalCorrupt: the journal cannot be believed; the old one is untouched.
    """
    path = run / "asi.duckdb"
    fresh = run / ".asi.duckdb.new"
    if path.exists():
        # What cannot be read cannot be lost: the journal has it all.
        with contextlib.suppress(ProjectionBroken):
            Projection.open(path).close()
    for leftover in (fresh, Path(f"{fresh}.wal")):
        leftover.unlink(missing_ok=True)
    projection = Projection.open(fresh)
    try:
        report = _follow(projection, run)
    finally:
        projection.close()
    Path(f"{path}.wal").unlink(missing_ok=True)
    os.replace(fresh, path)
    return report._replace(reason=reason)


def _follow(projection: Projection, run: Path) -> RebuildReport:
    """Fold the journal and apply what the projection does not have yet."""
    begun = time.monotonic()
    state = RunState()
    start, head = projection.seq, projection.head
    chunk: list[ev.Record] = []
    touched: dict[str, None] = {}
    for record in journal.read(run / "journal"):
        if record.seq == start and record.hash != head:
            raise ProjectionBroken(f"the database knows another record {start} than the journal")
        fold(state, record)
        if record.seq > start:
            chunk.append(record)
            if trial := getattr(record.data, "trial", ""):
                touched[trial] = None
        if len(chunk) >= CHUNK:
            projection.apply(chunk, state)
            chunk = []
    if state.seq < start:
        raise ProjectionBroken(f"the database has seen {start} records, the journal has {state.seq}")
    projection.apply(chunk, state)
    points = sum(projection.load_curves(run / "trials", trial) for trial in touched if curves.is_trial_id(trial))
    seconds = time.monotonic() - begun
    return RebuildReport(state.seq, state.head, len(state.experiments), len(state.trials), points, seconds, "")
