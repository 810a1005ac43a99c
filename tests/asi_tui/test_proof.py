"""The proof after a kill: readable in every window, what is not proved always in view, the verdict never out of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from asi_tui.stop import EmergencyStop
from engine.client.kill import KillReport, Row
from tests.asi_tui.fakes import Fake, app_for, killed, stop_button
from tests.asi_tui.test_app import picture, settled, until
from tests.asi_tui.test_stop import wait_for

SIZES = [(40, 12), (80, 24), (200, 50)]


def report(number: int, unproved: int = 0, problems: int = 0, notes: tuple[str, ...] = ()) -> KillReport:
    rows = [Row(f"trial e{index:04}-s0", [100 + index], 5.0 + index, "init, namespace gone", True)
            for index in range(number)]  # fmt: skip
    rows += [Row(f"trial x{index}", [900 + index], 10_000.0, f"pid {900 + index} is alive", False)
             for index in range(unproved)]  # fmt: skip
    return KillReport("/r", True, rows, [f"procs/p{index}.json cannot be read" for index in range(problems)], 21.0,
                      frozenset(), frozenset(), 12.0, notes)  # fmt: skip


async def stopped(pilot: Any, app: Any, found: KillReport) -> str:
    app.emergency._kill = lambda root, **_: found
    await pilot.press("ctrl+backslash", "f12")
    await until(pilot, lambda: app.emergency.phase == "killed" and app.screen.NAME == "Stop")
    await settled(pilot)
    return picture(app)


@pytest.mark.parametrize("size", SIZES)
async def test_64_proved_sandboxes_fold_and_verdict_and_next_steps_stay(size: tuple[int, int], tmp_path: Path) -> None:
    app = app_for(Fake().busy(), tmp_path / "quiet-heron")
    async with app.run_test(size=size) as pilot:
        await settled(pilot)
        shown = await stopped(pilot, app, report(64))
        for words in ("EVERYTHING IS DEAD: proved", "asi rearm quiet-heron", "asi run quiet-heron", "all proved", "more"):
            assert words in shown
        listed = sum(f"trial e{index:04}-s0" in shown for index in range(64))
        assert f"… and {64 - listed} more" in shown
        assert app.emergency.witness in shown


@pytest.mark.parametrize("size", SIZES)
async def test_what_is_not_proved_is_never_folded(size: tuple[int, int], tmp_path: Path) -> None:
    app = app_for(Fake().busy(), tmp_path / "quiet-heron")
    async with app.run_test(size=size) as pilot:
        await settled(pilot)
        seen = await stopped(pilot, app, report(64, unproved=3, problems=2))
        assert "KILLED, NOT PROVED" in seen
        for _ in range(40):
            await pilot.press("down")
            now = picture(app)
            assert "unknown counts as alive" in " ".join(now.split())
            assert "asi kill quiet-heron" in now or "asi rearm quiet-heron" in now
            seen += now
        for words in ("x0", "x1", "x2", "pid 902 is alive", "procs/p0.json", "procs/p1.json"):
            assert words in seen


async def test_what_is_found_alive_later_takes_the_proof_back(tmp_path: Path) -> None:
    app = app_for(Fake().busy(), tmp_path / "quiet-heron")
    app.emergency._look_again = lambda _: {4711}
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        await stopped(pilot, app, report(2, notes=("the latch is late",)))
        await until(pilot, lambda: "ALIVE NOW: pids 4711" in picture(app))
        assert "KILLED, NOT PROVED" in picture(app)
        assert "EVERYTHING IS DEAD" not in picture(app)
        assert "note: the latch is late" in picture(app)


async def test_a_kill_without_a_report_proves_nothing(tmp_path: Path) -> None:
    app = app_for(Fake().busy(), tmp_path / "quiet-heron")

    def fails(_root: Path, **_: Any) -> KillReport:
        raise OSError("procfs is gone")

    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        app.emergency._kill = fails
        await pilot.press("f12", "f12")
        await until(pilot, lambda: "treat everything as alive" in picture(app))
        assert "procfs is gone" in picture(app)
        assert "PROVED" not in picture(app).replace("NOT PROVED", "")


@pytest.mark.parametrize("size", SIZES)
async def test_the_way_out_of_a_held_stop_is_in_view_in_every_window(
    size: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asi_tui.facts.engine_pid", lambda root: 4242)
    app = app_for(Fake().busy(), tmp_path / "quiet-heron")
    async with app.run_test(size=size) as pilot:
        await settled(pilot)
        await pilot.press("f12")
        await until(pilot, lambda: app.emergency.phase == "frozen" and app.screen.NAME == "Stop")
        await until(pilot, lambda: "KILL in" in picture(app))
        await pilot.press("h")
        await until(pilot, lambda: "HELD" in picture(app))
        await settled(pilot)
        shown = " ".join(picture(app).split())
        for words in ("kill now", "asi rearm quiet-heron --reason", "then asi resume quiet-heron", "leave", "3 processes frozen", "KILL NOW"):
            assert words in shown
        app.emergency.press()


# --- the button itself -----------------------------------------------------------------------------------------------


def held(tmp_path: Path, **changes: Any) -> EmergencyStop:
    button = stop_button(tmp_path, **changes)
    button.press()
    button.hold()
    wait_for(lambda: button.phase == "held" and button.frozen is not None)
    return button


def test_a_reset_button_freezes_before_it_kills(tmp_path: Path) -> None:
    did: list[str] = []
    button = held(tmp_path, kill=lambda root, **_: did.append("kill") or killed(root))
    assert button.reset()
    assert not button.pressed
    assert button.frozen is None
    assert button.witness
    button.press()
    wait_for(lambda: button.phase == "frozen")
    assert did == []
    button.press()
    assert button.wait(10)
    assert did == ["kill"]


@pytest.mark.parametrize("when", ["ready", "frozen", "killed", "pressed again"])
def test_only_a_held_button_can_be_reset(tmp_path: Path, when: str) -> None:
    button = stop_button(tmp_path)
    if when != "ready":
        button.press()
        wait_for(lambda: button.phase == "frozen")
    if when == "pressed again":
        button.hold()
        wait_for(lambda: button.phase == "held")
    if when in ("killed", "pressed again"):
        button.press()
    if when == "killed":
        assert button.wait(10)
    assert not button.reset()
    assert button.pressed == (when != "ready")
    if when == "frozen":
        button.press()
    if when != "ready":
        assert button.wait(10)
        assert button.report is not None
