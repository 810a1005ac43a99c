"""The words of the shell command, typed into the app."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from asi_tui import wordline
from asi_tui.completion import SHELL, complete
from asi_tui.preferences import load_preferences
from asi_tui.screens.approvals import ApprovalsScreen
from asi_tui.screens.audit import AuditScreen
from asi_tui.screens.output import MOST_BYTES, OutputScreen
from asi_tui.wordline import HANDLERS, run_line, write_new
from tests.asi_tui.fakes import Fake, app_for
from tests.asi_tui.test_app import painted, picture, settled, until
from tests.asi_tui.test_safe import HOSTILE, harmless

EVIL = " ".join(text for name, text in HOSTILE.items() if name != "surrogate")


@pytest.fixture(autouse=True)
def _homes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)


async def typed(pilot: Any, line: str) -> None:
    """A line as a person types it."""
    await settled(pilot)
    await pilot.press("colon")
    pilot.app.screen.typed = line
    await pilot.press("enter")
    await settled(pilot)


@pytest.mark.parametrize(
    ("line", "name", "fields"),
    [
        ("pause", "pause", {}),
        ("pause for lunch", "pause", {"reason": "for lunch"}),
        ("freeze --reason look", "freeze", {"reason": "look"}),
        ("park quiet-heron", "park", {}),
        ("resume", "resume", {}),
        ("stop", "stop", {}),
        ("rearm checked", "rearm", {"reason": "checked"}),
        ("end e0005-s0", "end", {"target": "e0005-s0"}),
        ("reject r1 it leaks memory", "reject", {"target": "r1", "reason": "it leaks memory"}),
        ("reject e0008 --reason no", "reject", {"target": "r2", "reason": "no"}),
        ("defer r2", "defer", {"target": "r2"}),
    ],
)
async def test_orders(line: str, name: str, fields: dict[str, str]) -> None:
    fake = Fake().busy()
    app = app_for(fake)
    async with app.run_test(size=(80, 24)) as pilot:
        await typed(pilot, line)
        await until(pilot, lambda: fake.orders)
    (order,) = fake.orders
    assert order[0] == name
    assert fields.items() <= order[1].items()
    if name in ("reject", "defer"):
        assert order[1]["program"] == fake.state.requests[fields["target"]].program


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("paus", "did you mean pause?"),
        ("xyzzy", "unknown word"),
        ("pause other-run", "this terminal is on quiet-heron"),
        ("kill other-run", "kill alone presses the emergency stop of quiet-heron"),
        ("reject r1", "needs a reason"),
        ("reject r77 no", "no request 'r77' waits"),
        ("rearm", "--reason"),
        ("end", "TRIAL"),
        ("end e9999-s0", "no trial"),
        ("show e9999", "no experiment"),
        ("run", "a terminal of its own"),
        ("attach", "a terminal of its own"),
        ("status --nonsense", "unrecognized arguments"),
        ("set", "set theme dark|light|plain"),
        ("set theme pink", "dark, light, plain"),
        ("set volume 11", "set what?"),
        ("propose /nowhere/x.py", "not a file"),
        ("say 'no", "quotes come in pairs"),
        ("screenshot a b", "one file name"),
    ],
)
async def test_mistakes_are_one_line_and_order_nothing(line: str, said: str, capsys: Any) -> None:
    fake = Fake().busy()
    app = app_for(fake)
    async with app.run_test(size=(160, 24)) as pilot:
        await typed(pilot, line)
        await until(pilot, lambda: said in picture(app))
        assert not app.emergency.pressed
    assert fake.orders == []
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("line", "name"),
    [("5", "Leaderboard"), ("e0001", "Experiment"), ("show e0002", "Experiment"), ("transcript e0001", "Transcripts"),
     ("leaderboard", "Leaderboard"), ("audit", "Audit"), ("approvals", "Approvals"), ("status", "Mission"),
     ("brief", "Brief"), ("brief --since 8h", "Brief"), ("help", "Help"), ("r2", "Approvals")],
)  # fmt: skip
async def test_places(line: str, name: str) -> None:
    fake = Fake().busy()
    app = app_for(fake)
    async with app.run_test(size=(100, 30)) as pilot:
        await typed(pilot, line)
        assert name == app.screen.NAME  # type: ignore[attr-defined]
    assert {name for name, _ in fake.orders} <= {"look"}


async def test_approve_goes_to_the_card_and_approves_nothing() -> None:
    fake = Fake().busy()
    app = app_for(fake)
    async with app.run_test(size=(100, 30)) as pilot:
        await typed(pilot, "approve r2")
        assert isinstance(app.screen, ApprovalsScreen)
        assert app.screen.chosen == "r2"
        assert "nothing is approved by a line" in picture(app)
        await pilot.press("a")
        await settled(pilot)
    assert [name for name, _ in fake.orders if name == "approve"] == []


async def test_kill_presses_the_stop_key() -> None:
    app = app_for(Fake().busy())
    async with app.run_test(size=(80, 24)) as pilot:
        await typed(pilot, "kill")
        await until(pilot, lambda: app.emergency.pressed)


async def test_verify_propose_quit() -> None:
    fake = Fake().busy()
    app = app_for(fake)
    write_new(Path("delta_two.py"), "x = 1\n")
    async with app.run_test(size=(100, 30)) as pilot:
        await typed(pilot, "audit --verify")
        assert isinstance(app.screen, AuditScreen)
        await until(pilot, lambda: "good up to" in picture(app))
        await typed(pilot, "propose delta_two.py --motivation 'two steps'")
        await until(pilot, lambda: fake.orders)
        assert fake.orders[0][0] == "propose"
        assert fake.orders[0][1] | {"who": ""} == {
            "who": "", "program": "x = 1\n", "title": "delta two", "reason": "two steps"
        }  # fmt: skip
        await typed(pilot, "quit")
    assert not app.is_running


async def test_settings_hold_at_once_and_are_kept() -> None:
    app = app_for(Fake().busy())
    async with app.run_test(size=(80, 24)) as pilot:
        await typed(pilot, "set theme light")
        await until(pilot, lambda: load_preferences().theme == "light")
        assert app.theme == "asi-light"
        await typed(pilot, "set ascii on")
        await until(pilot, lambda: load_preferences().ascii)
        assert all(line.isascii() for line in painted(app))
        await typed(pilot, "set ascii off")
        await until(pilot, lambda: "─" in picture(app))
        await typed(pilot, "set bell off")
        await typed(pilot, "set mouse off")
        await until(pilot, lambda: not load_preferences().mouse)
        assert not app.preferences.bell
        assert "from the next start on" in picture(app)


async def test_a_screenshot_is_private_and_replaces_nothing(tmp_path: Path) -> None:
    app = app_for(Fake().busy())
    async with app.run_test(size=(100, 24)) as pilot:
        await typed(pilot, "screenshot one.svg")
        await until(pilot, (tmp_path / "one.svg").exists)
        await until(pilot, lambda: "screenshot in one.svg" in picture(app))
        await typed(pilot, "screenshot one.svg")
        await until(pilot, lambda: "is there already" in picture(app))
    assert os.stat("one.svg").st_mode & 0o777 == 0o600
    assert "screenshot one.svg" not in await asyncio.to_thread((tmp_path / "one.svg").read_text)
    os.symlink("nowhere", "link.svg")
    assert "is there already" in write_new(Path("link.svg"), "x")
    assert "No such file" in write_new(Path("no/such/place.svg"), "x")


# --- programs --------------------------------------------------------------------------------------------------------


async def test_other_words_run_about_this_run_and_show_what_they_print(tmp_path: Path) -> None:
    root = tmp_path / "quiet-heron"
    root.mkdir()
    (root / "run.toml").write_text('name = "quiet-heron"\n')
    app = app_for(Fake().busy(), root)
    async with app.run_test(size=(120, 30)) as pilot:
        await settled(pilot)
        assert wordline._command(app, "rebuild", [])[-2:] == ["rebuild", str(root)]
        assert wordline._command(app, "approvals", ["--json"])[-3:] == ["approvals", "--json", str(root)]
        assert wordline._command(app, "drill", [])[-1] == "drill"
        await typed(pilot, "status --json")
        screen = app.screen
        assert isinstance(screen, OutputScreen)
        await until(pilot, lambda: not screen.runs, 30.0)
        shown = picture(app)
        assert screen.code == 0, shown
        assert '"run": "quiet-heron"' in shown
        await pilot.press("escape")
        await settled(pilot)
        assert app.screen.NAME == "Mission"  # type: ignore[attr-defined]
        await typed(pilot, "pause --help")
        await until(pilot, lambda: "usage: asi pause" in picture(app))


async def shown_output(pilot: Any, code: str) -> OutputScreen:
    await settled(pilot)
    screen = OutputScreen("asi test", [sys.executable, "-c", code])
    await pilot.app.push_screen(screen)
    return screen


async def test_what_is_printed_is_inert_bounded_and_cannot_ask() -> None:
    app = app_for(Fake().busy())
    async with app.run_test(size=(80, 24)) as pilot:
        code = f"import sys; print(repr(sys.stdin.read())); print({EVIL!r}); sys.stdout.write('x' * 79 + '\\n')"
        screen = await shown_output(pilot, code)
        await until(pilot, lambda: "done in" in picture(app))
        assert all(harmless(line) for line in painted(app))
        assert "''" in picture(app)
        await pilot.press("escape")
        screen = await shown_output(pilot, f"print(('y' * 99 + '\\n') * {2 * MOST_BYTES // 100}); raise SystemExit(3)")
        await until(pilot, lambda: "ended with code 3" in picture(app))
        assert "more not kept" in picture(app)
        assert sum(len(screen.copied()) for _ in (0,)) <= MOST_BYTES
        await pilot.press("g", "G", "pageup", "/", *"yyy", "enter")
        await settled(pilot)


async def test_escape_ends_a_program_that_runs() -> None:
    app = app_for(Fake().busy())
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await shown_output(pilot, "import time; print('begun', flush=True); time.sleep(60)")
        await until(pilot, lambda: "begun" in picture(app))
        begin = time.monotonic()
        await pilot.press("escape")
        await until(pilot, lambda: not screen.runs)
        assert time.monotonic() - begin < 5
        await until(pilot, lambda: "ended by a signal" in picture(app))
        # One whose screen goes away goes with it.
        screen = await shown_output(pilot, "import time; print('again', flush=True); time.sleep(60)")
        await until(pilot, lambda: "again" in picture(app))
        process = screen._process
        assert process is not None
        await pilot.press("1")
        await until(pilot, lambda: process.returncode is not None)


async def test_a_program_that_is_not_there_is_told() -> None:
    app = app_for(Fake().busy())
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        await app.push_screen(OutputScreen("x", ["/nowhere/program"]))
        await until(pilot, lambda: "could not be started" in picture(app))


# --- completion and history ------------------------------------------------------------------------------------------


async def test_tab_completes_and_up_recalls() -> None:
    fake = Fake().busy()
    app = app_for(fake)
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        assert complete(app, "lea") == "leaderboard "
        assert complete(app, "re") == "re"
        assert complete(app, "reje") == "reject "
        assert complete(app, "reject r") == "reject r"
        assert complete(app, "set th") == "set theme "
        assert complete(app, "set theme l") == "set theme light "
        assert complete(app, "show e000") == "show e000"
        assert complete(app, "end e0005") == "end e0005-s0 "
        assert complete(app, "zzz") == "zzz"
        await pilot.press("colon", *"lea", "tab")
        await settled(pilot)
        assert app.screen.typed == "leaderboard "  # type: ignore[attr-defined]
        assert "print the ranking" in painted(app)[1]
        await pilot.press("enter", "colon", *"audit", "enter", "colon", "up")
        assert app.screen.typed == "audit"  # type: ignore[attr-defined]
        await pilot.press("up", "up")
        assert app.screen.typed == "leaderboard"  # type: ignore[attr-defined]
        await pilot.press("down", "down", "escape")
        await settled(pilot)
        for number in range(150):
            run_line(app, f"nonsense{number}")
        assert len(app.typed_lines) == 100


def test_every_word_of_the_shell_is_known_here() -> None:
    assert set(HANDLERS) <= SHELL
    assert {"pause", "vet", "drill", "doctor", "brief", "kill"} <= SHELL
