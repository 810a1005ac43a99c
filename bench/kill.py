"""How fast the emergency stop and the freeze are on this machine: `python -m bench.kill [--trees 1,8,64] [--repeat N]`.

For each state that an engine can be in, a stand-in engine starts real sandboxes with trees that are hard to kill, and
the real command is run against them as a shell would: `python -I -S kill.py RUN`, then `asi kill RUN`. Every wait has
a deadline, and whatever happens, nothing that was started here is left behind. Figures are medians; the worst is given.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from bench.machine import describe
from engine.client import kill, processes
from engine.client.kill import freeze_run, kill_run, read_records, thaw_run
from engine.client.rundir import RUN_MARK, RunPaths, atomic_write, lock_content, run_mark, run_mark_entry

STATES = ("healthy", "blocked", "stopped", "dead")
START_SECONDS = 180.0
COMMAND_SECONDS = 60.0
COMMANDS = {
    "bare": [sys.executable, "-I", "-S", str(Path(kill.__file__).resolve())],
    "asi": [sys.executable, "-m", "asi_tui.main", "kill"],
}
TREE = """
import os, signal, sys, time
for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
    signal.signal(number, signal.SIG_IGN)
def child(work):
    pid = os.fork()
    if pid == 0:
        work()
        os._exit(0)
    return pid
def daemon():
    os.setsid()
    if os.fork() == 0:
        time.sleep(3600)
def hop():
    while not os.fork():
        pass
child(lambda: time.sleep(3600))
os.waitpid(child(daemon), 0)
os.waitpid(child(lambda: os.kill(os.getpid(), signal.SIGSTOP)), os.WUNTRACED)
if sys.argv[1] == "hop":
    child(hop)
open("ready", "w").close()
time.sleep(3600)
"""
DEATH = re.compile(r"([\d.]+) ms from the first signal to the last death")


Engine = subprocess.Popen[bytes]


class Sample(NamedTuple):
    """One kill: milliseconds from the first signal to the last death, of the whole command; processes left; verdict."""

    death_ms: float
    wall_ms: float
    survivors: int
    proved: bool


async def stand_in(root: Path, count: int, blocked: bool, hoppers: int, grouped: bool) -> None:
    """Be an engine: hold the lock, start `count` sandboxes, then run or block the event loop."""
    import msgspec

    from engine.supervision.isolation import Isolation, SandboxSpec
    from engine.supervision.sandbox import Launcher

    atomic_write(RunPaths(root).lock, lock_content())
    means = Isolation.detect()
    launcher = Launcher(root, means if grouped else msgspec.structs.replace(means, cgroup=None))
    for index in range(count):
        kind = "hop" if index < hoppers else "plain"
        argv = (sys.executable, "-I", "-S", "-c", TREE, kind)
        await launcher.start(SandboxSpec(id=f"t{index:02}", argv=argv, workdir=root / "trials" / f"t{index:02}"))
    (root / "up").touch()
    if blocked:
        time.sleep(3600)  # noqa: ASYNC251 - exactly this is the state to be measured
    while True:
        await asyncio.sleep(0.01)


@contextlib.contextmanager
def engine(state: str, trees: int, hoppers: int, grouped: bool = True) -> Iterator[tuple[Path, Engine]]:
    """A run whose stand-in engine is in this state, with all of its trees up."""
    with tempfile.TemporaryDirectory(prefix="asi-bench-kill-") as folder:
        root = Path(folder) / "run"
        RunPaths(root).create()
        options = [str(root), str(trees), str(int(state == "blocked")), str(hoppers), str(int(grouped))]
        child = subprocess.Popen(
            [sys.executable, "-m", "bench.kill", "--stand-in", *options],
            env={**os.environ, RUN_MARK: run_mark(root)}, start_new_session=True, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            until = time.monotonic() + START_SECONDS
            while not (root / "up").exists() or len(list(root.glob("trials/*/ready"))) < trees:
                if child.poll() is not None or time.monotonic() > until:
                    raise SystemExit("the stand-in engine did not start; does `asi doctor` find bubblewrap?")
                time.sleep(0.05)
            if state == "stopped":
                child.send_signal(signal.SIGSTOP)
            yield root, child
        finally:
            kill_run(root, actor="bench", reason="the end of the benchmark")
            child.kill()
            child.wait(COMMAND_SECONDS)


def measure(command: str, state: str, trees: int, hoppers: int) -> Sample:
    """Start an engine with its trees, kill the run by a command, and look for survivors."""
    with engine(state, trees, hoppers) as (root, child):
        namespaces = {(record.pid_namespace, record.init_start) for record in read_records(root)[0]}
        if state == "dead":
            child.kill()
        begin = time.monotonic()
        done = subprocess.run(
            [*COMMANDS[command], str(root)], capture_output=True, text=True, timeout=COMMAND_SECONDS, check=False
        )
        wall = (time.monotonic() - begin) * 1000
        left = set(processes.marked({run_mark_entry(root)})) | set(processes.namespace_members(namespaces))
        found = DEATH.search(done.stdout)
        return Sample(float(found[1]) if found else 0.0, wall, len(left), done.returncode == 0)


def measure_freeze(trees: int, hoppers: int, grouped: bool) -> tuple[float, float, int, bool]:
    """Freeze and thaw a healthy run: milliseconds of both, processes, and whether all went right."""
    with engine("healthy", trees, hoppers, grouped) as (root, child):
        frozen = freeze_run(root)
        spared = processes.state(child.pid) not in "Tt"
        thawed = thaw_run(root)
        good = frozen.complete and thawed.complete and spared
        return frozen.milliseconds, thawed.milliseconds, len(frozen.pids), good


@contextlib.contextmanager
def load(count: int) -> Iterator[None]:
    """Keep this many cores busy."""
    busy = [subprocess.Popen([sys.executable, "-I", "-S", "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def kill_table(options: argparse.Namespace, busy: int) -> int:
    """Print the kill table; returns how many kills were not proved or left something alive."""
    print(f"\nkill, {busy} busy processes beside it; milliseconds: median (worst) of {options.repeat}")
    print(f"{'engine':<9}{'trees':>6}  {'signals to all dead':>21}  {'bare command':>17}  {'asi kill':>17}  survivors")
    bad = 0
    for state in options.states:
        for trees in options.trees:
            samples = {
                command: [measure(command, state, trees, min(options.hoppers, trees)) for _ in range(options.repeat)]
                for command in COMMANDS
            }
            both = [sample for taken in samples.values() for sample in taken]
            bad += sum(sample.survivors > 0 or not sample.proved for sample in both)
            walls = [_spread([sample.wall_ms for sample in samples[command]]) for command in COMMANDS]
            deaths = _spread([sample.death_ms for sample in both])
            left = sum(sample.survivors for sample in both)
            print(f"{state:<9}{trees:>6}  {deaths:>21}  {walls[0]:>17}  {walls[1]:>17}  {left:>9}", flush=True)
    return bad


def freeze_table(options: argparse.Namespace, busy: int) -> int:
    """Print the freeze table; returns how often not everything was seen stopped, or the engine was."""
    print(f"\nfreeze, {busy} busy processes beside it; milliseconds: median (worst) of {options.repeat}")
    print(f"{'means':<9}{'trees':>6}{'processes':>11}  {'all stopped':>17}  {'all going on':>17}  complete")
    bad = 0
    for grouped in (True, False):
        for trees in options.trees:
            taken = [measure_freeze(trees, min(options.hoppers, trees), grouped) for _ in range(options.repeat)]
            good = sum(sample[3] for sample in taken)
            bad += len(taken) - good
            frozen, thawed = (_spread([sample[index] for sample in taken]) for index in (0, 1))
            line = f"{'cgroup' if grouped else 'signals':<9}{trees:>6}{taken[0][2]:>11}"
            print(f"{line}  {frozen:>17}  {thawed:>17}  {good} of {len(taken)}", flush=True)
    return bad


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):.0f} ({max(values):.0f})"


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def main() -> int:
    """Measure and print; exit code 1 when anything survived, stayed unproved or went on while frozen."""
    if sys.argv[1:2] == ["--stand-in"]:
        root, count, blocked, hoppers, grouped = sys.argv[2:]
        asyncio.run(stand_in(Path(root), int(count), blocked == "1", int(hoppers), grouped == "1"))
        return 0
    parser = argparse.ArgumentParser(prog="python -m bench.kill", description="time from command to proof of death")
    parser.add_argument("--trees", type=_numbers, default="1,8,64", help="how many sandboxes (default 1,8,64)")
    parser.add_argument("--load", type=_numbers, default="0,2", help="how many busy processes beside it (default 0,2)")
    parser.add_argument("--states", nargs="+", choices=STATES, default=STATES, help="states of the engine")
    parser.add_argument("--repeat", type=int, default=3, help="kills per figure and command")
    parser.add_argument("--hoppers", type=int, default=1, help="trees that also change their pid all the time")
    options = parser.parse_args()
    print(describe())
    print(f"load {os.getloadavg()[0]:.1f}; each tree: SIGTERM ignored, a child, a setsid daemon, a stopped child;")
    print(f"{options.hoppers} of them with a child that changes its pid as fast as it can")
    bad = 0
    for busy in options.load:
        with load(busy):
            bad += kill_table(options, busy) + freeze_table(options, busy)
    print(f"\n{'everything died, proved, and froze' if not bad else f'{bad} TIMES SOMETHING WAS LEFT OR NOT PROVED'}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
