"""The real app on a made-up engine, pressed like a person presses it."""

from __future__ import annotations

import asyncio
import contextlib
import time
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot

from asi_tui.app import AsiApp
from asi_tui.preferences import Preferences
from asi_tui.screens.approvals import ApprovalsScreen
from asi_tui.screens.base import Watch
from asi_tui.screens.experiment import ExperimentScreen
from engine.client import protocol
from engine.client.connection import Connected, Lost
from store import events as ev
from tests.asi_tui.fakes import Fake, app_for
from tests.asi_tui.test_safe import HOSTILE


def painted(app: AsiApp) -> list[str]:
    """What stands on the screen, line by line, after all filters."""
    strips = app.screen._compositor.render_strips()
    filters = app.get_line_filters()
    lines = []
    for strip in strips:
        for one in filters:
            strip = strip.apply_filter(one, app.screen.background_colors[1])
        lines.append(strip.text)
    return lines


def picture(app: AsiApp) -> str:
    return "\n".join(painted(app))


async def until(pilot: Pilot[Any], condition: Any, seconds: float = 10.0) -> None:
    """Wait for something to become true on the screen."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "did not happen; the screen is\n" + picture(pilot.app)  # type: ignore[arg-type]
        await pilot.pause(0.05)


async def settled(pilot: Pilot[Any]) -> None:
    """The state has arrived, queries are answered, the picture is drawn."""
    app = pilot.app
    assert isinstance(app, AsiApp)
    await until(pilot, lambda: app.model.known or app.model.lost_reason)
    await pilot.pause(0.3)
    if isinstance(app.screen, Watch):
        app.screen.draw()
    await pilot.pause()


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
async def test_hostile_text_is_inert_on_every_screen(text: str) -> None:
    hostile = text.encode("utf-8", "replace").decode()  # a lone surrogate cannot come through JSON
    fake = Fake(hostile * 3).busy()
    app = app_for(fake)
    acted: list[str] = []
    app.action_approve = lambda: acted.append("approve")  # type: ignore[attr-defined]
    async with app.run_test(size=(120, 40)) as pilot:
        await settled(pilot)
        for keys in ("1", "2", "3", "3t", "4", "5", "5\r", "5\r?", "2pgdn"):
            for key in ["2", "pagedown"] if keys == "2pgdn" else keys:
                await pilot.press({"\r": "enter", "?": "question_mark"}.get(key, key))
            await settled(pilot)
            shown = picture(app)
            assert all(unicodedata.category(c) not in ("Cc", "Cf", "Cs") or c == "\n" for c in shown), keys
            assert len(painted(app)) == 40
            if keys.endswith("?"):
                await pilot.press("escape")
    assert acted == []
    assert fake.orders == []


@pytest.mark.parametrize("size", [(40, 10), (20, 4), (10, 2), (60, 16), (61, 17), (80, 24), (131, 30), (200, 50)])
async def test_every_screen_fits_every_size(size: tuple[int, int]) -> None:
    app = app_for(Fake().busy())
    async with app.run_test(size=size) as pilot:
        await settled(pilot)
        for key in ("1", "2", "3", "4", "5", "enter", "question_mark"):
            await pilot.press(key)
            await settled(pilot)
            lines = painted(app)
            assert len(lines) == size[1]
            assert "STOP" in lines[-1] or size[0] < 20


async def test_a_small_window_says_what_goes_on() -> None:
    app = app_for(Fake().busy())
    async with app.run_test(size=(40, 10)) as pilot:
        await settled(pilot)
        shown = picture(app)
        assert "quiet-heron RUNNING live" in shown
        assert "2 approvals waiting" in shown
        assert "STOP" in shown


async def test_mission_control_tells_a_newcomer_what_happens() -> None:
    app = app_for(Fake().start())
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        shown = picture(app)
        for words in ("RUNNING", "L2", "first proposals are written", "noise floor 0 of 5 seeds", "armed: 48 processes"):
            assert words in shown


async def test_the_picture_follows_the_journal() -> None:
    fake = Fake().start()
    app = app_for(fake)
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        fake.send(ev.ExperimentOpened("e0001", "evolver"))
        await until(pilot, lambda: "writing" in picture(app))
        fake.send(ev.ProposalDrafted("e0001", "Delta rule with decay", "m", "h", "0" * 64))
        await until(pilot, lambda: "Delta rule with decay" in picture(app))
        fake.send(ev.RunPaused("lunch"))
        await until(pilot, lambda: "PAUSED" in picture(app) and "p resume" in picture(app))


async def test_the_best_so_far_and_its_interval_are_in_the_header_at_80_columns() -> None:
    app = app_for(Fake().busy())
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        assert "best +1.82 ±0.40" in painted(app)[0]


async def test_a_lost_line_shows_at_once_and_keeps_the_picture() -> None:
    fake = Fake().busy()
    app = app_for(fake)
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        fake.connected = False
        fake.queue.put_nowait(Lost("no engine is running"))
        await until(pilot, lambda: "NOT CONNECTED" in picture(app))
        shown = picture(app)
        assert "asi kill quiet-heron" in painted(app)[-1]
        assert "Sliding window" in shown
        assert "p pause" not in shown
        fake.connected = True
        fake.queue.put_nowait(Connected(4243))
        await until(pilot, lambda: "live" in painted(app)[0])


@pytest.mark.parametrize("keys", [["q"], ["ctrl+c"], ["2", "q"], ["5", "enter", "q"]])
async def test_leaving_orders_nothing(keys: list[str]) -> None:
    fake = Fake().busy()
    app = app_for(fake)
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        await pilot.press(*keys)
        await pilot.pause(0.2)
    assert not app.is_running
    assert fake.orders == []
    assert not app.emergency.pressed


async def test_pause_is_one_key_and_stop_needs_a_yes() -> None:
    fake = Fake().busy()
    app = app_for(fake)
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        await pilot.press("p")
        await until(pilot, lambda: fake.orders)
        assert fake.orders[0][0] == "pause"
        await pilot.press("S", "enter")
        await pilot.pause(0.2)
        await pilot.press("S", "n", "enter")
        await pilot.pause(0.2)
        assert len(fake.orders) == 1
        await pilot.press("S", "y", "enter")
        await until(pilot, lambda: len(fake.orders) == 2)
        assert fake.orders[1][0] == "stop"


# --- approvals -------------------------------------------------------------------------------------------------------


async def quiet(pilot: Pilot[Any]) -> None:
    await pilot.pause(1.0)


async def test_type_ahead_cannot_approve() -> None:
    fake = Fake().busy()
    app = app_for(fake)
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        await pilot.press("2", "right", "a", "enter", "a", "a", "enter", "space")
        await pilot.pause(0.3)
        assert fake.orders == []


async def test_a_bare_enter_never_decides() -> None:
    fake = Fake().busy()
    app = app_for(fake)
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        await pilot.press("2")
        await quiet(pilot)
        await pilot.press("enter")
        await quiet(pilot)
        assert fake.orders == []
        assert app.focused is None


async def test_after_the_quiet_period_a_approves_the_program_that_was_shown() -> None:
    fake = Fake().busy()
    app = app_for(fake)
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        await pilot.press("2", "right")
        await quiet(pilot)
        await pilot.press("a")
        await until(pilot, lambda: fake.orders)
    name, fields = fake.orders[0]
    assert (name, fields["target"]) == ("approve", "r2")
    assert fields["program"] == fake.state.requests["r2"].program


async def test_high_severity_needs_the_code() -> None:
    fake = Fake().busy()
    app = app_for(fake)
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        await pilot.press("2")
        await quiet(pilot)
        await pilot.press("a", "enter")
        await quiet(pilot)
        await pilot.press("a", *"zzzz", "enter")
        await quiet(pilot)
        assert fake.orders == []
        await pilot.press("a", *fake.state.requests["r1"].program[:4], "enter")
        await until(pilot, lambda: fake.orders)
        assert fake.orders[0][1]["target"] == "r1"


async def test_rejecting_is_quick_and_takes_a_reason() -> None:
    fake = Fake().busy()
    app = app_for(fake)
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        await pilot.press("2", "r", *"no", "enter")
        await until(pilot, lambda: fake.orders)
    name, fields = fake.orders[0]
    assert (name, fields["target"], fields["reason"]) == ("reject", "r1", "no")


async def test_a_new_request_does_not_replace_the_card() -> None:
    fake = Fake().busy()
    app = app_for(fake)
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        await pilot.press("2")
        await settled(pilot)
        screen = app.screen
        assert isinstance(screen, ApprovalsScreen)
        assert screen.chosen == "r1"
        fake.send(ev.ApprovalRequested("r0", "e0005", "f" * 64, "probe", "x", time.time() + 60))
        await until(pilot, lambda: "3 in all" in picture(app))
        assert screen.chosen == "r1"
        # Nor does a decision of somebody else: the card says so, and the next one begins its own quiet period.
        fake.send(ev.ApprovalDecided("e0007", "p", "probe", "reject", "person:b", "r1"))
        await until(pilot, lambda: "rejected by b" in picture(app))
        assert screen.chosen == "r1"
        await quiet(pilot)
        await pilot.press("a", "right", "a")
        await pilot.pause(0.2)
        assert screen.chosen == "r0"
        assert fake.orders == []


async def test_the_card_shows_the_difference_to_the_parent() -> None:
    app = app_for(Fake().busy())
    async with app.run_test(size=(100, 60)) as pilot:
        await settled(pilot)
        await pilot.press("2")
        await until(pilot, lambda: "- " in picture(app) and "9 * d_model" in picture(app))
        shown = picture(app)
        assert "imports ctypes (line 3)" in shown
        assert "up by about 0.05" in shown


# --- the other screens -----------------------------------------------------------------------------------------------


async def test_leaderboard_sorts_and_opens_a_story() -> None:
    app = app_for(Fake().busy())
    async with app.run_test(size=(160, 40)) as pilot:
        await settled(pilot)
        await pilot.press("5")
        await until(pilot, lambda: "linear_attention" in picture(app))
        ids = [line[4:].split()[1] for line in painted(app)[3:10]]
        assert ids == ["e0001", "base", "e0004", "e0003", "base", "e0002", "base"]
        await pilot.press("o")
        await settled(pilot)
        assert [line[4:].split()[1] for line in painted(app)[3:10]] == ids[::-1]
        await pilot.press("o", "home", "enter")
        await settled(pilot)
        assert isinstance(app.screen, ExperimentScreen)
        shown = picture(app)
        for words in ("child of b0", "held, measured", "A decay per channel helps recall.", "e0001-s0"):
            assert words in shown
        await pilot.press("escape")
        await settled(pilot)
        assert "leaderboard" in picture(app)


async def test_transcripts_follow_until_one_scrolls() -> None:
    fake = Fake().busy()
    app = app_for(fake)
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        await pilot.press("3")
        await settled(pilot)
        for number in range(100):
            fake.queue.put_nowait(protocol.LiveText("e0009", "engineer", f"line {number}\n"))
        await until(pilot, lambda: "line 99" in picture(app))
        await pilot.press("pageup")
        await settled(pilot)
        assert "line 99" not in picture(app)
        assert "f follow" in picture(app)
        fake.queue.put_nowait(protocol.LiveText("e0009", "engineer", "line 100\n"))
        await settled(pilot)
        assert "line 100" not in picture(app)
        await pilot.press("f")
        await until(pilot, lambda: "line 100" in picture(app))


async def test_training_draws_the_trial_against_parent_and_baseline() -> None:
    app = app_for(Fake().busy())
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        await pilot.press("4")
        await until(pilot, lambda: "parent e0001" in picture(app) and "baseline gated_deltanet" in picture(app))
        shown = picture(app)
        assert any(0x2800 < ord(c) < 0x2900 for c in shown)
        assert "43%" in shown
        assert "9.3" in shown


async def test_only_the_screen_in_front_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = Fake().busy()
    app = app_for(fake)
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        await pilot.press("5")
        await settled(pilot)
        drawn: list[str] = []
        original = Watch.draw
        monkeypatch.setattr(Watch, "draw", lambda self: (drawn.append(self.NAME), original(self)))
        for _ in range(20):
            fake.queue.put_nowait(protocol.LiveText("e0009", "engineer", "x"))
        await pilot.pause(1.5)
        assert set(drawn) == {"Leaderboard"}
        # Twenty frames in a burst cost a few drawings, not twenty.
        assert len(drawn) <= 9


async def test_help_lists_the_keys_of_the_screen_it_was_called_from() -> None:
    app = app_for(Fake().busy())
    async with app.run_test(size=(100, 50)) as pilot:
        await settled(pilot)
        await pilot.press("2", "question_mark")
        await settled(pilot)
        shown = picture(app)
        assert "approve this program" in shown
        assert "EMERGENCY STOP" in shown
        assert app.emergency.witness in shown


async def test_no_colour_means_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    app = app_for(Fake().busy())
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        for strip in app.screen._compositor.render_strips():
            for one in app.get_line_filters():
                strip = strip.apply_filter(one, app.screen.background_colors[1])
            for segment in strip:
                style = segment.style
                assert style is None or style.color is None or style.color.is_default
                assert style is None or style.bgcolor is None or style.bgcolor.is_default


# --- the stop screen -------------------------------------------------------------------------------------------------


async def test_stop_key_freezes_then_kills_and_shows_proof_only(tmp_path: Path) -> None:
    app = app_for(Fake("AGENT TEXT all stopped, nothing to see").busy(), tmp_path / "quiet-heron")
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        await pilot.press("ctrl+backslash")
        await until(pilot, lambda: "KILL in" in picture(app))
        shown = picture(app)
        assert "3 processes frozen" in shown
        assert "AGENT TEXT" not in shown
        assert app.emergency.witness in shown
        assert app.emergency.report is None
        await pilot.press("f12")
        await until(pilot, lambda: "STOPPED, PROVED" in picture(app))
        shown = picture(app)
        assert "namespace init" in shown
        assert "AGENT TEXT" not in shown
        await asyncio.sleep(0)
        await pilot.press("q")
    assert not app.is_running


async def test_another_stop_key_stops_too() -> None:
    app = app_for(Fake().busy())
    app.preferences = Preferences(stop_keys=["f9"])
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        await pilot.press("f9")
        await until(pilot, lambda: app.emergency.phase == "frozen")
        app.emergency.press()


async def test_preferences_that_cannot_be_read_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "asi").mkdir()
    (tmp_path / "asi" / "terminal.toml").write_text('theme = "pink"\n')
    app = app_for(Fake().busy())
    async with app.run_test(size=(100, 30)) as pilot:
        await settled(pilot)
        shown = " ".join(picture(app).split())
        assert "terminal.toml cannot be read" in shown
        assert "the defaults hold" in shown


@pytest.mark.parametrize("edit", ["", "# better\n"])
async def test_an_edited_copy_is_a_proposal_of_its_own(edit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    editor = tmp_path / "editor"
    editor.write_text(f"#!/bin/sh\nprintf '{edit}' >> \"$1\"\n")
    editor.chmod(0o755)
    monkeypatch.setenv("VISUAL", str(editor))
    fake = Fake().busy()
    fake.says["propose"] = protocol.Answer(1, True, text="e0042")
    app = app_for(fake)
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        monkeypatch.setattr(type(app), "suspend", lambda self: contextlib.nullcontext())
        monkeypatch.setattr(type(app._driver), "can_suspend", True)
        await pilot.press("2")
        await settled(pilot)
        await pilot.press("e")
        if not edit:
            await until(pilot, lambda: "nothing was changed" in picture(app))
            assert fake.orders == []
            return
        await until(pilot, lambda: fake.orders)
        name, fields = fake.orders[0]
        assert name == "propose"
        assert fields["program"].endswith("# better\n")
        assert fields["title"].endswith(", edited")
        assert fake.state.requests["r1"].decision is None
        await until(pilot, lambda: "handed in as e0042" in picture(app))
