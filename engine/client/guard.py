"""The guard: holds every sandbox of a run on a lease that only the engine's heartbeat renews.

Runs as `python -I -S guard.py RUN_DIRECTORY LEASE_SECONDS`, one beside each engine; heartbeats come on standard input.
When they stop for the lease's length (the engine hangs, or somebody stopped it), or when the engine is gone (end of
file), it kills every registered sandbox by the same path as the emergency stop and says so in one JSON line on
standard output. A later heartbeat begins a new lease. Standard library only: it shares nothing with the engine that
could hang with it.

Where the records cannot be read (a disk that hangs), it kills what carries the run's mark and a sandbox's: neither the
engine nor the guard carries a sandbox's. Whatever goes wrong in here, the guard goes on.

The lease is counted on the monotonic clock, which stands still while the machine sleeps: waking up costs no trial.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import sys
import time
from pathlib import Path

if not __package__:  # started as a bare script, isolated from everything that is installed
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from engine.client import processes
from engine.client.aside import Aside
from engine.client.records import SANDBOX_MARK, Record, Registry, read_registry
from engine.client.rundir import RUN_MARK, RunPaths, run_mark_entry
from engine.client.strike import CENSUS_SECONDS, Strike, hunt, prove

LEAVE = b"q"  # the engine ends in order and has seen to its sandboxes itself
READ_SECONDS = 3.0
KILL_SECONDS = 10.0


def end_all(root: Path, mark: str, silent_seconds: float) -> bytes:
    """Kill every sandbox of a run; returns the line that tells the engine. Never raises."""
    killed, read, proved = 0, False, False
    with contextlib.suppress(Exception):  # whatever it was, the marks are left
        killed, read, proved = _end_registered(root)
    if not read:
        with contextlib.suppress(Exception):
            killed += _end_marked(mark)
    told = {"seconds": round(silent_seconds, 1), "sandboxes": killed, "proved": proved}
    return json.dumps(told).encode() + b"\n"


def _end_registered(root: Path) -> tuple[int, bool, bool]:
    """Kill by the records: how many were alive, whether all records were read, whether every death is proved."""
    begin = time.monotonic()
    strikes: list[Strike] = []

    def strike(record: Record) -> None:
        # A disk that answers much later must not hit what was started since then.
        if time.monotonic() < begin + READ_SECONDS:
            strikes.append(Strike(record))

    def read() -> Registry:
        os.stat(RunPaths(root).procs)  # without the folder (the directory was moved) nothing is known
        return read_registry(root, strike)

    census = processes.namespace_census(begin + CENSUS_SECONDS)
    registry, _ = Aside(read).wait(READ_SECONDS)
    rows, _ = prove(list(strikes), census, begin + READ_SECONDS + KILL_SECONDS)
    whole = registry is not None and not registry.problems and len(rows) == len(registry.records)
    return sum(bool(row.pids) for row in rows), whole, whole and all(row.proved for row in rows)


def _end_marked(mark: str) -> int:
    """Kill what carries the run's mark and any sandbox's; returns how many sandboxes that were."""
    entries = {entry for pid in processes.marked({mark}) for entry in processes.environment(pid)}
    sandboxes = {os.fsdecode(entry) for entry in entries if entry.startswith(f"{SANDBOX_MARK}=".encode())}
    hunt(sandboxes, time.monotonic() + KILL_SECONDS, within={mark})
    return len(sandboxes)


def watch(root: Path, lease: float, heart: int, report: int) -> None:
    """Wait for heartbeats until the engine leaves; kill when they stop."""
    # As the engine was started: the directory may be elsewhere by the time it matters.
    mark = f"{RUN_MARK}={os.environ[RUN_MARK]}" if RUN_MARK in os.environ else run_mark_entry(root)
    poll = select.poll()
    poll.register(heart, select.POLLIN)
    last, expired = time.monotonic(), False
    while True:
        left = None if expired else max(0.0, last + lease - time.monotonic()) * 1000
        if poll.poll(left):
            try:
                received = os.read(heart, 4096)
            except OSError:
                received = b""  # no heart that could be heard
            if LEAVE in received:
                return
            if not received:
                end_all(root, mark, time.monotonic() - last)
                return
            last, expired = time.monotonic(), False
        elif time.monotonic() - last >= lease:
            line = end_all(root, mark, time.monotonic() - last)
            expired = True
            with contextlib.suppress(OSError):  # nobody reads it; the killing is what counts
                os.write(report, line)


def main() -> int:
    """`guard.py RUN_DIRECTORY LEASE_SECONDS`; ends with the engine."""
    watch(Path(sys.argv[1]), float(sys.argv[2]), 0, 1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
