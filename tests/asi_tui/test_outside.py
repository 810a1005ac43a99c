"""What leaves the app: clipboard and file, the pager, the editor; and the stop key while another program has the terminal."""

from __future__ import annotations

import base64
import stat
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from asi_tui import outside
from asi_tui.app import AsiApp
from tests.asi_tui.fakes import Fake, app_for
from tests.asi_tui.test_app import picture, settled, until
from tests.asi_tui.test_safe import HOSTILE, harmless
from tests.asi_tui.test_stop import Terminal, terminals, wait_for  # noqa: F401


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def written(app: AsiApp, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    out: list[str] = []
    assert app._driver is not None
    monkeypatch.setattr(app._driver, "write", out.append)
    return out


async def test_copying_goes_to_the_clipboard_and_to_a_private_file(monkeypatch: pytest.MonkeyPatch) -> None:
    app = app_for(Fake().busy())
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        out = written(app, monkeypatch)
        await outside.copy(app, "eins\nzwei ö")
        encoded = base64.b64encode("eins\nzwei ö".encode()).decode()
        assert f"\x1b]52;c;{encoded}\a" in out
        assert outside.copy_path().read_text() == "eins\nzwei ö"
        assert stat.S_IMODE(outside.copy_path().stat().st_mode) == 0o600
        await until(pilot, lambda: "copied 2 lines" in picture(app))


async def test_what_is_too_long_for_a_terminal_goes_only_to_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    app = app_for(Fake().busy())
    async with app.run_test(size=(120, 24)) as pilot:
        await settled(pilot)
        out = written(app, monkeypatch)
        await outside.copy(app, "ö" * 40_000)
        assert not any("]52;" in one for one in out)
        assert len(outside.copy_path().read_text()) == 40_000
        await until(pilot, lambda: "too long for the clipboard" in picture(app))


async def test_a_file_that_cannot_be_written_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cache").write_text("a file where a folder belongs")
    app = app_for(Fake().busy())
    async with app.run_test(size=(120, 24)) as pilot:
        await settled(pilot)
        await outside.copy(app, "text")
        await until(pilot, lambda: "was not written" in " ".join(picture(app).split()))


async def test_a_terminal_that_cannot_be_lent_is_said() -> None:
    app = app_for(Fake().busy())
    async with app.run_test(size=(120, 24)) as pilot:
        await settled(pilot)
        await outside.page(app, "text", "name")
        await until(pilot, lambda: "cannot be lent" in picture(app))


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_nothing_hostile_reaches_the_pager(text: str) -> None:
    assert all(harmless(line) for line in outside._inert(text).split("\n"))


# --- in a real terminal ----------------------------------------------------------------------------------------------


def program(folder: Path, name: str, lines: str) -> str:
    path = folder / name
    path.write_text("#!/bin/sh\n" + lines)
    path.chmod(0o755)
    return str(path)


def to_the_pager(terminal: Terminal) -> None:
    wait_for(lambda: b"RUNNING" in terminal.output, 60)
    terminal.press(b"3")
    wait_for(lambda: b"engineer" in terminal.output, 20)
    time.sleep(0.3)
    terminal.output = b""
    terminal.press(b"o")


def test_the_pager_shows_the_text_and_the_app_comes_back(
    tmp_path: Path, terminals: Any, monkeypatch: pytest.MonkeyPatch  # noqa: F811
) -> None:
    monkeypatch.setenv("PAGER", "less -N")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    terminal = terminals(tmp_path, "shell")
    to_the_pager(terminal)
    wait_for(lambda: b"(END)" in terminal.output or b"reading the parent" in terminal.output, 20)
    assert b"\x1b[?1049l" in terminal.output
    terminal.output = b""
    terminal.press(b"\x03")  # interrupts nothing of ours
    time.sleep(0.5)  # less throws away what is typed before it
    terminal.press(b"q")
    wait_for(lambda: b"RUNNING" in terminal.output and b"STOP" in terminal.output, 20)
    assert not list(tmp_path.glob("asi-*"))
    terminal.press(b"5")
    wait_for(lambda: b"leaderboard" in terminal.output, 20)
    terminal.press(b"q")
    assert terminal.process.wait(20) == 0


@pytest.mark.parametrize("pager", ["less", "stubborn"])
def test_the_stop_key_works_while_the_pager_has_the_terminal(
    tmp_path: Path, terminals: Any, monkeypatch: pytest.MonkeyPatch, pager: str  # noqa: F811
) -> None:
    if pager == "stubborn":
        pager = program(tmp_path, "stubborn", "trap '' QUIT TERM INT\necho here-it-is\n"
                        "while :; do sleep 0.1; done\n")  # fmt: skip
    monkeypatch.setenv("PAGER", pager)
    terminal = terminals(tmp_path, "shell", 60.0)
    to_the_pager(terminal)
    wait_for(lambda: b"here-it-is" in terminal.output or b"reading the parent" in terminal.output, 20)
    time.sleep(0.5)
    terminal.output = b""
    terminal.press(b"\x1c")
    wait_for((tmp_path / "frozen").exists, 5)
    assert not (tmp_path / "killed").exists()
    wait_for(lambda: b"FROZEN" in terminal.output.upper() and b"\x1b[?1049h" in terminal.output, 20)
    terminal.press(b"\x1c")
    wait_for((tmp_path / "killed").exists, 10)


def test_a_pager_that_suspends_itself_goes_on(
    tmp_path: Path, terminals: Any, monkeypatch: pytest.MonkeyPatch  # noqa: F811
) -> None:
    monkeypatch.setenv("PAGER", program(tmp_path, "sleepy", "kill -STOP $$\necho awake\nsleep 0.2\n"))
    terminal = terminals(tmp_path, "shell")
    to_the_pager(terminal)
    wait_for(lambda: b"awake" in terminal.output, 20)
    wait_for(lambda: b"RUNNING" in terminal.output, 20)


def test_no_such_pager_is_one_clear_line(
    tmp_path: Path, terminals: Any, monkeypatch: pytest.MonkeyPatch  # noqa: F811
) -> None:
    monkeypatch.setenv("PAGER", "no-such-pager --loud")
    terminal = terminals(tmp_path, "shell")
    to_the_pager(terminal)
    wait_for(lambda: b"could not be started" in terminal.output, 20)




async def edited(app: AsiApp, monkeypatch: pytest.MonkeyPatch, editor: str) -> str | None:
    async def lend(_app: AsiApp, command: list[str], _warn: bool) -> int:
        return subprocess.run(command, check=False).returncode  # noqa: ASYNC221

    monkeypatch.setenv("VISUAL", editor)
    monkeypatch.setattr(outside, "_lend_terminal", lend)
    return await outside.edit(app, "x = 1\n")


async def test_the_editor_gives_back_what_was_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = app_for(Fake().busy())
    async with app.run_test(size=(120, 24)) as pilot:
        await settled(pilot)
        change = program(tmp_path, "change", "echo 'y = 2' >> $1\n")
        assert await edited(app, monkeypatch, change) == "x = 1\ny = 2\n"
        assert await edited(app, monkeypatch, "true") is None
        assert await edited(app, monkeypatch, program(tmp_path, "fail", "echo z > $1; exit 3\n")) is None
        await until(pilot, lambda: "ended with code 3" in picture(app))
