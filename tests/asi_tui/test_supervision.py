"""What a supervisor sees and presses around stopping: one trial's end, the way back from a held stop, the latch."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from asi_tui.app import AsiApp
from asi_tui.facts import Facts
from asi_tui.screens.ending import trial_codes
from asi_tui.screens.stopping import StopScreen
from engine.client import protocol
from engine.client.connection import Lost
from engine.client.records import Latch, clear_latch, write_latch
from store import events as ev
from tests.asi_tui.fakes import Fake, app_for
from tests.asi_tui.test_app import painted, picture, settled, until


def running(fake: Fake) -> list[str]:
    return sorted(trial.id for trial in fake.state.running_trials)


async def typed(pilot: Any, text: str) -> None:
    await pilot.press(*text, "enter")


# --- X ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [1, 2, 40, 400])
def test_codes_are_short_and_no_two_are_alike(number: int) -> None:
    trials = [f"e{index:04}-s{index % 3}" for index in range(number)]
    codes = trial_codes(trials)
    assert list(codes) == trials
    assert len(set(codes.values())) == number
    assert len({len(code) for code in codes.values()}) == 1
    assert all(2 <= len(code) <= 6 and set(code) <= set("0123456789abcdef") for code in codes.values())


@pytest.mark.parametrize("screen", ["1", "4"])
async def test_x_ends_the_trial_with_the_typed_code(screen: str) -> None:
    fake = Fake().busy()
    app = app_for(fake)
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        await pilot.press(screen, "X")
        await settled(pilot)
        codes = trial_codes(running(fake))
        shown = picture(app)
        for trial, code in codes.items():
            assert any(code in line and trial in line for line in shown.splitlines())
        assert "code and Enter:" in painted(app)[-1]
        assert fake.orders == []
        await typed(pilot, codes["e0006-s1"].upper())
        await until(pilot, lambda: fake.orders)
        assert fake.orders == [("end", {"who": app.who, "target": "e0006-s1"})]


@pytest.mark.parametrize("keys", [["enter"], ["z", "z", "enter"], ["escape"], ["e", "0", "0", "0", "6", "enter"]])
async def test_anything_but_a_code_ends_nothing_and_says_so(keys: list[str]) -> None:
    fake = Fake().busy()
    app = app_for(fake)
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        await pilot.press("X", *keys)
        await pilot.pause(0.2)
        assert "nothing was ended" in picture(app)
        assert fake.orders == []


async def test_the_story_of_an_experiment_offers_its_own_trials_only() -> None:
    fake = Fake().busy()
    app = app_for(fake)
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        await pilot.press("5", "enter")
        await settled(pilot)
        await pilot.press("X")
        assert "end which trial" not in picture(app)
        fake.send(ev.TrialStarted("e0001-s7", "e0001", "0" * 64, "probe", 7, "L2"))
        await until(pilot, lambda: "e0001-s7" in app.model.state.trials)
        await pilot.press("X")
        await settled(pilot)
        assert "e0001-s7" in picture(app)
        assert "e0005-s0" not in picture(app)


@pytest.mark.parametrize(("size", "number"), [((80, 24), 64), ((80, 24), 12), ((60, 16), 30), ((40, 10), 8)])
async def test_every_one_of_many_trials_can_be_ended(size: tuple[int, int], number: int) -> None:
    fake = Fake().busy()
    for seed in range(number - 2):
        fake.train("e0005", "0" * 64, 10 + seed, finish=False)
    app = app_for(fake)
    async with app.run_test(size=size) as pilot:
        await settled(pilot)
        await pilot.press("X")
        await settled(pilot)
        body = "\n".join(painted(app)[1:-1])
        codes = trial_codes(running(fake))
        assert len(codes) == number
        missing = [trial for trial, code in codes.items() if f"{code} {trial}" not in body.replace("  ", " ")]
        assert not missing
        assert "Enter" in painted(app)[-1]


async def test_without_a_line_to_the_engine_x_is_not_offered() -> None:
    fake = Fake().busy()
    app = app_for(fake)
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        assert "X end trial" in painted(app)[-1]
        fake.queue.put_nowait(Lost("no engine is running"))
        await until(pilot, lambda: "NOT CONNECTED" in picture(app))
        assert "X end" not in picture(app)


# --- the way back from a held stop -----------------------------------------------------------------------------------


async def hold(pilot: Any, app: AsiApp) -> None:
    await pilot.press("ctrl+backslash")
    await until(pilot, lambda: app.emergency.phase == "frozen" and isinstance(app.screen, StopScreen))
    await pilot.press("h")
    await until(pilot, lambda: "FROZEN, HELD" in picture(app))


async def test_a_held_stop_is_lifted_with_a_reason_and_the_button_works_again(tmp_path: Path) -> None:
    fake = Fake().busy()
    fake.says["rearm"] = protocol.Answer(1, True, text="re-armed: 7 processes died in 5 ms")
    app = app_for(fake, tmp_path / "quiet-heron")
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        await pilot.press("4")
        await hold(pilot, app)
        await pilot.press("r")
        await typed(pilot, "")
        assert "it needs a reason" in picture(app)
        assert fake.orders == []
        await pilot.press("r")
        await typed(pilot, "an elbow")
        await until(pilot, lambda: app.screen.NAME == "Training")
        assert fake.orders == [("rearm", {"who": app.who, "reason": "an elbow"})]
        assert app.emergency.phase == "ready"
        assert "7 processes died in 5 ms" in picture(app)
        await pilot.press("ctrl+backslash")
        await until(pilot, lambda: app.emergency.phase == "frozen")
        await pilot.press("f12")
        await until(pilot, lambda: "STOPPED, PROVED" in picture(app))


@pytest.mark.parametrize("how", ["refused", "lost"])
async def test_a_refused_way_back_is_said_with_the_shell_line(tmp_path: Path, how: str) -> None:
    fake = Fake().busy()
    fake.says["rearm"] = protocol.Answer(1, False, error="the drill's death was not proved")
    app = app_for(fake, tmp_path / "quiet-heron")
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        await hold(pilot, app)
        if how == "lost":
            fake.connected = False
        await pilot.press("r")
        await typed(pilot, "an elbow")
        await until(pilot, lambda: "in a shell: asi rearm quiet-heron --reason" in " ".join(picture(app).split()))
        shown = " ".join(picture(app).split())
        assert ("death was not proved" if how == "refused" else "not connected") in shown
        assert app.emergency.phase == "held"
        await pilot.press("ctrl+backslash")
        await until(pilot, lambda: "STOPPED, PROVED" in picture(app))


async def test_without_a_line_only_the_shell_leads_back(tmp_path: Path) -> None:
    fake = Fake().busy()
    app = app_for(fake, tmp_path / "quiet-heron")
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        fake.queue.put_nowait(Lost("no engine is running"))
        await until(pilot, lambda: not app.model.connected)
        await hold(pilot, app)
        assert "r re-arm" not in picture(app)
        assert "asi rearm quiet-heron --reason" in picture(app)
        assert "engine: not alive" in picture(app)


async def test_what_was_asked_before_the_stop_is_not_answered_after_it(tmp_path: Path) -> None:
    fake = Fake().busy()
    app = app_for(fake, tmp_path / "quiet-heron")
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        await pilot.press("S", "y")
        await hold(pilot, app)
        await pilot.press("r")
        await typed(pilot, "fine")
        await until(pilot, lambda: app.screen.NAME == "Mission")
        await pilot.press("enter")
        await pilot.pause(0.2)
        assert [name for name, _ in fake.orders] == ["rearm"]


async def test_a_latch_lifted_elsewhere_lets_one_go_back(tmp_path: Path) -> None:
    root = tmp_path / "quiet-heron"
    root.mkdir()
    app = app_for(Fake().busy(), root)
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        write_latch(root, "person:ada", "x")
        await hold(pilot, app)
        await until(pilot, lambda: app.model.facts.latch is not None)
        await pilot.pause(0.3)
        clear_latch(root)
        await until(pilot, lambda: "RE-ARMED ELSEWHERE" in picture(app))
        assert "everything stays frozen" not in picture(app)
        await pilot.press("r")
        await until(pilot, lambda: app.screen.NAME == "Mission")
        assert not app.emergency.pressed


# --- a latch that somebody else set ----------------------------------------------------------------------------------


async def test_a_latch_set_elsewhere_is_said_with_who_and_what_to_do(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("asi_tui.facts.engine_pid", lambda root: 4242)
    root = tmp_path / "quiet-heron"
    root.mkdir()
    fake = Fake().busy()
    app = app_for(fake, root)
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        write_latch(root, "person:grace", "smoke in the lab")
        await until(pilot, lambda: "FROZEN, LATCHED" in painted(app)[0])
        shown = " ".join(picture(app).split())
        for words in ("Emergency stop by grace (smoke in the lab)", "asi rearm quiet-heron", "then p resumes", "asi kill"):
            assert words in shown
        assert "p pause" not in painted(app)[-1]
        await pilot.press("p")
        await pilot.press("R", "enter")
        await pilot.pause(0.2)
        assert fake.orders == []
        await pilot.press("R")
        await typed(pilot, "aired")
        await until(pilot, lambda: fake.orders)
        assert fake.orders == [("rearm", {"who": app.who, "reason": "aired"})]


async def test_a_killed_run_says_so_although_the_journal_does_not(tmp_path: Path) -> None:
    root = tmp_path / "quiet-heron"
    root.mkdir()
    write_latch(root, "person:grace", "smoke")
    fake = Fake().busy()
    app = app_for(fake, root)
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        fake.queue.put_nowait(Lost("no engine is running"))
        await until(pilot, lambda: "KILLED, LATCHED" in painted(app)[0] and "engine ended" in painted(app)[0])
        assert "Killed by grace (smoke)" in picture(app)


async def test_a_hostile_latch_is_inert(tmp_path: Path) -> None:
    root = tmp_path / "quiet-heron"
    root.mkdir()
    (root / "KILLED").write_text(json.dumps({"actor": "\x1b]52;c;eA==\x07", "reason": "[@click=app.approve]x[/]"}))
    app = app_for(Fake().busy(), root)
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        await until(pilot, lambda: "LATCHED" in painted(app)[0])
        assert "\x1b" not in picture(app)
        assert "[@click=app.approve]" in picture(app)


# --- header ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("width", "says"), [(140, "L2 isolated · drill 48 dead in 12 ms"), (100, "drill 48 dead in 12 ms"), (80, "L2")]
)
async def test_the_last_drill_is_in_the_header_where_there_is_room(width: int, says: str) -> None:
    app = app_for((Fake() if width > 100 else Fake().start()) if width == 100 else Fake().busy())
    async with app.run_test(size=(width, 30)) as pilot:
        await settled(pilot)
        head = painted(app)[0]
        assert says in head
        for words in ("RUNNING", "to approve", "live"):
            assert words in head


async def test_mission_control_shows_the_drill_and_the_attacks() -> None:
    app = app_for(Fake().busy())
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        assert "drill 48 dead in 12 ms" in picture(app)
        assert "attacks stopped 31 of 31" in picture(app)


@pytest.mark.parametrize("width", [60, 80, 100, 200])
@pytest.mark.parametrize("latched", [False, True])
@pytest.mark.parametrize("left", [None, 250.0])
async def test_state_approvals_and_connection_never_leave_the_header(width: int, latched: bool, left: Any) -> None:
    fake = Fake().busy()
    app = app_for(fake)
    async with app.run_test(size=(width, 24)) as pilot:
        await settled(pilot)
        if latched:
            app.lookout.stop()
            await pilot.pause(0.1)
            app.lookout.facts = Facts(4242, Latch("ada", "", 0.0))
        fake.queue.put_nowait(protocol.LiveLoad(0.1, 1.0, 2.0, 3.0, 1, 2, 0.1, deadman_left=left))
        word = "FROZEN, LATCHED" if latched else "RUNNING"
        shown = left is not None and width > 60
        await until(pilot, lambda: word in painted(app)[0] and ("dead-man" in painted(app)[0]) == shown)
        head = painted(app)[0]
        assert "2 to approve!" in head
        assert "live" in head
        assert len(head) == width


# --- the dead-man's switch -------------------------------------------------------------------------------------------


def load(left: float | None) -> protocol.LiveLoad:
    return protocol.LiveLoad(0.1, 1.0, 2.0, 3.0, 1, 2, 0.1, deadman_left=left)


async def test_the_dead_man_is_shown_rings_twice_and_hears_keys_once_a_minute(monkeypatch: Any) -> None:
    fake = Fake().busy()
    app = app_for(fake)
    bells: list[float] = []
    monkeypatch.setattr(app, "bell", lambda: bells.append(time.monotonic()))
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        await pilot.press("1", "4", "1")
        await pilot.pause(0.2)
        assert fake.orders == []  # without a dead-man's switch nobody has to hear of keys
        fake.queue.put_nowait(load(1_500.0))
        await until(pilot, lambda: "dead-man 25 min left" in picture(app))
        assert "dead-man" not in painted(app)[0]
        await pilot.resize_terminal(90, 24)
        await pilot.pause(0.2)
        assert fake.orders == []
        await pilot.press("4", "1", "4", "1")
        await until(pilot, lambda: fake.orders)
        await pilot.pause(0.3)
        assert fake.orders == [("present", {"who": app.who})]
        for left, rung in ((299.0, 1), (250.0, 1), (59.0, 2), (3.0, 2), (1_500.0, 2), (299.0, 3)):
            fake.queue.put_nowait(load(left))
            await until(pilot, lambda left=left: app.model.deadman_left == left)
            await pilot.pause(0.5)
            assert len(bells) == rung, left
        assert "dead-man 5 min: press any key" in painted(app)[0]


async def test_a_present_that_cannot_be_sent_is_silent_and_tried_again(monkeypatch: Any) -> None:
    fake = Fake().busy()
    app = app_for(fake)
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        fake.queue.put_nowait(load(1_500.0))
        await until(pilot, lambda: app.model.deadman_left)
        fake.connected = False
        before = painted(app)[-1]
        await pilot.press("1")
        await pilot.pause(0.2)
        assert fake.orders == []
        assert painted(app)[-1] == before
        fake.connected = True
        await pilot.press("1")
        await until(pilot, lambda: [name for name, _ in fake.orders] == ["present"])


async def test_the_stop_key_is_no_sign_of_a_person(tmp_path: Path) -> None:
    fake = Fake().busy()
    app = app_for(fake, tmp_path / "quiet-heron")
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        fake.queue.put_nowait(load(200.0))
        await until(pilot, lambda: "dead-man" in painted(app)[0])
        await pilot.press("ctrl+backslash")
        await until(pilot, lambda: isinstance(app.screen, StopScreen))
        assert fake.orders == []


# --- the same from a shell -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alive", [True, False])
def test_rearm_asks_the_engine_while_it_lives(tmp_path: Path, monkeypatch: Any, capsys: Any, alive: bool) -> None:
    from asi_tui.arguments import handler, parser
    from asi_tui.commands import control

    (tmp_path / "run.toml").write_text("")
    asked: list[tuple[str, dict[str, Any]]] = []
    started: list[list[str]] = []

    async def ask_once(_root: Path, name: str, **fields: Any) -> protocol.Answer:
        asked.append((name, fields))
        return protocol.Answer(1, True, text="re-armed: 7 processes died in 5 ms")

    monkeypatch.setattr(control, "engine_pid", lambda root: 4242 if alive else None)
    monkeypatch.setattr(control, "running_engine", lambda root: 4242)
    monkeypatch.setattr("engine.client.connection.ask_once", ask_once)
    monkeypatch.setattr(control, "_signed", lambda *_: None)

    def run(argv: list[str], input: bytes, check: bool) -> SimpleNamespace:
        started.append([*argv, msgspec.json.decode(input, type=protocol.Command).reason])
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(control.subprocess, "run", run)
    options = parser().parse_args(["rearm", str(tmp_path), "--reason", "aired"])
    assert handler("rearm")(options) == 0
    if alive:
        assert [(name, fields["reason"]) for name, fields in asked] == [("rearm", "aired")]
        assert "7 processes died" in capsys.readouterr().out
        assert started == []
    else:
        assert asked == []
        assert started[0][-2:] == ["--rearm", "aired"]
