"""The line between terminal, app and engine: slow, stormy, broken; bounds are at least ten times what is measured."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from asi_tui.lines import Canvas, Row, changed_cells, row
from asi_tui.pace import BYTES_PER_SECOND, Outlet, Pace
from bench.tui.picture import Picture
from bench.tui.stage import Stage, attached, running, stage
from bench.tui.terminal import Terminal
from engine.client import protocol
from engine.client.connection import Connection
from store import events as ev
from tests.asi_tui.fakes import Fake, app_for
from tests.asi_tui.test_app import painted, settled

SIZE = (80, 24)


@pytest.fixture
def on(tmp_path: Path) -> Iterator[Stage]:
    with stage(tmp_path, experiments=20) as made:
        yield made


def leaderboard(picture: Picture) -> bool:
    return "── leaderboard" in picture.text()


def mission(picture: Picture) -> bool:
    return "── in flight" in picture.text()


def redrawn(terminal: Terminal) -> list[str]:
    terminal.press(b"\x0c")
    time.sleep(0.7)
    return terminal.look().split("\n")


# --- a slow line -----------------------------------------------------------------------------------------------------


def test_a_key_is_answered_on_a_slow_line_in_a_storm(on: Stage) -> None:
    with attached(on, SIZE, speed=50_000) as terminal:
        on.order("storm 1000")
        time.sleep(2)
        for key, shows in ((b"5", leaderboard), (b"1", mission)) * 3:
            assert terminal.answer(key, shows, 10) < 2.5
            time.sleep(0.3)


def test_pictures_are_skipped_while_the_terminal_takes_nothing(on: Stage) -> None:
    with attached(on, (160, 45)) as terminal:
        on.order("storm 1000")
        time.sleep(1)
        terminal.reading = False
        time.sleep(4)  # twenty pictures' time
        before = terminal.received
        terminal.reading = True
        time.sleep(0.15)
        assert terminal.received - before < 60_000  # a picture of all lines or two, and what the kernel held; not twenty
        assert terminal.answer(b"5", leaderboard, 10) < 5


def test_a_storm_stays_within_its_share_of_the_line(on: Stage) -> None:
    with attached(on, (200, 50)) as terminal:
        on.order("storm 1000")
        time.sleep(3)
        before, begun = terminal.received, time.perf_counter()
        time.sleep(4)
        assert terminal.received > before
        assert (terminal.received - before) / (time.perf_counter() - begun) < 1.5 * BYTES_PER_SECOND


def test_what_is_painted_piece_by_piece_is_what_a_repaint_shows(on: Stage) -> None:
    with attached(on, (160, 45)) as terminal:
        on.order("storm 1000")
        for key in (b"5", b"j", b"1", b"2", b"1"):
            terminal.press(key)
            time.sleep(0.5)
        on.order("calm")
        time.sleep(1.5)
        before = terminal.look().split("\n")
        different = [(old, new) for old, new in zip(before, redrawn(terminal), strict=True) if old != new]
        assert len(different) <= 4, different  # lines with an age have become older meanwhile


# --- a broken line ---------------------------------------------------------------------------------------------------


def test_a_lost_engine_is_said_at_once_and_the_picture_stays(on: Stage) -> None:
    with attached(on, (120, 30)) as terminal:
        on.crash()
        terminal.wait(lambda picture: "NOT CONNECTED" in picture.lines()[0], 10)
        assert "── in flight" in terminal.look()
        assert "old" in terminal.look()
        assert terminal.answer(b"5", lambda picture: "leaderboard" in picture.text(), 10) < 2
        on.again()
        terminal.wait(lambda picture: running(picture) and "● live" in picture.lines()[0], 30)


async def test_after_a_break_it_goes_on_where_it_was(tmp_path: Path) -> None:
    """The same server with the same run: what happened meanwhile comes as records, each once, none missing."""
    from engine.client.rundir import RunPaths
    from engine.server import Server
    from store.folding import fold
    from store.state import RunState

    paths = RunPaths(tmp_path / "run")
    paths.create()
    fake = Fake().start()

    async def answer(message: Any) -> protocol.Answer:
        return protocol.Answer(message.id, True)

    server = Server("run", paths.socket, paths.token, lambda: fake.state, answer)
    await server.start()
    line = Connection(paths.root)
    state, seen, snapshots = RunState(), [], 0

    def publish(text: str) -> None:
        server.publish([fake.record(ev.NoteAdded(text))])

    async def read(until: int) -> None:
        nonlocal state, snapshots
        async for message in line.messages():
            if isinstance(message, protocol.Snapshot):
                state, snapshots = message.state, snapshots + 1
            elif isinstance(message, protocol.Records):
                seen.extend(record.seq for record in message.records)
                for record in message.records:
                    fold(state, record)
            if state.seq >= until:
                return

    publish("the first")
    await asyncio.wait_for(read(fake.seq), 10)
    first = fake.seq
    for number in range(50):
        publish(f"meanwhile {number}")
    await asyncio.wait_for(read(fake.seq), 10)
    await server.close()
    assert snapshots == 1
    assert seen == list(range(first + 1, fake.seq + 1))
    assert state.notes[-1].text == "meanwhile 49"


# --- many messages at once -------------------------------------------------------------------------------------------


async def test_keys_get_their_turn_between_many_messages() -> None:
    fake = Fake().busy()
    app = app_for(fake)
    async with app.run_test(size=SIZE) as pilot:
        await settled(pilot)
        for batch in range(200):
            fake.send(*(ev.NoteAdded(f"{batch} {number}") for number in range(250)))
        begun = time.perf_counter()
        await pilot.press("5")
        assert time.perf_counter() - begun < 5
        assert any("leaderboard" in line for line in painted(app))


# --- the parts -------------------------------------------------------------------------------------------------------


class Now:
    """A clock that is set."""

    def __init__(self) -> None:
        self.time = 100.0

    def __call__(self) -> float:
        return self.time


class Line:
    """A file that takes so many bytes a second."""

    def __init__(self, now: Now, speed: float) -> None:
        self.now, self.speed = now, speed

    def write(self, text: str) -> None:
        self.now.time += len(text) / self.speed

    def flush(self) -> None:
        pass


def test_the_pace_waits_for_the_picture_that_is_being_written() -> None:
    now = Now()
    pace, outlet = Pace(now), Outlet(Line(now, 1e9), now)  # type: ignore[arg-type]
    assert pace.allows(outlet)
    outlet.busy = True
    assert not pace.allows(outlet)
    outlet.busy = False
    assert pace.allows(outlet)


@pytest.mark.parametrize(("line", "share"), [(1e9, BYTES_PER_SECOND), (50_000.0, 25_000.0), (20_000.0, 10_000.0)])
def test_pictures_take_their_share_of_a_line_and_no_more(line: float, share: float) -> None:
    now = Now()
    pace, outlet = Pace(now), Outlet(Line(now, line), now)  # type: ignore[arg-type]
    begun = now.time
    while now.time < begun + 30:
        if pace.allows(outlet):
            outlet.write("x" * 20_000)
        now.time += 0.2
    assert 0.7 * share < outlet.sent / 30 < 1.2 * share


def test_a_small_write_on_a_busy_machine_does_not_slow_the_pictures_down() -> None:
    now = Now()
    pace, outlet = Pace(now), Outlet(Line(now, 100), now)  # type: ignore[arg-type]
    outlet.write("\x1b[?1049h")
    assert outlet.speed == 0
    assert pace.allows(outlet)


def test_a_line_that_has_become_fast_is_believed_after_a_while() -> None:
    now = Now()
    line = Line(now, 10_000)
    outlet = Outlet(line, now)  # type: ignore[arg-type]
    outlet.write("x" * 10_000)
    assert outlet.speed == pytest.approx(10_000)
    line.speed = 1e9
    now.time += 11
    outlet.write("x" * 10_000)
    assert outlet.speed == 0


@pytest.mark.parametrize(
    ("old", "new", "cells"),
    [
        (row("same", " 1 s"), row("same", " 2 s"), (5, 6)),
        (row("same"), row("same"), (20, 20)),
        (row("short"), row("shorter"), (5, 7)),
        (row("shorter"), row("short"), (5, 7)),
        (row("日本 a"), row("日本 b"), (5, 6)),
        (row("日本"), row("日光"), (2, 4)),
        (row(("a", "good"), "b"), row(("a", "bad"), "b"), (0, 1)),
        (row("x"), row("日"), (0, 2)),
    ],
)
def test_only_the_cells_that_changed_are_painted(old: Row, new: Row, cells: tuple[int, int]) -> None:
    assert changed_cells(old, new, 20) == cells


async def test_damage_adds_up_until_it_is_painted() -> None:
    canvas = Canvas(dict)
    canvas.show([row("a1b")])
    canvas.show([row("a2b")])
    assert list(canvas.damage) == [0]
