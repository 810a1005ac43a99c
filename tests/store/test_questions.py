"""What a person may ask the projection, and what no question can do."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from store import projection, questions
from store.curves import Point
from store.projection import Projection
from tests.store import history


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Projection]:
    found, _ = projection.open_in_step(history.write_run(tmp_path / "run", 20, seed=5))
    yield found
    found.close()


def test_a_page_is_a_piece_of_the_whole_in_any_order(opened: Projection) -> None:
    whole, total = opened.board(100)
    assert total == len(whole) > 5
    assert [row.rank for row in whole] == list(range(1, total + 1))
    pages = [row for offset in range(0, total, 3) for row in opened.board(3, offset=offset)[0]]
    assert pages == whole
    assert opened.board(5, offset=total + 9) == ([], total)
    assert opened.board(100, reverse=True)[0] == whole[::-1]
    for column in questions.COLUMNS:
        for reverse in (False, True):
            rows, _ = opened.board(100, column, reverse=reverse)
            values = [getattr(row, column) for row in rows]
            known = [value for value in values if value is not None]
            assert values[len(known) :] == [None] * (len(values) - len(known)), "what is not known comes last"
            falls = (column in questions._MOST_FIRST) != reverse
            assert known == sorted(known, reverse=falls), column
    with pytest.raises(ValueError, match="ordered by rank, experiment"):
        opened.board(order="score; DROP TABLE trials")


def test_a_condition_chooses_rows(opened: Projection) -> None:
    whole, _ = opened.board(100)
    rows, total = opened.board(2, where="score > 0 and seeds >= 2 -- the good ones")
    wanted = [row for row in whole if row.score > 0 and row.seeds >= 2]
    assert (rows, total) == (wanted[:2], len(wanted))
    unknown, _ = opened.board(100, where="low IS NULL")
    assert unknown and all(row.low is None and row.high is None and row.seeds == 1 for row in unknown)
    assert opened.board(100, where="  ") == opened.board(100)


@pytest.mark.parametrize(
    "where",
    ["1=1; drop table trials", "1=1) UNION SELECT (1", "1=1 FROM trials", "score, seeds", "nonsense > 1", "count(*) > 1", "'abc'",
     "title IN (SELECT content FROM read_text('/etc/passwd'))", "(SELECT count(*) FROM glob('/etc/*')) > 0",
     "title = getenv('HOME')", "not " * 4_000 + "true", "(" * 9_000 + "true" + ")" * 9_000, "\0", "1=1\0", "1=1 ORDER BY 1"],
)  # fmt: skip
def test_a_wrong_condition_gets_one_line_with_the_columns(opened: Projection, where: str) -> None:
    before = opened.dump()
    with pytest.raises(ValueError, match="columns are rank, experiment, title") as raised:
        opened.board(where=where)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 1_000
    assert opened.dump() == before


def test_a_condition_or_a_question_of_a_megabyte_is_not_even_read(opened: Projection) -> None:
    begin = time.monotonic()
    for ask in (lambda: opened.board(where="x" * 1_000_000), lambda: opened.ask("select '" + "x" * 1_000_000 + "'")):
        with pytest.raises(ValueError, match="at most 20,000"):
            ask()
    assert time.monotonic() - begin < 1


def test_cells_are_bounded_text(opened: Projection) -> None:
    answer = opened.ask("SELECT [1, 2] a, NULL b, DATE '2024-01-01' c, repeat('x', 5000000) d, 'é' AS a;")
    assert answer.columns[:4] == ["a", "b", "c", "d"]
    assert answer.rows[0][:3] == ["[1, 2]", "NULL", "2024-01-01"]
    assert len(answer.rows[0][3]) == questions.MAX_CELL
    assert answer.rows[0][3].endswith("…")
    assert not answer.cut
    assert opened.ask("SELECT i FROM range(100) t(i)", 7) == (["i"], [[str(i)] for i in range(7)], True)
    assert len(opened.ask("SELECT i FROM range(20000) t(i)", 10**9).rows) == questions.MAX_ROWS
    large = opened.ask("SELECT repeat('y', 100000) FROM range(10000)", 10_000)
    assert large.cut
    assert sum(len(cell) for row in large.rows for cell in row) < questions.MAX_ANSWER
    for sql in ("EXPLAIN SELECT 1", "SHOW TABLES", "DESCRIBE trials", "FROM experiments SELECT id", "SUMMARIZE trials"):
        assert opened.ask(sql).rows
    for sql in ("SELECT 1; SELECT 2", "SELECT 1) FROM trials; --", "DROP TABLE trials", "PRAGMA version", "CALL checkpoint()", ""):
        with pytest.raises(ValueError, match="."):
            opened.ask(sql)


def test_a_question_without_an_end_is_stopped_and_holds_nobody_up(
    opened: Projection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(projection, "ASK_SECONDS", 1.0)
    monkeypatch.setattr(projection, "PAGE_SECONDS", 0.5)
    failures: list[str] = []

    def ask() -> None:
        try:
            opened.ask("WITH RECURSIVE t AS (SELECT 1 a UNION ALL SELECT a + 1 FROM t) SELECT max(a) FROM t")
        except ValueError as error:
            failures.append(str(error))

    asking = threading.Thread(target=ask)
    begin = time.monotonic()
    asking.start()
    time.sleep(0.1)
    opened.add_points("t1", [Point("recall", 1, 9, 1.0, 0.1)])
    assert opened.board(5)[0]
    assert time.monotonic() - begin < 0.8
    asking.join(10)
    assert time.monotonic() - begin < 5
    assert failures == ["the question was stopped: it took longer than 1 s"]
    with pytest.raises(ValueError, match="stopped: it took longer than 0.5 s"):
        opened.board(where="(SELECT count(*) FROM range(1000000000000)) > 0")
    assert opened.board(5)[0]


def test_only_the_questions_of_one_asker_are_stopped(opened: Projection) -> None:
    outcomes: dict[str, str] = {}
    askers = {"a": object(), "b": object()}

    def ask(name: str) -> None:
        try:
            outcomes[name] = opened.ask("SELECT count(*) FROM range(300000000) t(i) WHERE i % 7 = 3", 1, askers[name]).rows[0][0]
        except ValueError as error:
            outcomes[name] = str(error)

    threads = [threading.Thread(target=ask, args=(name,)) for name in askers]
    for thread in threads:
        thread.start()
    time.sleep(0.2)
    opened.stop_asking("who asked has left", askers["a"])
    for thread in threads:
        thread.join()
    assert outcomes["a"] == "the question was stopped: who asked has left"
    assert outcomes["b"].isdigit()


def test_writing_goes_before_a_question_that_takes_all_the_memory(opened: Projection) -> None:
    greedy = "SELECT count(DISTINCT x) FROM (SELECT md5(i::VARCHAR) || md5((i + 1)::VARCHAR) x FROM range(20000000) t(i))"

    def ask() -> None:
        try:
            opened.ask(greedy)
        except ValueError as error:
            ends.append(str(error))

    ends: list[str] = []
    asking = threading.Thread(target=ask)
    asking.start()
    step = 0
    while asking.is_alive() and step < 50:
        step += 1
        opened.add_points("t1", [Point("recall", step, 99, 1.0, 0.1)])
        time.sleep(0.05)
    opened.stop_asking("the test is over")
    asking.join()
    assert len(opened.curve("t1")) == step
    assert all("stopped" in end or "memory" in end for end in ends)


def test_the_projection_has_every_call_also_those_that_the_state_let_go(tmp_path: Path) -> None:
    run = history.write_run(tmp_path / "long", 300, seed=2)
    state = history.state(300, seed=2)
    opened, _ = projection.open_in_step(run)
    held = {call.experiment for call in state.calls.values()}
    assert "e0003" not in held
    assert len(state.calls) < 400
    calls = opened.calls("e0003", 10)
    assert [call.role for call in calls][:1] == ["researcher"]
    assert opened.calls("e0003", 1) == calls[-1:]
    for call in state.calls.values():
        assert call in opened.calls(call.experiment, 50)
    opened.close()


def test_a_projection_in_step_is_believed_without_reading_the_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = history.write_run(tmp_path / "run", 20, seed=5)
    records = history.records(20, seed=5)
    projection.open_in_step(run)[0].close()
    known = {record.seq: record.hash for record in records[-50:]}
    read = projection.journal.read
    monkeypatch.setattr(projection.journal, "read", lambda *a: pytest.fail("it was read"))
    opened, report = projection.open_in_step(run, known)
    assert (report.records, report.reason) == (len(records), "")
    opened.close()
    monkeypatch.setattr(projection.journal, "read", read)
    opened, report = projection.open_in_step(run, {len(records): "f" * 64})
    assert (opened.seq, report.records) == (len(records), len(records))
    opened.close()
