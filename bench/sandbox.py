"""What a launch into a sandbox costs, level by level: `python -m bench.sandbox [--launches N] [--load]`.

Every launch is the real one: registered on the disk before its program runs, proved dead at its end. The overhead is
the time from asking for the program to the program running, beyond what a plain subprocess takes for that.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from bench.machine import describe
from engine.client.rundir import RunPaths
from engine.supervision.isolation import Isolation, SandboxSpec
from engine.supervision.sandbox import Launcher

SHELL = "/bin/sh"


def configurations() -> dict[str, Isolation]:
    """What this machine can do, from the strongest on."""
    best = Isolation.detect()
    bare = msgspec.structs.replace(best, bwrap="", unshare="", trouble=())
    shared = bare._without_bubblewrap("left out")
    none = msgspec.structs.replace(bare, landlock_abi=0, filter="", cgroup=None)
    found = {}
    if best.bwrap and best.cgroup and best.cgroup.limits:
        found["L3 bubblewrap and cgroup"] = best
    if best.bwrap:
        found["L2 bubblewrap"] = msgspec.structs.replace(best, cgroup=None)
    if shared.unshare:
        found["L1 unshare"] = shared
    if bare.ceiling == 1:
        found["L1 shim, no namespaces"] = bare
    found["L0 rlimits and shim"] = none
    return found


async def launches(isolation: Isolation, count: int) -> tuple[list[float], list[float]]:
    """Milliseconds from asking to the program running, and from there to its death being proved."""
    with tempfile.TemporaryDirectory(prefix="asi-bench-") as folder:
        RunPaths(folder).create()
        launcher = Launcher(Path(folder), isolation)
        starts, ends = [], []
        for number in range(count + 1):
            workdir = launcher.run_root / "trials" / f"t{number}"
            argv = (SHELL, "-c", "echo > up; while :; do sleep 1; done")
            begin = time.perf_counter()
            process = await launcher.start(SandboxSpec(id=f"t{number}", argv=argv, workdir=workdir))
            while not (workdir / "up").exists():
                await asyncio.sleep(0.0005)
            up = time.perf_counter()
            await process.kill()
            assert process.proved
            if number:  # the first one warms caches
                starts.append((up - begin) * 1000)
                ends.append((time.perf_counter() - up) * 1000)
            shutil.rmtree(workdir)
        return starts, ends


def plain(count: int) -> list[float]:
    """The same program as a subprocess without anything around it."""
    found = []
    with tempfile.TemporaryDirectory(prefix="asi-bench-") as folder:
        mark = Path(folder) / "up"
        for _ in range(count):
            begin = time.perf_counter()
            child = subprocess.Popen([SHELL, "-c", "echo > up; while :; do sleep 1; done"], cwd=folder)
            while not mark.exists():
                time.sleep(0.0005)
            found.append((time.perf_counter() - begin) * 1000)
            child.kill()
            child.wait()
            mark.unlink()
    return found


@contextlib.contextmanager
def load(processes: int) -> Iterator[None]:
    """So many busy processes beside the measurement."""
    busy = [subprocess.Popen([sys.executable, "-I", "-S", "-c", "while True: pass"]) for _ in range(processes)]
    try:
        yield
    finally:
        for child in busy:
            child.kill()
            child.wait()


async def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.sandbox", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--launches", type=int, default=25, metavar="N")
    parser.add_argument("--load", action="store_true", help="with one busy process for each core beside it")
    options = parser.parse_args()
    cores = os.cpu_count() or 1
    print(describe())
    print(f"{options.launches} launches each, {f'{cores} busy processes beside them' if options.load else 'no load'}\n")
    with load(cores if options.load else 0):
        reference = statistics.median(plain(options.launches))
        print(f"{'':<28}{'to running':>12}{'overhead':>11}{'p95':>9}{'kill to proof':>15}")
        print(f"{'a plain subprocess':<28}{reference:>9.1f} ms")
        for name, isolation in configurations().items():
            starts, ends = await launches(isolation, options.launches)
            median, late = statistics.median(starts), sorted(starts)[int(0.95 * (len(starts) - 1))]
            figures = f"{median:>9.1f} ms{median - reference:>8.1f} ms{late:>6.1f} ms"
            print(f"{name:<28}{figures}{statistics.median(ends):>12.1f} ms")


if __name__ == "__main__":
    asyncio.run(main())
