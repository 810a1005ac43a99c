"""A process whose main thread has ended while others run on: `/proc` shows a zombie without memory or environment."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from engine.client import processes
from engine.client.kill import freeze_run, kill_run, thaw_run
from engine.client.rundir import run_mark_entry
from engine.supervision import usage
from engine.supervision.isolation import Isolation, SandboxSpec
from engine.supervision.sandbox import Launcher

HEADLESS = """
import ctypes, os, platform, threading, time
held = open("held", "w+b")
held.write(bytes(3_000_000))
held.flush()
os.unlink("held")
def work():
    count = 0
    while True:
        count += 1
        with open("count", "w") as file:
            file.write(str(count))
        time.sleep(0.001)
threading.Thread(target=work).start()
ctypes.CDLL(None).syscall(60 if platform.machine() == "x86_64" else 93, 0)
"""


def wait_until(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def works_on(folder: Path) -> bool:
    before = (folder / "count").stat().st_mtime_ns
    time.sleep(0.3)
    return (folder / "count").stat().st_mtime_ns != before


@pytest.fixture
def headless(root: Path) -> Iterator[subprocess.Popen]:
    environment = dict([run_mark_entry(root).split("=")])
    process = subprocess.Popen([sys.executable, "-I", "-S", "-c", HEADLESS], cwd=root, env=environment)
    wait_until(lambda: (processes.stat_fields(process.pid) or ["Z"])[0] == "Z" and (root / "count").exists())
    yield process
    process.kill()
    process.wait()


def test_it_is_alive_and_everything_of_it_is_seen(headless: subprocess.Popen, root: Path) -> None:
    pid, started = headless.pid, processes.start_time(headless.pid)
    assert works_on(root)
    assert processes.is_alive(pid, started)
    assert processes.state(pid) not in processes.DEAD
    assert processes.marked({run_mark_entry(root)}) == {pid: started}
    assert pid in processes.descendants(os.getpid())
    assert processes.resident_bytes(pid) > 2**20
    assert usage.memory_bytes([pid], {}, {}, 2**40) > 2**20
    assert usage.memory_bytes([pid], {}, {}, 0) > 2**20
    assert usage.nameless(pid, root).disk >= 3_000_000
    headless.send_signal(signal.SIGSTOP)
    wait_until(lambda: processes.state(pid) == "T")
    assert not works_on(root)


def test_it_dies_with_the_run(headless: subprocess.Popen, root: Path) -> None:
    report = kill_run(root, actor="tester", reason="test")
    assert report.proved
    assert [row.pids for row in report.rows] == [[headless.pid]]
    assert headless.wait(10) == -9


@pytest.mark.parametrize("bare", [False, True])
async def test_in_a_sandbox_it_is_frozen_like_any_other(root: Path, bare: bool) -> None:
    means = msgspec.structs.replace(Isolation.detect(), cgroup=None)
    if bare:
        means = msgspec.structs.replace(means, bwrap="")
    elif not means.bwrap:
        pytest.skip("bubblewrap does not work here")
    folder = root / "trials" / "h"
    argv = (sys.executable, "-I", "-S", "-c", HEADLESS)
    trial = await Launcher(root, means).start(SandboxSpec(id="h", argv=argv, workdir=folder))
    await asyncio.to_thread(wait_until, (folder / "count").exists)
    await asyncio.to_thread(wait_until, lambda: works_on(folder))
    assert trial.usage().memory_bytes > 2**20
    report = await asyncio.to_thread(freeze_run, root)
    assert report.complete, report.errors
    assert not works_on(folder)
    assert (await asyncio.to_thread(thaw_run, root)).complete
    assert works_on(folder)
    await trial.kill()
