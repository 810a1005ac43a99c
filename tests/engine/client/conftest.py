"""Stand-in engines with real, stubborn sandboxes for the tests of the emergency stop."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.client import kill, processes
from engine.client.records import Record
from engine.client.rundir import RunPaths, run_mark_entry
from engine.supervision.isolation import Isolation

PROJECT = Path(kill.__file__).resolve().parents[2]
TREE = """
import os, signal, time
for number in (signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
for _ in range(2):
    if os.fork() == 0:
        os.setsid()
        if os.fork():
            os._exit(0)
        open("ready%d" % os.getpid(), "w")
        time.sleep(120)
if os.fork() == 0:
    os.kill(os.getpid(), signal.SIGSTOP)
if os.fork() == 0:
    while True:
        if os.fork():
            os._exit(0)
time.sleep(120)
"""
ENGINE = """
import asyncio, sys, time
from pathlib import Path
from engine.client.rundir import RunPaths, atomic_write, lock_content
from engine.supervision.isolation import Isolation, SandboxSpec
from engine.supervision.sandbox import Launcher
async def main(root, count):
    atomic_write(RunPaths(root).lock, lock_content())
    launcher = Launcher(root, Isolation.detect())
    argv = (sys.executable, "-I", "-S", "-c", Path("tree.py").read_text())
    for index in range(count):
        spec = SandboxSpec(id=f"t{index}", argv=argv, workdir=root / "trials" / f"t{index}", cpu_seconds=600)
        await launcher.start(spec)
    (root / "up").touch()
    time.sleep(120)  # its event loop is blocked from here on
asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
"""


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "run"
    RunPaths(folder).create()
    yield folder
    until = time.monotonic() + 10  # what an engine leaves dies right after it, not with it
    while processes.marked({run_mark_entry(folder)}) and time.monotonic() < until:
        time.sleep(0.02)
    assert processes.marked({run_mark_entry(folder)}) == {}


@pytest.fixture
def engine(root: Path, tmp_path: Path) -> Iterator[subprocess.Popen]:
    """A stand-in engine with three hostile sandboxes."""
    if not Isolation.detect().bwrap:
        pytest.skip("bubblewrap does not work here")
    (tmp_path / "tree.py").write_text(TREE)
    child = subprocess.Popen(
        [sys.executable, "-c", ENGINE, str(root), "3"], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(PROJECT)}
    )
    until = time.monotonic() + 60
    while not (root / "up").exists() or len(list(root.glob("trials/*/ready*"))) < 6:
        assert child.poll() is None
        assert time.monotonic() < until
        time.sleep(0.02)
    yield child
    child.kill()
    child.wait()
    kill.kill_run(root, actor="the test's end", reason="clean-up")  # with their cgroups


def bystander() -> subprocess.Popen:
    return subprocess.Popen(["/bin/sleep", "60"])


def record_of(pid: int, start: int, **changes: object) -> Record:
    return Record("x", "trial", pid, start, pid, start, 0, None, processes.boot_id(), 2, f"ASI_RUN_MARK={20 * '0'}")._replace(
        **changes
    )
