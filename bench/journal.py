"""How fast the journal is on this machine: `python -m bench.journal [DIRECTORY]`.

Appends with group commit and with one fsync each, checks the chain, and folds the events. DIRECTORY says which disk to
measure; the default is the one of the temporary files.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from store import events as ev
from store import journal
from store.folding import fold
from store.journal import Journal
from store.state import RunState

EVENTS = 100_000
SYNCED = 300


def _event(number: int) -> ev.Event:
    text = f"trial t{number:06} reached step {number % 500} of 500 with a loss of {3 - number % 500 / 250:.3f}"
    return ev.NoteAdded(text + " and nothing else of note happened while it was watched")


def _append_grouped(directory: Path) -> float:
    with Journal.open(directory) as book:
        begun = time.perf_counter()
        for number in range(EVENTS):
            book.append(_event(number), "engine")
        book.wait(book.seq)
        return EVENTS / (time.perf_counter() - begun)


def _append_synced(directory: Path) -> tuple[float, float]:
    waits = []
    with Journal.open(directory) as book:
        for number in range(SYNCED):
            begun = time.perf_counter()
            book.wait(book.append(_event(number), "engine").seq)
            waits.append(time.perf_counter() - begun)
    return SYNCED / sum(waits), 1000 * statistics.median(waits)


def _verify(directory: Path) -> float:
    begun = time.perf_counter()
    report = journal.verify(directory)
    if not report.ok:
        raise SystemExit(f"the journal just written does not verify: {report.first_bad}")
    return report.records / (time.perf_counter() - begun)


def _read_and_fold(directory: Path) -> float:
    state = RunState()
    begun = time.perf_counter()
    for record in journal.read(directory):
        fold(state, record)
    return state.seq / (time.perf_counter() - begun)


def _fold(directory: Path) -> float:
    records = list(journal.read(directory))
    state = RunState()
    begun = time.perf_counter()
    for record in records:
        fold(state, record)
    return state.seq / (time.perf_counter() - begun)


def main() -> None:
    """Measure and print one table."""
    parser = argparse.ArgumentParser(prog="python -m bench.journal", description="events per second of the journal")
    parser.add_argument("directory", nargs="?", type=Path, help="a folder on the disk to measure")
    place = parser.parse_args().directory
    load = os.getloadavg()[0]
    print(f"{platform.platform()}, {os.cpu_count()} processors, load {load:.1f}")
    print(f"Python {platform.python_version()}, msgspec {msgspec.__version__}")
    with tempfile.TemporaryDirectory(dir=place) as folder:
        grouped, synced = Path(folder) / "grouped", Path(folder) / "synced"
        rates: list[tuple[str, Callable[[], float]]] = [
            ("append, group commit", lambda: _append_grouped(grouped)),
            ("verify the chain", lambda: _verify(grouped)),
            ("read, check and fold", lambda: _read_and_fold(grouped)),
            ("fold alone", lambda: _fold(grouped)),
        ]
        print(f"\n{'':<26}{'events/s':>12}")
        for name, measure in rates:
            print(f"{name:<26}{measure():>12,.0f}", flush=True)
        rate, wait = _append_synced(synced)
        print(f"{'append, one fsync each':<26}{rate:>12,.0f}   median wait {wait:.1f} ms")
        size = sum(path.stat().st_size for path in journal.segments(grouped))
        print(f"\n{EVENTS:,} events of {size / EVENTS:.0f} bytes")


if __name__ == "__main__":
    main()
