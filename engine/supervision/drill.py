"""The arming drill: a harmless tree that is as hard to kill as a hostile one, killed by the real path."""

from __future__ import annotations

import asyncio
import secrets
import sys
import time

import msgspec

from engine.client import processes
from engine.supervision import folders, sandbox
from engine.supervision.isolation import SandboxSpec

READY_DEADLINE = 20.0
TREE = """
import os, signal, sys, time
for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGUSR1):
    signal.signal(number, signal.SIG_IGN)
for _ in range(2):
    if os.fork() == 0:
        os.setsid()
        if os.fork():
            os._exit(0)
        open("ready-%d" % os.getpid(), "w").close()
        time.sleep(120)
        os._exit(0)
stopped = os.fork()
if stopped == 0:
    os.kill(os.getpid(), signal.SIGSTOP)
    os._exit(0)
time.sleep(120)
"""


class DrillReport(msgspec.Struct, frozen=True):
    """How many processes died, in how many milliseconds, whether the kernel proved it, at which level, when (epoch)."""

    processes: int
    killed_ms: float
    proved: bool
    level: int
    when: float
    proof: str = ""


async def drill(launcher: sandbox.Launcher) -> DrillReport:
    """Start a double-forked, TERM-ignoring, partly stopped tree in a sandbox, kill it by the real kill, prove it.

    Raises:
        LaunchFailed: the sandbox could not be started.
    """
    identifier = f"drill-{secrets.token_hex(4)}"
    workdir = launcher.run_root / "trials" / identifier
    argv = (sys.executable, "-I", "-S", "-c", TREE)
    spec = SandboxSpec(
        id=identifier, kind="drill", argv=argv, workdir=workdir, memory_mb=256, disk_mb=8, processes=32, cpu_seconds=30
    )
    try:
        process = await launcher.start(spec)
        until = time.monotonic() + READY_DEADLINE
        while len(list(workdir.glob("ready-*"))) < 2 and time.monotonic() < until:
            await asyncio.sleep(0.005)
        count = len(processes.tree(process.init_pid))
        row = (await asyncio.to_thread(sandbox.kill_sandboxes, [process.record], 10.0))[0]
        await process.wait()
    finally:
        await asyncio.to_thread(folders.remove, workdir)
    complete = count >= 4
    proof = row.proof if complete else f"only {count} processes came up; {row.proof}"
    return DrillReport(count, row.killed_ms, row.proved and complete, launcher.level, time.time(), proof)
