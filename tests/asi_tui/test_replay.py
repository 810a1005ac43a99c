"""A recorded run in the same screens: the clock, the places, the record and what it answers, and the app on it."""

from __future__ import annotations

import asyncio
import json
import random
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from asi_tui.model import Model
from asi_tui.replay import book as books
from asi_tui.replay.book import Book
from asi_tui.replay.desk import output
from asi_tui.replay.line import ReplayLine
from asi_tui.replay.opened import ReplayApp
from asi_tui.replay.places import place
from asi_tui.replay.player import MOST_RECORDS, SPEEDS, Player
from asi_tui.replay.tapes import Tape
from engine.client import protocol
from store import events as ev
from store.curves import Point, Score
from store.folding import fold
from store.journal import Journal, read
from store.state import RunState
from tests.asi_tui.fakes import Fake
from tests.asi_tui.test_app import painted, picture, until


def recorded(root: Path, fake: Fake, torn: bytes = b"") -> Path:
    """A run directory whose journal holds what a made-up run has done."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "run.toml").write_text(f'name = "{root.name}"\n')
    (root / "blobs").mkdir(exist_ok=True)
    times = [record.time for record in fake.records]
    clock = iter(times)
    with Journal.open(root / "journal", clock=lambda: next(clock), segment_bytes=20_000) as journal:
        for record in fake.records:
            journal.append(record.data, record.actor)
            if record.seq % 40 == 0 and len(fake.records) < 1_000:
                journal.wait(record.seq)  # a segment ends only between two writes
    last = sorted((root / "journal").iterdir())[-1]
    with open(last, "ab") as file:
        file.write(torn)
    return root


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return recorded(tmp_path / "quiet-heron", Fake().busy())


def opened(root: Path) -> Book:
    book = Book(root)
    book.start()
    until_time = time.monotonic() + 10
    while not book.complete:
        assert time.monotonic() < until_time
        time.sleep(0.01)
    return book


def folded(root: Path, seq: int) -> RunState:
    state = RunState()
    for record in read(root / "journal"):
        if record.seq <= seq:
            fold(state, record)
    return state


# --- the clock -------------------------------------------------------------------------------------------------------


class Beats:
    """A journal of times only."""

    def __init__(self, *times: float) -> None:
        self.times, self.total = times, len(times)

    def time_of(self, seq: int) -> float:
        return self.times[max(0, seq - 1)]

    def at_time(self, when: float) -> int:
        return max(1, sum(one <= when for one in self.times))


def test_the_clock_runs_as_fast_as_it_is_told() -> None:
    player = Player(Beats(100.0, 101.0, 160.0, 161.0), speed=10)
    assert player.advance(0.0) == 1
    assert player.advance(0.05) == 1
    assert player.advance(0.05) == 2
    assert player.at == pytest.approx(101.0)


def test_long_quiet_stretches_are_skipped() -> None:
    player = Player(Beats(0.0, 86_400.0, 86_401.0), speed=1)
    player.advance(0.0)
    steps = 0
    while player.seq < 2:
        player.advance(0.1)
        steps += 1
    assert steps <= 11


def test_a_point_that_comes_is_no_quiet_stretch() -> None:
    player = Player(Beats(0.0, 1_000.0), speed=1)
    player.advance(0.0)
    player.advance(0.1, coming=5.0)
    assert 4.0 <= player.at <= 5.0
    assert player.seq == 1


def test_the_clock_waits_for_what_can_be_drawn() -> None:
    player = Player(Beats(*[float(number) / 1_000 for number in range(10_000)]), speed=10_000)
    assert player.advance(1.0) == 1
    assert player.advance(1.0) == 1 + MOST_RECORDS
    assert player.at == pytest.approx(MOST_RECORDS / 1_000)


def test_the_end_is_the_end_and_a_pause_is_a_pause() -> None:
    player = Player(Beats(0.0, 1.0))
    player.advance(10.0)
    player.advance(10.0)
    assert player.ended and player.at == 1.0
    player.move(1)
    player.toggle()
    player.advance(10.0)
    assert player.seq == 1
    for _ in range(30):
        player.faster(1)
    assert player.speed == SPEEDS[-1]
    for _ in range(30):
        player.faster(-1)
    assert player.speed == SPEEDS[0]


# --- the record ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("every", [7, 10_000])
def test_every_place_has_the_state_that_folding_gives(run: Path, monkeypatch: Any, every: int) -> None:
    monkeypatch.setattr(books, "EVERY", every)
    book = opened(run)
    order = list(range(1, book.total + 1))
    random.Random(3).shuffle(order)
    for seq in order[:60]:
        state = book.state(seq)
        expected = folded(run, seq)
        assert state == expected
        for kind in ("experiments", "trials", "requests"):
            assert list(getattr(state, kind)) == list(getattr(expected, kind))
    book.close()


def test_what_matters_and_where_experiments_begin_can_be_stepped(run: Path) -> None:
    book = opened(run)
    kinds = {record.seq: record.data for record in read(run / "journal")}
    seq, seen = 0, []
    while seq < book.total:
        seq = book.matters(seq, 1)
        seen.append(seq)
    assert seen == [number for number, event in kinds.items() if not isinstance(event, books.QUIET)]
    assert book.matters(1, -1) == 1
    assert [book.matters(one, -1) for one in seen[1:]] == seen[:-1]
    first = book.opened["e0001"]
    assert book.opening(first, 1) == book.opened["e0002"]
    assert book.opening(book.opened["e0002"], -1) == first
    assert book.opening(1, -1) == 1 and book.opening(book.total, 1) == book.total
    book.close()


def test_places_in_words(run: Path) -> None:
    book = opened(run)
    assert place("end", book) == book.total and place("start", book) == 1
    assert place("e0003", book) == book.opened["e0003"]
    assert place("50%", book) == place("0.5", book) == round(book.total / 2)
    assert place("#12", book) == place("12", book) == 12
    assert place("+0s", book) == book.at_time(book.time_of(1))
    assert place("+10m", book) == book.at_time(book.time_of(1) + 600)
    middle = time.localtime(book.time_of(40))
    found = place(time.strftime("%H:%M:%S", middle), book)
    assert abs(book.time_of(found) - book.time_of(40)) <= 60
    assert place(time.strftime("%Y-%m-%d %H:%M:%S", middle), book) == found
    for wrong in ("nowhere", "140%", "999999", "25:61", "e9999", "1.5", "-3"):
        with pytest.raises(ValueError, match=r"\S"):
            place(wrong, book)
    book.close()


def test_a_torn_end_is_left_out_and_a_damaged_journal_plays_up_to_the_damage(tmp_path: Path) -> None:
    torn = opened(recorded(tmp_path / "torn", Fake().busy(), torn=b'{"seq": 99'))
    assert not torn.damage and torn.total == len(Fake().busy().records)
    torn.close()
    root = recorded(tmp_path / "damaged", Fake().busy())
    segment = sorted((root / "journal").iterdir())[1]
    text = segment.read_bytes()
    segment.write_bytes(text.replace(b'"experiment"', b'"exp3riment"', 3))
    damaged = opened(root)
    assert 0 < damaged.total < len(Fake().busy().records)
    assert f"record {damaged.total + 1}" in damaged.damage
    assert damaged.state(damaged.total).seq == damaged.total
    damaged.close()


def test_a_run_that_goes_on_is_followed(tmp_path: Path) -> None:
    fake = Fake().start()
    root = recorded(tmp_path / "alive", fake)
    book = opened(root)
    assert book.total == 4
    with Journal.open(root / "journal") as journal:
        journal.append(ev.NoteAdded("more"), "engine")
        journal.wait(5)
        end = time.monotonic() + 5
        while book.total < 5:
            assert time.monotonic() < end
            time.sleep(0.02)
    book.close()


def test_a_long_record_is_reached_anywhere_at_once(tmp_path: Path) -> None:
    fake = Fake().start()
    for number in range(3_000):
        name = f"e{number:05}"
        fake.record(ev.ExperimentOpened(name, "evolver"))
        fake.record(ev.ProposalDrafted(name, f"title {number}", "why " * 20, "so " * 20, "p" * 64))
        for seed in range(3):
            fake.train(name, "p" * 64, seed)
        fake.score(name, number / 1_000, 0.4, 3)
        fake.record(ev.ExperimentClosed(name, "ranked"))
    book = opened(recorded(tmp_path / "long", fake))
    assert book.total == 4 + 3_000 * 10
    slowest = 0.0
    for seq in (15_000, 29_000, 100, 20_001, 5):
        begin = time.perf_counter()
        state = book.state(seq)
        slowest = max(slowest, time.perf_counter() - begin)
        assert state.seq == seq
    assert slowest < 1.5
    book.close()


def test_a_state_that_was_given_away_is_not_changed_by_what_comes_later(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(books, "EVERY", 3)
    fake = Fake().busy()
    root = recorded(tmp_path / "alive", fake)
    book = opened(root)
    given = book.state(book.total)
    before = msgspec.json.encode(given)
    with Journal.open(root / "journal") as journal:
        for event in (ev.TrialKilled("e0005-s0", "e0005", "ada"), ev.ExperimentClosed("e0005", "failed", "ended")):
            journal.append(event, "engine")
        journal.wait(journal.seq)
        end = time.monotonic() + 5
        while book.total < journal.seq:
            assert time.monotonic() < end
            time.sleep(0.02)
    assert msgspec.json.encode(given) == before
    for seq in (book.total, book.total - 1, book.total - 2, 40):
        assert book.state(seq) == folded(root, seq)
    # And the other way round: one who goes on with what was given changes nobody else's.
    for record in book.records(given.seq + 1, book.total):
        fold(given, record)
    assert given == book.state(book.total) == folded(root, book.total)
    book.close()


# --- curves ----------------------------------------------------------------------------------------------------------


def test_curves_show_no_more_than_had_come() -> None:
    points = [Point(task, step, 100, 3.0 - step / 100, step / 10.0) for task in ("recall", "bytes") for step in
              range(0, 101, 10)]  # fmt: skip
    scores = [Score(task, step, step / 100, 1.0) for task in ("recall", "bytes") for step in (50, 100)]
    tape = Tape(points, scores)
    assert [point.step for point in tape.curve(3.05).losses] == [0, 10, 20, 30]
    assert tape.curve(3.05).scores == []
    assert [(one.task, one.step) for one in tape.curve(10.0).scores] == [("recall", 50), ("recall", 100)]
    assert len(tape.curve(1e9).losses) == 22 and len(tape.curve(1e9).scores) == 4
    assert tape.after(3.05) == pytest.approx(4.0) and tape.after(1e9) is None


# --- the line --------------------------------------------------------------------------------------------------------


async def played(line: ReplayLine, model: Model, done: Any, seconds: float = 15.0) -> None:
    async with asyncio.timeout(seconds):
        async for message in line.messages():
            model.take(message)
            if done():
                return


async def test_a_run_is_played_to_its_end_and_answers_as_an_engine_would(run: Path) -> None:
    line = ReplayLine(run, speed=10_000)
    model = Model(run.name)
    await played(line, model, lambda: model.state.seq == line.book.total and line.book.complete)
    assert model.state == folded(run, line.book.total)
    board = json.loads((await line.query("leaderboard", "rank", limit=50)).text)
    assert board["rows"][0]["experiment"] == "e0001" or board["rows"][0]["score"] >= board["rows"][1]["score"]
    table = json.loads((await line.query("sql", "SELECT count(*) FROM experiments", limit=5)).text)
    assert table["rows"] == [[str(len(model.state.experiments))]]
    audit = json.loads((await line.query("audit", "e0001")).text)
    assert audit["lines"] and all(one["experiment"] == "e0001" for one in audit["lines"])
    talk = json.loads((await line.query("transcript", "e0002")).text)
    assert [one["role"] for one in talk] == ["researcher"]
    lessons = json.loads((await line.query("cognition", "", where="decay")).text)
    assert lessons and lessons[0]["why"]
    assert json.loads((await line.query("verify")).text)["records"] == line.book.total
    for name, target in (("curve", "nothing"), ("output", "../.."), ("blob", "x"), ("sql", "DROP TABLE trials")):
        refused = await line.query(name, target)
        assert not refused.ok and refused.error
    answer = await line.command("approve", who="ada", target="r1")
    assert not answer.ok and "replay" in answer.error
    line.close()


async def test_going_back_answers_from_back_then(run: Path) -> None:
    line = ReplayLine(run, at="end")
    line.player.playing = False
    model = Model(run.name)
    await played(line, model, lambda: model.state.seq and line.arrived)
    everything = json.loads((await line.query("leaderboard", "rank")).text)["total"]
    early = line.book.opened["e0002"]
    line.jump(early)
    await played_on(line, model, early)
    assert model.state == folded(run, early)
    assert json.loads((await line.query("leaderboard", "rank")).text)["total"] < everything
    newest = json.loads((await line.query("audit", "")).text)["lines"][0]
    assert newest["seq"] == early
    line.close()


async def played_on(line: ReplayLine, model: Model, seq: int) -> None:
    async with asyncio.timeout(10):
        while line.seq == seq and not line.arrived:
            async for message in line._step(0.0):
                model.take(message)


def test_what_a_trial_printed_is_read_without_following_links(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    (tmp_path / "trials" / "t1").mkdir(parents=True)
    (tmp_path / "trials" / "t1" / "stdout.log").symlink_to(secret)
    with pytest.raises(ValueError, match="nothing that is kept"):
        output(tmp_path / "trials", "t1", 10)
    (tmp_path / "trials" / "t1" / "stdout.log").unlink()
    (tmp_path / "trials" / "t1" / "stdout.log").write_text("a\nb\nc\n")
    assert output(tmp_path / "trials", "t1", 2) == "b\nc\n"


# --- the app ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(80, 24), (60, 16), (40, 10), (160, 45), (250, 70)])
async def test_nobody_takes_a_replay_for_a_live_run(run: Path, size: tuple[int, int]) -> None:
    app = ReplayApp(run, at="end")
    async with app.run_test(size=size) as pilot:
        await until(pilot, lambda: app.model.known and app.line.arrived)
        for key in "123456789":
            await pilot.press(key)
            await pilot.pause(0.1)
            app.screen.draw()  # type: ignore[attr-defined]
            lines = painted(app)
            assert "REPLAY" in lines[0] and len(lines) == size[1]
            if size[0] >= 80:
                assert f"record {app.line.book.total:,} of" in lines[0]


async def test_every_key_of_a_replay(run: Path) -> None:
    app = ReplayApp(run, at="e0002")
    app.line.player.playing = False
    async with app.run_test(size=(120, 30)) as pilot:
        await until(pilot, lambda: app.model.known and app.line.arrived)
        book, player = app.line.book, app.line.player
        here = book.opened["e0002"]
        assert app.model.state.seq == here
        for key, expected in (
            ("right_square_bracket", book.matters(here, 1)),
            ("left_square_bracket", book.matters(book.matters(here, 1), -1)),
            ("right_curly_bracket", here),
            ("left_curly_bracket", book.opened["e0001"]),
        ):
            await pilot.press(key)
            await until(pilot, lambda expected=expected: app.line.arrived and app.model.state.seq == expected)
        await pilot.press("greater_than_sign")
        assert player.speed > 60
        await pilot.press("less_than_sign", "less_than_sign")
        assert player.speed < 60
        await pilot.press("J", *"e0004", "enter")
        await until(pilot, lambda: app.line.arrived and app.model.state.seq == book.opened["e0004"])
        await pilot.press("J", *"xx", "enter")
        await until(pilot, lambda: "no place of this run" in picture(app))
        await pilot.press("full_stop")
        assert player.playing
        await until(pilot, lambda: app.model.state.seq > book.opened["e0004"])
        app.line.jump(book.total)
        await until(pilot, lambda: player.ended and "at the end" in painted(app)[0])
        await pilot.press("full_stop")
        await until(pilot, lambda: app.model.state.seq < book.total)


async def test_the_stop_key_of_a_replay_kills_nothing(run: Path, monkeypatch: Any) -> None:
    from engine.client import kill

    def dreadful(*_: Any, **__: Any) -> Any:
        raise AssertionError("a replay must not kill")

    monkeypatch.setattr(kill, "kill_run", dreadful)
    app = ReplayApp(run, at="end")
    async with app.run_test(size=(120, 30)) as pilot:
        await until(pilot, lambda: app.model.known and app.line.arrived)
        await asyncio.to_thread(app.emergency.press)  # as the driver does, on the thread of the keys
        await until(pilot, lambda: "asi kill quiet-heron stops a live run" in picture(app))
        await pilot.press("f12", "ctrl+backslash")
        await pilot.pause(0.3)
        assert not app.emergency.pressed
        assert not (run / "KILLED").exists()
        app.order("pause")
        await until(pilot, lambda: "this is a replay" in picture(app))


async def test_going_back_forgets_what_came_later(run: Path) -> None:
    app = ReplayApp(run, at="end")
    async with app.run_test(size=(120, 30)) as pilot:
        await until(pilot, lambda: app.model.known and app.line.arrived)
        app.model.take(protocol.LiveCurve("e0005-s0", "e0005", "recall", 1, 2, 0.5))
        assert app.model.curves
        app.line.jump(app.line.book.opened["e0001"])
        await until(pilot, lambda: app.line.arrived and app.model.state.seq == app.line.book.opened["e0001"])
        assert not app.model.curves
        assert "e0004" not in app.model.state.experiments
