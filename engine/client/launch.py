"""Start the engine of a run as a process of its own, and wait until it answers."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from engine.client.rundir import RUN_MARK, RunPaths, engine_pid, run_mark

START_TIMEOUT = 90.0


class EngineFailed(Exception):
    """The engine did not come up; the message is its own last line."""


def start_engine(root: Path, *, experiments: int | None = None) -> int:
    """Start the engine detached from this terminal and return its pid. Raises `EngineFailed`.

    Its output goes to `engine.log` in the run directory. Returns as soon as the socket is there; arming follows.
    """
    paths = RunPaths(root)
    argv = [sys.executable, "-m", "engine.daemon", str(root)]
    if experiments is not None:
        argv += ["--experiments", str(experiments)]
    log = root / "engine.log"
    with log.open("ab") as output:
        begin = output.tell()
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            cwd=str(root),
            env={**os.environ, "PYTHONUNBUFFERED": "1", RUN_MARK: run_mark(root)},
        )
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline:
        if engine_pid(root) == process.pid and paths.socket.exists():
            return process.pid
        if process.poll() is not None:
            raise EngineFailed(last_line(log, begin) or f"the engine ended at once (exit {process.returncode})")
        time.sleep(0.02)
    raise EngineFailed(f"the engine did not answer within {START_TIMEOUT:.0f} s; see {log}")


def last_line(log: Path, begin: int = 0) -> str:
    """The last line that an engine wrote to its log from byte `begin` on; raises OSError when there is no log."""
    with log.open("rb") as stream:
        stream.seek(max(begin, stream.seek(0, 2) - 65_536))
        lines = [line for line in stream.read(65_536).decode("utf-8", "replace").splitlines() if line.strip()]
    return lines[-1] if lines else ""
