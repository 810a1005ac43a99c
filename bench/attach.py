"""How long a terminal takes to be back at a running engine: `python -m bench.attach [RUN]`.

Measures a fresh connection from its first byte to the whole state folded, and the time until the app has imported all
that it needs to draw. Needs a running engine.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import subprocess
import sys
import time

from bench.machine import describe
from engine.client import protocol
from engine.client.connection import Connection
from engine.client.rundir import resolve

ROUNDS = 10


async def first_state(run: str | None) -> tuple[float, int]:
    """Seconds from connecting to the folded state, and how many records that state holds."""
    begun = time.perf_counter()
    async for message in Connection(resolve(run)).messages(retry=False):
        if isinstance(message, protocol.Snapshot):
            return time.perf_counter() - begun, message.state.seq
    raise SystemExit("no engine is running; start one with: asi run --headless")


def import_seconds() -> float:
    """Seconds a new Python needs to import the app."""
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import asi_tui.app"], check=True)
    return time.perf_counter() - begun


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(prog="python -m bench.attach", description=__doc__)
    parser.add_argument("run", nargs="?")
    run = parser.parse_args().run
    print(describe())
    measured = [asyncio.run(first_state(run)) for _ in range(ROUNDS)]
    seconds = [entry[0] for entry in measured]
    imports = [import_seconds() for _ in range(3)]
    print(f"connect and fold {measured[-1][1]} records: median {statistics.median(seconds) * 1000:.1f} ms, "
          f"worst {max(seconds) * 1000:.1f} ms of {ROUNDS}")  # fmt: skip
    print(f"start Python and import the app: median {statistics.median(imports) * 1000:.0f} ms of 3")


if __name__ == "__main__":
    main()
