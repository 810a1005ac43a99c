"""`asi kill` against the real engine with a trial under way, in every state that engine and disk can be in."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.client import processes
from engine.client.records import read_latch, read_records
from engine.client.rundir import RunPaths, engine_pid, run_mark_entry
from tests.e2e.conftest import Shell, wait_for

pytestmark = [
    pytest.mark.skipif(shutil.which("bwrap") is None, reason="needs bubblewrap"),
    pytest.mark.timeout(600),
]

HOLD_ITS_MAIN_THREAD = """
import ctypes, os, sys, time
SEIZE, INTERRUPT = 0x4206, 0x4207
libc, pid = ctypes.CDLL(None, use_errno=True), int(sys.argv[1])
for request in (SEIZE, INTERRUPT):
    if libc.ptrace(request, pid, None, None):
        sys.exit(os.strerror(ctypes.get_errno()))
os.waitpid(pid, 0x40000000)
print("held", flush=True)
time.sleep(300)
"""
HOLD_THE_DATABASE = """
import sys, time
import duckdb
try:
    held = duckdb.connect(sys.argv[1])
except duckdb.IOException:
    pass  # the engine has it: locked for everybody else all the same
print("held", flush=True)
time.sleep(300)
"""


@contextlib.contextmanager
def running(asi: Shell, name: str) -> Iterator[tuple[Path, int]]:
    """A run with a trial under way: its directory and its engine's pid."""
    root = asi.run_directory(name)
    following = asi.start("run", name, "--headless", "--config", str(asi.config))
    try:
        wait_for(lambda: any(record.kind == "trial" for record in read_records(root)[0]))
        pid = engine_pid(root)
        assert pid is not None
        yield root, pid
        following.wait(60)
    finally:
        following.kill()
        following.communicate()


@contextlib.contextmanager
def helper(code: str, argument: str) -> Iterator[None]:
    """A process that holds something, from now on."""
    with subprocess.Popen([sys.executable, "-c", code, argument], stdout=subprocess.PIPE, text=True) as process:
        try:
            if process.stdout is None or process.stdout.readline() != "held\n":
                pytest.skip("it cannot be held here")
            yield
        finally:
            process.kill()


def assert_killed(asi: Shell, root: Path, *, latched: bool = True) -> str:
    """Kill the run: proved, printed, and nothing left. Returns what was printed."""
    known = {(record.pid_namespace, record.init_start) for record in read_records(root)[0]}
    ended = asi("kill", str(root))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stdout.rstrip().endswith("everything is dead: proved")
    assert f"latched: {'yes' if latched else 'NO'}" in ended.stdout
    assert engine_pid(root) is None
    assert processes.marked({run_mark_entry(root)}) == {}
    assert processes.namespace_members(known) == {}
    return ended.stdout


def assert_refused(asi: Shell, root: Path) -> None:
    assert read_latch(root) is not None
    refused = asi("run", root.name, "--headless")
    assert refused.returncode == 5, refused.stderr


def test_engine_healthy_with_the_database_locked_and_no_socket(asi: Shell) -> None:
    with running(asi, "healthy") as (root, pid), helper(HOLD_THE_DATABASE, str(RunPaths(root).database)):
        RunPaths(root).socket.unlink()
        RunPaths(root).token.unlink()
        said = assert_killed(asi, root)
        assert "trial " in said
        assert "namespace" in said
        assert "engine " in said
        assert "ms from the first signal to the last death" in said
        assert not processes.is_alive(pid, processes.start_time(pid))
    assert read_records(root) == ([], [])
    assert_refused(asi, root)


def test_engine_with_its_event_loop_held(asi: Shell) -> None:
    """The thread that runs the loop is held in place, the engine's other threads go on."""
    with running(asi, "blocked") as (root, pid), contextlib.ExitStack() as stack:
        try:
            stack.enter_context(helper(HOLD_ITS_MAIN_THREAD, str(pid)))
            assert processes.state(pid) == "t"
        finally:
            said = assert_killed(asi, root)
        assert "engine " in said
    assert_refused(asi, root)


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL])
def test_engine_stopped_or_dead(asi: Shell, number: signal.Signals) -> None:
    with running(asi, "still") as (root, pid):
        os.kill(pid, number)
        if number == signal.SIGKILL:  # one that is about to be gone is killed once more, and rightly named
            wait_for(lambda: processes.state(pid) in ("", "Z"))
        said = assert_killed(asi, root)
        assert ("engine " in said) == (number == signal.SIGSTOP)
    assert_refused(asi, root)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_disk_read_only_and_then_full(asi: Shell) -> None:
    runs = asi.run_directory("disk").parent
    runs.mkdir(parents=True)
    # With less free, the engine pauses by itself before it starts a trial.
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2g", "asi-test", str(runs)], check=True)
    try:
        with running(asi, "readonly") as (root, _):
            subprocess.run(["mount", "--bind", str(root), str(root)], check=True)
            subprocess.run(["mount", "-o", "remount,bind,ro", str(root)], check=True)
            try:
                said = assert_killed(asi, root, latched=False)
                assert "Read-only" in " ".join(said.split())
            finally:
                subprocess.run(["umount", "-l", str(root)], check=True)
        assert "nothing of this run was alive" not in said
        assert_killed(asi, root)  # once it can be written, the same command latches
        assert_refused(asi, root)
        with running(asi, "full") as (root, _):
            with contextlib.suppress(OSError), open(runs / "ballast", "wb", buffering=0) as file:
                while True:
                    file.write(bytes(1 << 20))
            said = assert_killed(asi, root)
        (runs / "ballast").unlink()
        assert_refused(asi, root)
    finally:
        subprocess.run(["umount", "-l", str(runs)], check=True)
