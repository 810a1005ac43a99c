"""Terminals of all kinds: dumb, old, without colour, without UTF-8, narrow; the real command in real ptys."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import sys
import termios
import time
from pathlib import Path
from typing import Any

import pytest

from asi_tui.main import main
from asi_tui.plain import _Follower, how_to_answer, who
from asi_tui.terminals import in_browser, is_dumb, needs_ascii
from engine.client import protocol
from store import events as ev
from store.state import Request
from tests.asi_tui.fakes import Fake
from tests.asi_tui.test_replay import recorded
from tests.asi_tui.test_safe import HOSTILE, harmless

COLOURS = re.compile(rb"\x1b\[[0-9;:]*m")
ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("environment", "dumb", "plain"),
    [
        ({"TERM": "xterm-256color", "LANG": "en_GB.UTF-8"}, False, False),
        ({"TERM": "xterm-256color"}, False, False),
        ({"TERM": "screen-256color", "LC_CTYPE": "C.UTF-8"}, False, False),
        ({"TERM": "linux", "LANG": "en_GB.UTF-8"}, False, True),
        ({"TERM": "vt220-w"}, False, True),
        ({"TERM": "xterm", "LANG": "de_DE.ISO-8859-1"}, False, True),
        ({"TERM": "xterm", "LC_ALL": "C", "LANG": "en_GB.UTF-8"}, False, True),
        ({"TERM": "xterm", "LANG": "en_GB.utf8"}, False, False),
        ({"TERM": "dumb"}, True, False),
        ({}, True, False),
        ({"TERM": "dumb", "TEXTUAL_DRIVER": "web"}, False, False),
    ],
)
def test_what_a_terminal_can_do(environment: dict[str, str], dumb: bool, plain: bool) -> None:
    assert is_dumb(environment) is dumb
    assert needs_ascii(environment) is plain
    assert in_browser(environment) is ("TEXTUAL_DRIVER" in environment)


# --- the real command in a pty ---------------------------------------------------------------------------------------


def in_pty(
    words: list[str],
    environment: dict[str, str],
    size: tuple[int, int] = (100, 30),
    keys: bytes = b"q",
    after: float = 2.5,
    limit: float = 25.0,
) -> tuple[bytes, int]:
    """What `asi` writes into a terminal of its own, and its exit code; `keys` are pressed after a while."""
    child, descriptor = pty.fork()
    if child == 0:
        kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        os.chdir(ROOT)
        os.execve(sys.executable, [sys.executable, "-m", "asi_tui.main", *words], {**kept, **environment})
    fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", size[1], size[0], 0, 0))
    out, begin, pressed = b"", time.monotonic(), False
    try:
        while time.monotonic() < begin + limit:
            ready, _, _ = select.select([descriptor], [], [], 0.1)
            if ready:
                try:
                    out += os.read(descriptor, 65_536)
                except OSError:
                    break
            if not pressed and time.monotonic() > begin + after:
                pressed = True
                os.write(descriptor, keys)
        else:
            os.kill(child, signal.SIGKILL)
    finally:
        os.close(descriptor)
    return out, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return recorded(tmp_path / "asi" / "runs" / "quiet-heron", Fake().busy())


def home(run: Path) -> dict[str, str]:
    return {"XDG_DATA_HOME": str(run.parents[2]), "XDG_CONFIG_HOME": str(run.parents[2] / "config")}


def colours(out: bytes) -> set[bytes]:
    """The parameters of every SGR sequence."""
    found: set[bytes] = set()
    for sequence in COLOURS.findall(out):
        body, index = sequence[2:-1].replace(b":", b";").split(b";"), 0
        while index < len(body):
            if body[index] in (b"38", b"48"):
                kind = body[index + 1 : index + 2]
                found.add(body[index] + b";" + b"".join(kind))
                index += 5 if kind == [b"2"] else 3
            else:
                found.add(body[index])
                index += 1
    return found


def test_true_colour_where_the_terminal_says_so_and_less_where_it_does_not(run: Path) -> None:
    command = ["replay", "quiet-heron", "--at", "end"]
    full, code = in_pty(command, {**home(run), "TERM": "xterm-256color", "COLORTERM": "truecolor"})
    assert code == 0 and b"REPLAY" in full and b"38;2" in colours(full)
    less, code = in_pty(command, {**home(run), "TERM": "screen-256color"})
    assert code == 0 and b"REPLAY" in less
    assert b"38;5" in colours(less) and b"38;2" not in colours(less)


def test_no_colour_means_no_colour(run: Path) -> None:
    environment = {**home(run), "TERM": "xterm-256color", "COLORTERM": "truecolor", "NO_COLOR": "1"}
    out, code = in_pty(["replay", "quiet-heron", "--at", "end"], environment, keys=b"5q")
    assert code == 0 and b"REPLAY" in out
    assert colours(out) <= {b"", b"0", b"1", b"2", b"3", b"4", b"7"}  # bold, dim, italic, underlined, reverse


@pytest.mark.parametrize(
    "environment", [{"TERM": "linux"}, {"TERM": "xterm", "LC_ALL": "C"}, {"TERM": "vt220"}], ids=lambda one: str(one)
)
def test_old_terminals_get_ascii_by_themselves(run: Path, environment: dict[str, str]) -> None:
    out, code = in_pty(["replay", "quiet-heron", "--at", "end"], {**home(run), **environment}, keys=b"45q")
    assert code == 0 and b"REPLAY" in out
    assert out.isascii()


@pytest.mark.parametrize("size", [(40, 12), (20, 5)])
def test_a_narrow_terminal_still_says_what_it_is(run: Path, size: tuple[int, int]) -> None:
    out, code = in_pty(["replay", "quiet-heron", "--at", "end"], {**home(run), "TERM": "xterm"}, size)
    assert code == 0
    assert b"REPLAY" in out or size[0] < 40


@pytest.mark.parametrize(
    ("words", "instead"),
    [
        (["attach", "quiet-heron"], b"asi watch --plain quiet-heron"),
        (["run", "new-one"], b"asi run --headless new-one"),
        (["replay", "quiet-heron"], b"asi audit quiet-heron"),
    ],
)
def test_a_dumb_terminal_is_refused_with_a_pointer(run: Path, words: list[str], instead: bytes) -> None:
    from engine.client.processes import boot_id, start_time

    if words[0] == "attach":  # an engine that is alive, as far as anybody can see: this process
        pid = os.getpid()
        lock = f'{{"pid": {pid}, "start_time": {start_time(pid)}, "boot_id": "{boot_id()}"}}'
        (run / "engine.lock").write_text(lock)
    out, code = in_pty(words, {**home(run), "TERM": "dumb"}, keys=b"", limit=15.0)
    assert code == 2
    assert instead in out and len(out.strip().splitlines()) == 1
    assert not (run.parent / "new-one").exists()


# --- plain lines -----------------------------------------------------------------------------------------------------


def lines_of(capsys: Any) -> list[str]:
    return capsys.readouterr().out.splitlines()


def test_each_plain_line_is_complete(capsys: Any) -> None:
    fake = Fake().busy()
    follower = _Follower(Path("/nowhere/quiet-heron"))
    follower.take(protocol.Records(fake.records))
    lines = lines_of(capsys)
    assert all(re.match(r"\d\d:\d\d:\d\d  \S", line) for line in lines)
    assert all(harmless(line) for line in lines)
    assert not [line for line in lines if re.search("[─━│┤├└┌█░▸●⠀-⣿]", line)]
    assert any(line.endswith("the run is now running") for line in lines)
    assert any("waits for you: e0007" in line and "asi approve r1 --run quiet-heron" in line for line in lines)


def test_what_waits_is_told_to_who_comes_later(capsys: Any) -> None:
    follower = _Follower(Path("/nowhere/quiet-heron"))
    follower.take(protocol.Snapshot(Fake().busy().state))
    lines = lines_of(capsys)
    assert "2 approvals waiting" in lines[0]
    assert [("r1" in line or "r2" in line) for line in lines[1:]] == [True, True]


def test_hostile_text_is_inert_in_plain_lines(capsys: Any) -> None:
    for text in HOSTILE.values():
        fake = Fake(text.encode("utf-8", "replace").decode()).busy()
        _Follower(Path("/nowhere/quiet-heron")).take(protocol.Records(fake.records))
    lines = lines_of(capsys)
    assert lines and [line for line in lines if not harmless(line)] == []


def test_progress_is_rare_never_the_same_again_and_can_be_switched_off(capsys: Any, monkeypatch: Any) -> None:
    clock = [0.0]
    monkeypatch.setattr("asi_tui.plain.time.monotonic", lambda: clock[0])
    follower, quiet = _Follower(Path("/nowhere/r"), 60.0), _Follower(Path("/nowhere/r"), 0.0)
    for one in (follower, quiet):
        one.take(protocol.Snapshot(Fake().busy().state))
        one.take(protocol.LiveCurve("e0005-s0", "e0005", "recall", 10, 100, 0.1))
    capsys.readouterr()
    for second in range(400):
        clock[0] = float(second)
        follower.progress()
        quiet.progress()
    said = lines_of(capsys)
    assert len(said) == 1 and "e0005-s0 recall step 10 of 100, 10% done" in said[0]


def test_who_and_how_to_answer() -> None:
    assert [who(one) for one in ("engine", "person:ada", "agent:researcher")] == ["engine", "ada", "researcher"]
    text = how_to_answer(Request("r1", "e1", "p", "probe", "rule", 0.0, 700.0), "first", 100.0)
    assert "asi approve r1 --run first" in text and "expires in 10 min" in text


def test_plain_lines_are_ascii_where_nothing_else_can_be_shown(capsys: Any, monkeypatch: Any) -> None:
    monkeypatch.setenv("LC_ALL", "C")
    _Follower(Path("/nowhere/quiet-heron")).take(protocol.Records(Fake().busy().records))
    assert capsys.readouterr().out.isascii()


# --- a browser -------------------------------------------------------------------------------------------------------


def test_a_browser_needs_a_running_engine_and_the_extra(run: Path, monkeypatch: Any, capsys: Any) -> None:
    assert main(["serve", str(run)]) == 3
    monkeypatch.setattr("asi_tui.commands.show.running_engine", lambda root: 4242)
    monkeypatch.setitem(sys.modules, "textual_serve", None)
    monkeypatch.setitem(sys.modules, "textual_serve.server", None)
    monkeypatch.delitem(sys.modules, "asi_tui.browser", raising=False)
    assert main(["serve", str(run)]) == 1
    assert "pip install 'asi[browser]'" in capsys.readouterr().err


async def test_only_the_servers_own_page_may_press_keys(run: Path) -> None:
    pytest.importorskip("textual_serve")
    from aiohttp.test_utils import TestClient, TestServer

    from asi_tui.browser import OwnServer, command_for, refusal

    own = "127.0.0.1:8000"
    assert refusal(own, None, None, 8000) == "" == refusal(own, f"http://{own}", "same-origin", 8000)
    assert refusal("evil.example:8000", None, None, 8000)
    assert refusal(own, "http://evil.example", None, 8000) and refusal(own, "http://127.0.0.1:9", None, 8000)
    assert refusal(own, None, "cross-site", 8000) and refusal(own, "null", None, 8000)
    assert command_for(Path("/a b/c")).endswith("asi_tui.main attach '/a b/c'")
    server = OwnServer("false", host="127.0.0.1", port=8000)
    async with TestClient(TestServer(await server._make_app())) as client:
        for headers, status in (({"Host": own}, 200), ({"Host": "evil.example:8000"}, 403)):
            assert (await client.get("/", headers=headers)).status == status
        for headers in ({"Host": own}, {"Host": own, "Origin": "http://evil.example"}):
            assert (await client.get("/ws", headers=headers)).status == 403


def test_a_plain_watch_keeps_the_answers_of_others_until_the_decision(capsys: pytest.CaptureFixture[str]) -> None:
    fake = Fake().start()
    program = "ab" * 32
    fake.record(ev.ExperimentOpened("e0001", "model"))
    fake.record(ev.ApprovalRequested("r1", "e0001", program, "probe", "two", 4e9, 2, risk="R2"))
    fake.record(ev.ApprovalVoted("r1", "approve", "mallory", program, "fine by me"))
    follower = _Follower(Path("/nowhere/quiet-heron"))
    follower.take(protocol.Records(fake.records))
    said = capsys.readouterr().out
    assert "r1: an answer" in said
    assert "mallory" not in said and "fine by me" not in said
