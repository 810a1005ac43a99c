import os
import random
import threading
from pathlib import Path

import duckdb
import pytest

from store import curves, journal, projection
from store import events as ev
from store.folding import fold
from store.projection import Projection, ProjectionBroken, ProjectionLocked
from store.state import RunState
from tests.store import history


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return history.write_run(tmp_path / "run", 20, seed=5)


def live(run: Path, seed: int, prefix: int) -> Projection:
    """What an engine does: batches of any size as they come, curves in pieces, then whole when a trial has ended."""
    draw = random.Random(seed)
    live = Projection.open(run / f"live{seed}.duckdb")
    state = RunState()
    batch: list[ev.Record] = []
    for record in journal.read(run / "journal"):
        if record.seq > prefix:
            break
        fold(state, record)
        batch.append(record)
        if draw.random() < 0.2:
            live.apply(batch, state)
            batch = []
        if isinstance(record.data, ev.TrialStarted) and draw.random() < 0.5:
            some = curves.read_points(run / "trials", record.data.trial).lines[:7]
            live.add_points(record.data.trial, some)
            live.add_points(record.data.trial, some[3:])
        if isinstance(record.data, ev.TrialFinished | ev.TrialFailed | ev.TrialKilled):
            live.load_curves(run / "trials", record.data.trial)
    if batch:
        live.apply(batch, state)
    return live


def test_rebuilt_equals_live_at_any_prefix(run: Path) -> None:
    whole = run / "journal" / "000001.jsonl"
    lines = whole.read_bytes().splitlines(keepends=True)
    draw = random.Random(2)
    for seed, prefix in enumerate([*sorted(draw.sample(range(2, len(lines)), 5)), len(lines)]):
        whole.write_bytes(b"".join(lines[:prefix]))
        before = live(run, seed, prefix)
        # A trial that is still running has whatever arrived; its curve becomes equal when it ends.
        for trial in projection_running(run, prefix):
            before.load_curves(run / "trials", trial)
        report = projection.rebuild(run)
        after, followed = projection.open_in_step(run)
        assert report.records == prefix
        assert followed.reason == ""
        assert after.dump() == before.dump()
        assert after.leaderboard() == before.leaderboard()
        before.close()
        after.close()


def projection_running(run: Path, prefix: int) -> list[str]:
    state = RunState()
    for record in journal.read(run / "journal"):
        if record.seq <= prefix:
            fold(state, record)
    return [trial.id for trial in state.running_trials]


def test_following_continues_where_it_stopped(run: Path) -> None:
    whole = run / "journal" / "000001.jsonl"
    lines = whole.read_bytes().splitlines(keepends=True)
    for prefix in (1, 60, 61, 150, len(lines)):
        whole.write_bytes(b"".join(lines[:prefix]))
        followed, report = projection.open_in_step(run)
        assert (followed.seq, report.reason) == (prefix, "")
        dump = followed.dump()
        followed.close()
    projection.rebuild(run)
    after = Projection.open(run / "asi.duckdb")
    assert after.dump() == dump
    after.close()


def test_leaderboard_follows_the_state(run: Path) -> None:
    state = history.state(20, seed=5)
    opened, _ = projection.open_in_step(run)
    rows = opened.leaderboard()
    assert [row.experiment for row in rows] == [e.id for e in state.ranking()]
    assert [row.rank for row in rows] == list(range(1, len(rows) + 1))
    for row in rows:
        experiment = state.experiments[row.experiment]
        scored = experiment.scored
        assert scored is not None
        trials = [state.trials[t] for t in experiment.trials]
        assert row.cpu_seconds == pytest.approx(sum(t.cpu_seconds for t in trials if not t.cached))
        assert (row.score, row.seeds, row.against_parent) == (scored.score, scored.seeds, scored.against_parent)
        assert {t.task: t.difference for t in row.tasks} == {t.task: t.difference for t in scored.tasks}
        assert row.tokens == 128_000
        assert row.tokens_per_second == pytest.approx(128_000 / 44.25)
        assert row.steps_per_second == pytest.approx(200 / 44.25)
    assert [row.cpu_seconds for row in opened.leaderboard(order="cpu")] == sorted(row.cpu_seconds for row in rows)
    assert len(opened.leaderboard(3)) == 3
    with pytest.raises(ValueError, match="ordered by"):
        opened.leaderboard(order="score; DROP TABLE trials")
    trial = state.experiments[rows[0].experiment].trials[0]
    assert opened.curve(trial) == sorted(
        curves.read_points(run / "trials", trial).lines, key=lambda point: (point.task, point.step)
    )
    assert len(opened.scores(trial)) == len(history.TASKS)
    counts = opened.query("SELECT (SELECT count(*) FROM agent_calls), (SELECT sum(tokens_in) FROM agent_calls)")
    calls = len(state.calls)
    assert counts[1] == [(calls, 900 * calls)]
    asked = opened.query("SELECT count(*) FROM approvals WHERE id LIKE 'r%'")[1][0][0]
    assert asked == len(state.requests)
    opened.close()


def test_applying_again_changes_nothing_and_a_gap_is_refused(run: Path) -> None:
    opened, _ = projection.open_in_step(run)
    before = opened.dump()
    records = history.records(20, seed=5)
    opened.apply(records[-50:], history.state(20, seed=5))
    assert opened.dump() == before
    opened.close()
    fresh = Projection.open(run / "fresh.duckdb")
    with pytest.raises(ValueError, match="begins at 3"):
        fresh.apply(records[2:5], history.state(20, seed=5))
    fresh.close()


@pytest.mark.parametrize("damage", ["garbage", "flipped", "empty tables", "other journal", "too far", "newer"])
def test_what_cannot_be_believed_is_rebuilt(run: Path, damage: str) -> None:
    opened, _ = projection.open_in_step(run)
    good = opened.dump()
    opened.close()
    path = run / "asi.duckdb"
    if damage == "garbage":
        path.write_bytes(b"not a database" * 1000)
    elif damage == "flipped":
        content = bytearray(path.read_bytes())
        content[40] ^= 1
        path.write_bytes(content)
    else:
        statement = {
            "empty tables": "DELETE FROM meta",
            "other journal": "UPDATE meta SET head = 'x'",
            "too far": "UPDATE meta SET seq = 100000",
            "newer": "UPDATE meta SET format = 99",
        }[damage]
        with duckdb.connect(str(path)) as connection:
            connection.execute(statement)
    opened, report = projection.open_in_step(run)
    assert report.reason
    assert "\n" not in report.reason
    assert opened.dump() == good
    opened.close()


def test_a_locked_database_is_left_alone(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened, _ = projection.open_in_step(run)
    opened.close()
    path = run / "asi.duckdb"
    before = path.read_bytes()
    ready, done = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        try:
            holder = Projection.open(path)
            os.write(ready[1], b"x")
            os.read(done[0], 1)
            holder.close()
        finally:
            os._exit(0)
    try:
        os.read(ready[0], 1)
        for attempt in (projection.rebuild, projection.open_in_step):
            with pytest.raises(ProjectionLocked, match="another process"):
                attempt(run)
        assert path.read_bytes() == before
    finally:
        os.write(done[1], b"x")
        os.waitpid(child, 0)


def test_queries_can_only_read(run: Path) -> None:
    opened, _ = projection.open_in_step(run)
    before = opened.dump()
    for sql in (
        "DROP TABLE trials",
        "SELECT 1; DELETE FROM trials",
        "WITH gone AS (DELETE FROM trials RETURNING *) SELECT * FROM gone",
        "SELECT * FROM read_text('/etc/hostname')",
        "COPY trials TO 'out.csv'",
        "ATTACH 'other.duckdb'",
        "INSTALL httpfs",
        "SET enable_external_access = true",
        "SELECT nonsense",
        "",
    ):
        with pytest.raises(ValueError, match="."):
            opened.query(sql)
    assert opened.dump() == before
    names, rows = opened.query("SELECT id, title FROM experiments ORDER BY id LIMIT 2")
    assert names == ["id", "title"]
    assert len(rows) == 2
    opened.close()


def test_reads_beside_a_writing_thread(run: Path) -> None:
    records = history.records(20, seed=5)
    opened = Projection.open(run / "threads.duckdb")
    state = RunState()
    failures: list[Exception] = []

    def write() -> None:
        try:
            for record in records:
                fold(state, record)
                opened.apply([record], state)
        except Exception as error:
            failures.append(error)

    writer = threading.Thread(target=write)
    writer.start()
    while writer.is_alive():
        opened.leaderboard(5)
        opened.query("SELECT count(*) FROM experiments")
    writer.join()
    assert not failures
    assert opened.seq == len(records)
    opened.close()


def test_hostile_curves_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = tmp_path / "t1" / "work"
    work.mkdir(parents=True)
    good = '{"task":"recall","step":%d,"steps":9,"loss":1.5,"seconds":0.1}\n'
    lines = [
        good % 1,
        "not json\n",
        '{"task":"recall","step":2,"steps":9,"loss":NaN,"seconds":0.1}\n',
        '{"task":"recall","step":2,"steps":9,"loss":1e999,"seconds":0.1}\n',
        '{"task":"recall","step":-2,"steps":9,"loss":1,"seconds":0.1}\n',
        '{"task":"\\u001b[31m","step":2,"steps":9,"loss":1,"seconds":0.1}\n',
        '{"task":"recall","step":"2","steps":9,"loss":1,"seconds":0.1}\n',
        '{"task":"recall","step":2,"steps":9,"loss":null,"seconds":0.1}\n',
        "[" * 5000 + "\n",
        '{"task":"' + "x" * 10_000 + '"}\n',
        "\xff\n",
        good % 3,
        (good % 4)[:-1],
    ]
    (work / "points.jsonl").write_bytes("".join(lines).encode("latin-1"))
    curve = curves.read_points(tmp_path, "t1")
    assert [(p.step, p.loss) for p in curve.lines] == [(1, 1.5), (2, None), (3, 1.5)]
    assert curve.refused == 9
    assert not curve.cut
    monkeypatch.setattr(curves, "MAX_LINES", 2)
    assert curves.read_points(tmp_path, "t1").cut
    (work / "points.jsonl").rename(tmp_path / "elsewhere")
    (work / "points.jsonl").symlink_to(tmp_path / "elsewhere")
    assert curves.read_points(tmp_path, "t1").lines == []
    (work / "points.jsonl").unlink()
    os.mkfifo(work / "points.jsonl")
    assert curves.read_points(tmp_path, "t1").lines == []
    assert curves.read_points(tmp_path, "../t1").lines == []
    (tmp_path / "t2").mkdir()
    (tmp_path / "t2" / "work").symlink_to(tmp_path / "t1" / "work")
    (work / "points.jsonl").unlink()
    (work / "points.jsonl").write_text(good % 1)
    assert curves.read_points(tmp_path, "t2").lines == []


def test_lying_counts_do_not_stop_the_projection(tmp_path: Path) -> None:
    steps = history.history(2)
    finished = next(step for step in steps if isinstance(step.event, ev.TrialFinished))
    huge = ev.TrialFinished(
        **{f: getattr(finished.event, f) for f in finished.event.__struct_fields__ if f != "tokens"}, tokens=2**63
    )
    steps[steps.index(finished)] = finished._replace(event=huge)
    opened = Projection.open(tmp_path / "x.duckdb")
    state = RunState()
    records = list(history.seal(steps))
    for record in records:
        fold(state, record)
    opened.apply(records, state)
    assert opened.query("SELECT max(tokens) FROM trials")[1] == [(2**63 - 1,)]
    opened.close()


def test_settings_are_explicit_and_locked(tmp_path: Path) -> None:
    opened = Projection.open(tmp_path / "x.duckdb")
    names = ("memory_limit", "threads", "autoload_known_extensions", "enable_external_access", "lock_configuration")
    found = [opened.query(f"SELECT current_setting('{name}')")[1][0][0] for name in names]
    assert found == ["244.1 MiB", 1, False, False, True]
    assert (tmp_path / "x.duckdb").stat().st_mode & 0o777 == 0o600
    opened.close()
    with pytest.raises(ProjectionBroken):
        (tmp_path / "y.duckdb").write_bytes(b"x" * 9000)
        Projection.open(tmp_path / "y.duckdb")
