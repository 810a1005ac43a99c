"""The real app in a pseudo-terminal on a real engine, from attaching to leaving."""

from __future__ import annotations

import shutil
import sys
import time

import pytest

from bench.tui.stage import SCREENS, titles
from bench.tui.terminal import Terminal
from engine.client.rundir import engine_pid
from store import events as ev
from store.journal import read
from tests.e2e.conftest import Shell, wait_for

pytestmark = [
    pytest.mark.skipif(shutil.which("bwrap") is None, reason="needs bubblewrap"),
    pytest.mark.timeout(600),
]
SIZE = (80, 24)


def ranked(asi: Shell, run: str) -> bool:
    journal = asi.run_directory(run) / "journal"
    return journal.exists() and any(isinstance(record.data, ev.ExperimentScored) for record in read(journal))


def seen(terminal: Terminal, key: str) -> str:
    """Press a key and give the picture time to answer and to settle."""
    terminal.press(key.encode())
    time.sleep(0.6)
    return terminal.look()


def check_every_screen(terminal: Terminal) -> None:
    found: dict[str, set[str]] = {}
    for key in SCREENS:
        text = seen(terminal, key)
        assert "Traceback" not in text, text
        assert len(text.split("\n")) == SIZE[1]
        assert "q leave" in text or "q" in text.split("\n")[-1], text
        found[key] = titles(terminal.picture)
    assert all(found[one] != found[other] for one in SCREENS for other in SCREENS if one < other), found


def check_the_words_typed(terminal: Terminal) -> None:
    seen(terminal, ":")
    terminal.press(b"status\r")
    time.sleep(1.0)
    assert "Traceback" not in terminal.look()
    seen(terminal, "\x1b")


def test_a_person_attaches_looks_at_everything_and_leaves(asi: Shell) -> None:
    root = asi.run_directory("watched")
    following = asi.start("run", "watched", "--headless", "--config", str(asi.config))
    wait_for(lambda: ranked(asi, "watched"), 240)
    command = [sys.executable, "-m", "asi_tui.main", "attach", "watched"]
    environment = {name: asi.environment[name] for name in ("HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME")}
    terminal = Terminal(command, environment, SIZE)
    try:
        terminal.wait(lambda picture: "RUNNING" in picture.lines()[0] and "live" in picture.lines()[0], 60)
        check_every_screen(terminal)
        for key in ("1b", "1?"):
            for pressed in key:
                text = seen(terminal, pressed)
            assert "Traceback" not in text
            seen(terminal, "\x1b")
        check_the_words_typed(terminal)
        seen(terminal, "5")
        terminal.press(b"\r")
        terminal.wait(lambda picture: "leaderboard" not in titles(picture), 20)
        opened = terminal.look()
        assert "Traceback" not in opened
        pid = engine_pid(root)
        terminal.press(b"q")
        wait_for(lambda: terminal.process.poll() is not None, 20)
        assert terminal.process.returncode == 0
        assert engine_pid(root) == pid is not None
    finally:
        terminal.close()
    assert asi("stop", "watched").returncode == 0
    assert following.wait(60) == 0
    assert not any(isinstance(record.data, ev.RunKilled) for record in read(root / "journal"))
