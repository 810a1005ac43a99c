"""The stop button: freeze at once, count down, kill; held, failing, and pressed with the event loop blocked."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from asi_tui.screens.proof import verdict_rows
from engine.client.freeze import FreezeReport
from tests.asi_tui.fakes import killed, stop_button

ROOT = Path(__file__).parents[2]


def wait_for(condition: Any, seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_first_press_freezes_and_latches_and_does_not_kill(tmp_path: Path) -> None:
    did: list[str] = []

    def freeze(root: Path) -> FreezeReport:
        did.append("freeze")
        return FreezeReport([1], 1.0, True, [])

    button = stop_button(tmp_path, freeze=freeze, latch=lambda *_: did.append("latch") or "",
                         kill=lambda root, **_: did.append("kill") or killed(root))  # fmt: skip
    button.press()
    wait_for(lambda: did == ["freeze", "latch"])
    time.sleep(0.2)
    assert button.phase == "frozen"
    assert did == ["freeze", "latch"]
    button.press()
    assert button.wait(10)
    assert did == ["freeze", "latch", "kill"]


def test_doing_nothing_kills(tmp_path: Path) -> None:
    button = stop_button(tmp_path)
    button.countdown = 0.3
    button.press()
    assert button.wait(10)
    assert button.report is not None


def test_hold_stops_the_countdown_and_another_press_kills(tmp_path: Path) -> None:
    button = stop_button(tmp_path)
    button.countdown = 0.3
    button.press()
    button.hold()
    wait_for(lambda: button.phase == "held")
    time.sleep(0.6)
    assert button.report is None
    button.press()
    wait_for(lambda: button.report is not None)


def test_what_cannot_be_frozen_is_killed_at_once(tmp_path: Path) -> None:
    def freeze(_root: Path) -> FreezeReport:
        raise OSError("no such thing")

    button = stop_button(tmp_path, freeze=freeze)
    button.press()
    assert button.wait(5)
    assert button.report is not None
    assert "no such thing" in button.problems[0]


def test_a_hanging_freeze_and_a_hanging_disk_do_not_hold_up_the_kill(tmp_path: Path) -> None:
    never = threading.Event()
    button = stop_button(tmp_path, freeze=lambda _: never.wait(30) and None, latch=lambda *_: never.wait(30) and "")
    button.press()
    button.press()
    assert button.wait(5)
    assert button.report is not None
    never.set()


def test_a_kill_that_fails_is_said_and_is_no_proof(tmp_path: Path) -> None:
    def kill(_root: Path, **_: Any) -> Any:
        raise RuntimeError("procfs is gone")

    button = stop_button(tmp_path, kill=kill)
    button.press()
    button.press()
    assert button.wait(5)
    wait_for(lambda: button.phase == "killed")
    assert button.report is None
    assert any("procfs is gone" in problem for problem in button.problems)


CHILD = """
    import fcntl, sys, termios, threading, time
    from pathlib import Path
    import asi_tui.app
    from asi_tui.driver import StopDriver
    from tests.asi_tui.fakes import Fake, app_for, killed
    root = Path(sys.argv[1])
    app = app_for(Fake().busy(), root, StopDriver)
    mark = lambda name, value: ((root / name).write_text("x"), value)[1]
    freeze, kill = app.emergency._freeze, app.emergency._kill
    app.emergency._freeze = lambda r: mark("frozen", freeze(r))
    app.emergency._kill = lambda r, **k: mark("killed", kill(r, **k))
    mode = sys.argv[2]
    def block():
        mark("blocked", None)
        time.sleep(60)
    def soon():
        while not app.model.known:
            time.sleep(0.05)
        app._loop.call_soon_threadsafe(block)
    if mode == "block":
        threading.Thread(target=soon, daemon=True).start()
    if mode == "shell":  # as a shell starts it: the terminal sends its signals
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    app.emergency.countdown = float(sys.argv[3])
    asi_tui.app.AsiApp = lambda *_, **__: app
    code = asi_tui.app.run_app(root)
    (root / "left").write_text("x")
    sys.exit(code)
"""


class Terminal:
    """The app in a pseudo-terminal of its own."""

    def __init__(self, root: Path, mode: str, countdown: float) -> None:
        self.root = root
        script = root / "child.py"
        script.write_text(textwrap.dedent(CHILD))
        self.master, slave = pty.openpty()
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm-256color", "COLUMNS": "80", "LINES": "24"}
        environment.pop("TEXTUAL_ALLOW_SIGNALS", None)
        self.process = subprocess.Popen([sys.executable, str(script), str(root), mode, str(countdown)], stdin=slave,
                                        stdout=slave, stderr=slave, env=environment, start_new_session=True)  # fmt: skip
        os.close(slave)
        self.output = b""
        self.reading = True
        self._gone = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while not self._gone and self.process.poll() is None:
            if not self.reading:
                time.sleep(0.05)
                continue
            ready, _, _ = select.select([self.master], [], [], 0.1)
            if ready:
                try:
                    self.output += os.read(self.master, 65_536)
                except OSError:
                    return

    def press(self, data: bytes) -> None:
        os.write(self.master, data)

    def vanish(self) -> None:
        """Close the window; whoever still read from it would keep it open."""
        self._gone = True
        self._reader.join(5)
        os.close(self.master)
        self.master = os.open("/dev/null", os.O_RDWR)

    def close(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)
        self._reader.join(5)
        os.close(self.master)


@pytest.fixture
def terminals() -> Any:
    opened: list[Terminal] = []

    def start(root: Path, mode: str, countdown: float = 10.0) -> Terminal:
        opened.append(Terminal(root, mode, countdown))
        return opened[-1]

    yield start
    for one in opened:
        one.close()


@pytest.mark.parametrize("key", [b"\x1c", b"\x1b[24~"], ids=["ctrl+backslash", "f12"])
def test_the_stop_key_works_while_the_event_loop_is_blocked(tmp_path: Path, terminals: Any, key: bytes) -> None:
    terminal = terminals(tmp_path, "block")
    wait_for((tmp_path / "blocked").exists, 60)
    terminal.press(key)
    wait_for((tmp_path / "frozen").exists, 10)
    assert not (tmp_path / "killed").exists()
    terminal.press(key)
    wait_for((tmp_path / "killed").exists, 10)


def test_the_stop_key_works_while_the_terminal_takes_nothing(tmp_path: Path, terminals: Any) -> None:
    terminal = terminals(tmp_path, "run")
    wait_for(lambda: b"quiet" in terminal.output or b"RUNNING" in terminal.output, 60)
    terminal.reading = False
    for number in range(400):  # every change of screen writes; nobody reads, until the queue is full
        terminal.press(b"12345"[number % 5 : number % 5 + 1])
        time.sleep(0.002)
    terminal.press(b"\x1c\x1c")
    wait_for((tmp_path / "killed").exists, 15)


def test_ctrl_c_leaves_and_touches_nothing(tmp_path: Path, terminals: Any) -> None:
    terminal = terminals(tmp_path, "run")
    wait_for(lambda: b"RUNNING" in terminal.output, 60)
    terminal.press(b"\x03")
    wait_for((tmp_path / "left").exists, 20)
    assert not (tmp_path / "frozen").exists()
    assert not (tmp_path / "killed").exists()


def test_the_app_ends_when_its_terminal_goes_away(tmp_path: Path, terminals: Any) -> None:
    terminal = terminals(tmp_path, "run")
    wait_for(lambda: b"RUNNING" in terminal.output, 60)
    terminal.vanish()
    terminal.process.wait(20)


def test_closing_the_window_during_the_countdown_kills(tmp_path: Path, terminals: Any) -> None:
    terminal = terminals(tmp_path, "run")
    wait_for(lambda: b"RUNNING" in terminal.output, 60)
    terminal.press(b"\x1c")
    wait_for((tmp_path / "frozen").exists, 10)
    terminal.vanish()
    wait_for((tmp_path / "killed").exists, 8)
    terminal.process.wait(20)


# --- leaving during the countdown ------------------------------------------------------------------------------------


def leave_while_it_counts_down(terminals: Any, root: Path, countdown: float) -> Terminal:
    terminal: Terminal = terminals(root, "shell", countdown)
    wait_for(lambda: b"RUNNING" in terminal.output, 60)
    terminal.press(b"\x1c")
    wait_for((root / "frozen").exists, 10)
    terminal.press(b"\x03")
    wait_for(lambda: b"everything is killed in" in terminal.output, 20)
    assert not (root / "killed").exists()
    return terminal


@pytest.mark.parametrize("how", ["the window closes", "SIGTERM"])
def test_after_leaving_what_ends_the_terminal_finishes_the_kill(tmp_path: Path, terminals: Any, how: str) -> None:
    terminal = leave_while_it_counts_down(terminals, tmp_path, 60.0)
    if how == "SIGTERM":
        terminal.process.terminate()
    else:
        terminal.vanish()
    wait_for((tmp_path / "killed").exists, 10)
    assert terminal.process.wait(20) == 5


def test_after_leaving_no_key_takes_the_kill_back(tmp_path: Path, terminals: Any) -> None:
    terminal = leave_while_it_counts_down(terminals, tmp_path, 6.0)
    for key in (b"\x03", b"\x1c", b"\x1a", b"\x03"):
        terminal.press(key)
        time.sleep(0.1)
    assert terminal.process.wait(20) == 5
    assert (tmp_path / "killed").exists()


# --- a machine without threads ---------------------------------------------------------------------------------------


def starve(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Let the threads with these names be the ones that the system does not give."""
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name in names:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)


def test_without_any_thread_the_first_press_kills_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    starve(monkeypatch, "emergency-stop", "emergency-freeze", "emergency-proof")
    button = stop_button(tmp_path)
    button.press()
    assert (button.phase, button.repeats) == ("killed", False)
    assert button.report is not None
    assert button.wait(0)
    assert any("without the countdown" in problem for problem in button.problems)


def test_without_a_thread_to_freeze_it_kills_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    starve(monkeypatch, "emergency-freeze")
    button = stop_button(tmp_path)
    button.press()
    assert button.wait(5)
    assert button.report is not None
    assert any("nothing was frozen" in problem for problem in button.problems)


def test_a_proof_that_nobody_repeats_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    starve(monkeypatch, "emergency-proof")
    button = stop_button(tmp_path)
    button.press()
    button.press()
    wait_for(lambda: not button.repeats)
    assert button.phase == "killed"
    shown = "".join(text for line in verdict_rows(button, 120) for text, _ in line)
    assert "nobody looks again" in shown
    assert "looking again" not in shown
