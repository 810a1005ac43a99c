"""The guard: holds every sandbox of a run on a lease that only the engine's heartbeat renews.

Runs as `python -I -S guard.py RUN_DIRECTORY LEASE_SECONDS`, one beside each engine; heartbeats come on standard input.
When they stop for the lease's length (the engine hangs, or somebody stopped it), or when the engine is gone (end of
file), it kills every registered sandbox by the same path as the emergency stop and says so in one JSON line on
standard output. A later heartbeat begins a new lease. Standard library only: it shares nothing with the engine that
could hang with it.

The lease is counted on the monotonic clock, which stands still while the machine sleeps: waking up costs no trial.
"""

from __future__ import annotations

import json
import os
import select
import sys
import time
from pathlib import Path

if not __package__:  # started as a bare script, isolated from everything that is installed
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from engine.client.kill import kill_sandboxes
from engine.client.records import read_records

LEAVE = b"q"  # the engine ends in order and has seen to its sandboxes itself
KILL_SECONDS = 10.0


def end_all(root: Path, silent_seconds: float) -> bytes:
    """Kill every registered sandbox of a run; returns the line that tells the engine."""
    records, problems = read_records(root)
    rows = kill_sandboxes(records, KILL_SECONDS)
    proved = not problems and all(row.proved for row in rows)
    told = {"seconds": round(silent_seconds, 1), "sandboxes": sum(bool(row.pids) for row in rows), "proved": proved}
    return json.dumps(told).encode() + b"\n"


def watch(root: Path, lease: float, heart: int, report: int) -> None:
    """Wait for heartbeats until the engine leaves; kill when they stop."""
    poll = select.poll()
    poll.register(heart, select.POLLIN)
    last, expired = time.monotonic(), False
    while True:
        left = None if expired else max(0.0, last + lease - time.monotonic()) * 1000
        if poll.poll(left):
            received = os.read(heart, 4096)
            if LEAVE in received:
                return
            if not received:
                end_all(root, time.monotonic() - last)
                return
            last, expired = time.monotonic(), False
        elif time.monotonic() - last >= lease:
            line = end_all(root, time.monotonic() - last)
            expired = True
            try:
                os.write(report, line)
            except OSError:
                continue  # nobody reads it; the killing is what counts


def main() -> int:
    """`guard.py RUN_DIRECTORY LEASE_SECONDS`; ends with the engine."""
    watch(Path(sys.argv[1]), float(sys.argv[2]), 0, 1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
