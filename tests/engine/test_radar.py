"""The leak radar: what carries the mark and has no place shows, nothing else does."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine import radar
from engine.client import processes
from engine.client.records import SANDBOX_MARK, Record
from engine.client.rundir import RunPaths, run_mark_entry
from engine.radar import Radar

ORPHAN = """
import os, sys
if os.fork() == 0:
    os.setsid()
    print(os.getpid(), flush=True)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.execv("/bin/sleep", ["sleep \\x1b[31m", "60"])
"""


class Yard:
    """A run directory and marked processes."""

    def __init__(self, root: Path) -> None:
        RunPaths(root).create()
        self.root = root
        self.mark = dict([run_mark_entry(root).split("=")])
        self.children: list[subprocess.Popen[bytes]] = []
        self.orphans: list[int] = []

    def child(self, **more: str) -> int:
        self.children.append(subprocess.Popen(["/bin/sleep", "60"], env={**self.mark, **more}))
        return self.children[-1].pid

    def orphan(self, **more: str) -> int:
        done = subprocess.run([sys.executable, "-c", ORPHAN], env={**self.mark, **more}, stdout=subprocess.PIPE, check=True)
        self.orphans.append(int(done.stdout))
        return self.orphans[-1]

    def clear(self) -> None:
        for child in self.children:
            child.kill()
            child.wait()
        for pid in self.orphans:
            processes.signal_exactly(pid, processes.start_time(pid), 9)


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[Yard]:
    found = Yard(tmp_path / "run")
    yield found
    found.clear()


def record(pid: int) -> Record:
    start = processes.start_time(pid)
    return Record("x", "trial", pid, start, pid, start, 0, None, processes.boot_id(), 1, f"ASI_RUN_MARK={20 * '0'}")


def settled(pid: int) -> None:
    until = time.monotonic() + 5
    while b"sleep" not in Path(f"/proc/{pid}/cmdline").read_bytes() and time.monotonic() < until:
        time.sleep(0.01)


def test_what_ran_away_shows_after_two_looks(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    stray = yard.orphan()
    claims = yard.orphan(**{SANDBOX_MARK: "x"})
    yard.child()  # a guard or a scorer
    sandboxed = yard.child(**{SANDBOX_MARK: "x"})
    settled(stray)
    settled(claims)
    eye = Radar(yard.root)
    alive = [record(sandboxed)]
    eye.take(eye.look(alive, set()))
    assert eye.strays == []
    eye.take(eye.look(alive, set()))
    assert {found.pid for found in eye.strays or []} == {stray, claims}
    assert all(found.command == "sleep [31m 60" for found in eye.strays or [])
    assert all(abs(found.since - time.time()) < 10 for found in eye.strays or [])
    assert set(eye.look(alive, {stray})) == {(claims, processes.start_time(claims))}, "whoever is attached is no leak"
    # A child of ours with a sandbox's mark: at first it may just be starting, later it has outlived its sandbox.
    assert all(pid != sandboxed for pid, _ in eye.look([], set()))
    monkeypatch.setattr(radar, "LAUNCH_SECONDS", 0.0)
    assert (sandboxed, processes.start_time(sandboxed)) in eye.look([], set())
    yard.clear()
    eye.take(eye.look(alive, set()))
    assert eye.strays == []


def test_looks_are_made_in_the_background(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(radar, "PERIOD", 0.1)
    pid = yard.orphan()
    eye = Radar(yard.root)
    assert eye.poll([], set()) is None
    until = time.monotonic() + 10
    while not eye.poll([], set()) and time.monotonic() < until:
        time.sleep(0.05)
    assert [found.pid for found in eye.strays or []] == [pid]
    monkeypatch.setattr(eye, "look", lambda *_: 1 / 0)
    until = time.monotonic() + 10
    while eye.poll([], set()) is not None and time.monotonic() < until:
        time.sleep(0.05)
    assert eye.strays is None


def test_other_runs_are_not_ours(yard: Yard) -> None:
    pid = yard.orphan(ASI_RUN_MARK="f" * 20)
    assert all(found != pid for found, _ in Radar(yard.root).look([], set()))
    assert os.getpid() not in dict(Radar(yard.root).look([], set()))
