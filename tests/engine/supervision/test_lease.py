"""The guard: what it kills when the engine's heart stops, and what it leaves alone."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from engine.client import guard, processes
from engine.supervision.lease import Lease
from engine.supervision.sandbox import Launcher
from store.events import LeaseLost
from tests.engine.supervision.conftest import python

SLEEPER = "import os, time\nos.fork()\ntime.sleep(120)"
LEASE = 3.0


class Told:
    """What the lease told its engine."""

    def __init__(self) -> None:
        self.lost: list[LeaseLost] = []
        self.failed: list[str] = []


@pytest.fixture
async def held(root: Path) -> AsyncIterator[tuple[Lease, Told]]:
    told = Told()
    lease = Lease(root, LEASE, told.lost.append, told.failed.append)
    lease.start()
    keeping = asyncio.create_task(lease.keep())
    yield lease, told
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)
    await lease.leave()
    assert lease._guard is not None
    assert lease._guard.poll() == 0


async def test_a_beating_heart_holds_and_a_blocked_loop_does_not(
    held: tuple[Lease, Told], launcher: Launcher, root: Path
) -> None:
    lease, told = held
    process = await launcher.start(python(SLEEPER, "a", root))
    await asyncio.sleep(1.5 * LEASE)
    assert process.usage().processes >= 2
    assert not lease.lost
    time.sleep(LEASE + 2.0)  # noqa: ASYNC251 - an engine that hangs
    assert not processes.is_alive(process.init_pid, process.record.init_start)
    ended = await asyncio.wait_for(process.wait(), 20)
    assert ended.signal == signal.SIGKILL
    assert lease.lost
    assert process.proved
    await asyncio.sleep(0.5)
    event = told.lost[-1]
    assert (event.sandboxes, event.proved) == (1, True)
    assert event.seconds >= LEASE
    # The heart beats again: what starts now is held like before.
    second = await launcher.start(python(SLEEPER, "b", root))
    await asyncio.sleep(1.5 * LEASE)
    assert second.usage().processes >= 2
    await second.kill()
    assert told.failed == []


async def test_a_guard_that_is_killed_is_replaced(held: tuple[Lease, Told], launcher: Launcher, root: Path) -> None:
    lease, told = held
    assert lease._guard is not None
    first = lease._guard.pid
    process = await launcher.start(python(SLEEPER, "a", root))
    os.kill(first, signal.SIGKILL)
    until = time.monotonic() + 20
    while lease._guard.pid == first and time.monotonic() < until:
        await asyncio.sleep(0.02)
    assert lease._guard.pid != first
    assert process.usage().processes >= 2
    await process.kill()
    assert told.failed == []


async def test_the_end_of_the_engine_is_the_end_of_its_sandboxes(bare_launcher: Launcher, root: Path) -> None:
    """Without namespaces nothing dies with the engine by itself but what the guard kills."""
    process = await bare_launcher.start(python(SLEEPER, "a", root))
    argv = [sys.executable, "-I", "-S", guard.__file__, str(root), "60"]
    # The end of its input is what a guard sees when its engine was killed.
    await asyncio.to_thread(subprocess.run, argv, input=b".", capture_output=True, timeout=30, check=True)
    await asyncio.wait_for(process.wait(), 20)
    assert not processes.is_alive(process.init_pid, process.record.init_start)
