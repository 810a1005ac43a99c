"""The emergency stop: needs the run directory and `/proc`, and nothing and nobody else.

Standard library only, and few of its modules, so that it starts at once; also runs as a bare script
(`python -I -S engine/client/kill.py RUN`). It latches the run, kills the engine and every registered sandbox through
the init of its pid namespace, then whatever still carries the run's mark, and reports what the kernel confirms. What
the copy of a live run's directory names is the other run's: it is not touched, and named as not proved.

Nothing here may prevent the killing: a latch that cannot be written or a record that cannot be read is reported.
Whatever touches the disk runs aside with a deadline, because a disk can hang; signals need no disk.

The processes above this command are never killed, even where they carry the run's mark (a shell that was started from
the engine's terminal, say): killing them would end this command before it could prove anything. They are named as not
proved, because nobody but their owner knows whether they do the run's work.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from pathlib import Path
from typing import NamedTuple

if not __package__:  # started as a bare script, isolated from everything that is installed
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from engine.client import processes
from engine.client.aside import Aside
from engine.client.freeze import FreezeReport, freeze_run, thaw_run
from engine.client.records import (
    Kill,
    Latch,
    Record,
    clear_latch,
    moved,
    read_engine,
    read_latch,
    read_records,
    read_registry,
    write_kill,
    write_latch,
)
from engine.client.report import KillReport, Row, format_report, print_report
from engine.client.rundir import RunPaths, UnknownRun, resolve, run_mark_entry, runs_home
from engine.client.strike import CENSUS_SECONDS, Strike, hunt, kill_sandboxes, prove, raise_file_limit

__all__ = [
    "FreezeReport", "KillReport", "Latch", "Record", "Row", "Strike", "clear_latch", "find_run", "format_report",
    "freeze_run", "kill_run", "kill_sandboxes", "print_report", "read_latch", "read_records", "survivors", "thaw_run",
]  # fmt: skip

DISK_SECONDS = 1.0  # how long the end of a kill waits for the disk to take the latch and let go of records


class Target(NamedTuple):
    """The engine under fire: its pid, its pidfd, when it was signalled (monotonic), and what went wrong."""

    pid: int
    descriptor: int
    begin: float
    error: str


class Assault:
    """Everything that a run directory names, signalled while it is read; may be looked at while that goes on."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.engine: Target | None = None
        self.strikes: list[Strike] = []
        self.problems: list[str] = []
        self.moved: bool | None = None  # whether what carries another mark is this run's all the same
        self.taken = 0  # strikes that have been handed out to be proved

    def run(self) -> None:
        """Signal the engine first, so that it starts nothing more, then each sandbox as soon as its record is read."""
        lock, problem = read_engine(self.root)
        if self.moved is None:  # once, and now: the dead hold no lock by which to tell
            self.moved = moved(self.root)
        engine_problems = [problem] if problem else []
        self.problems = engine_problems
        if lock is not None and lock.boot_id == processes.boot_id() and lock.pid != os.getpid() and not self.engine:
            try:
                self.engine = _strike_engine(lock.pid, lock.start_time)
            except OSError as error:
                engine_problems.append(f"the engine (pid {lock.pid}) cannot be reached ({error.strerror})")
        known = {strike.record.id for strike in self.strikes}
        registry = read_registry(self.root, lambda record: self.strikes.append(Strike(record)), known, self.moved)
        self.problems = engine_problems + registry.problems

    def take(self) -> list[Strike]:
        """The strikes since the last time this was asked."""
        fresh = self.strikes[self.taken :]
        self.taken += len(fresh)
        return fresh


def _strike_engine(pid: int, started: int) -> Target | None:
    descriptor = processes.open_exactly(pid, started)
    if descriptor is None:
        return None
    if not processes.is_alive(pid, started):
        os.close(descriptor)
        return None
    begin = time.monotonic()
    return Target(pid, descriptor, begin, processes.send(descriptor, signal.SIGKILL))


def kill_run(root: Path, *, actor: str, reason: str, deadline: float = 10.0) -> KillReport:
    """Latch a run and kill everything of it.

    Args:
        root: the run directory.
        actor: who asks for it; goes into the latch.
        reason: why; goes into the latch.
        deadline: seconds after which waiting for proof ends; the signals are sent in the first milliseconds.
    """
    begin = time.monotonic()
    until = begin + deadline
    raise_file_limit()
    latching = Aside(lambda: write_latch(root, actor, reason))
    census = processes.namespace_census(begin + CENSUS_SECONDS)
    assault = Assault(root)
    rows: list[Row] = []
    deaths: list[float] = []
    unproved: list[str] = []
    engine_seen = False
    # Twice: a live engine may have registered more while we read; once it is dead, no further launch is possible.
    for share in (0.5, 0.9):
        reading = Aside(assault.run)
        problem = reading.wait(begin + deadline * share - time.monotonic())[1]
        engine = None if engine_seen else assault.engine
        engine_seen = assault.engine is not None
        strikes = assault.take()
        proved, ended = prove(strikes, census, until, [engine.descriptor] if engine else [])
        rows += proved
        deaths += ended.values()
        if engine:
            rows.append(_engine_row(engine, ended))
        unproved = list(assault.problems)
        if problem:
            unproved.append(f"not everything in {root} could be read ({problem}); what was read was killed")
            break
    records = [strike.record for strike in assault.strikes]
    marks = {*_mark(root), *(record.mark for record in records)}
    rows += _hunt_workers(marks, until, unproved, deaths)
    notes = _settle_latch(root, latching, until)
    _forget(root, records, rows)
    if assault.engine:
        os.close(assault.engine.descriptor)
    signalled = [strike.begin for strike in assault.strikes] + ([assault.engine.begin] if assault.engine else [])
    death = (max(deaths) - min(signalled)) * 1000 if deaths and signalled else 0.0
    namespaces = {
        (record.pid_namespace, record.init_start) for record in records if record.boot_id == processes.boot_id()
    }
    latched = bool(Aside(lambda: _latch_again(root, actor, reason)).wait(DISK_SECONDS)[0])
    total = (time.monotonic() - begin) * 1000
    report = KillReport(
        str(root), latched, rows, unproved, total, frozenset(namespaces), frozenset(marks), death, notes
    )  # fmt: skip
    return report._replace(notes=(*notes, *_keep(root, actor, reason, report)))


def _keep(root: Path, actor: str, reason: str, report: KillReport) -> list[str]:
    """Leave what this kill came to for the next engine; what went wrong is a note, and no more."""
    count = sum(len(row.pids) for row in report.rows)
    entry = Kill(actor, reason, time.time(), count, round(report.death_ms, 1), report.proved)
    problem, hangs = Aside(lambda: write_kill(root, entry)).wait(DISK_SECONDS)
    return [problem or f"this report could not be kept: {hangs}"] if problem or hangs else []


def _mark(root: Path) -> list[str]:
    """The run's mark; without a disk that says where links lead, the one of the path as it stands."""
    mark, _ = Aside(lambda: run_mark_entry(root)).wait(DISK_SECONDS)
    return [mark] if mark else []


def _engine_row(engine: Target, ended: dict[int, float]) -> Row:
    facts = [f"cannot be signalled ({engine.error})"] if engine.error else []
    if engine.descriptor not in ended:
        waits = " (it waits for a device or a disk)" if processes.state(engine.pid) == "D" else ""
        facts.append("its pidfd says that it has not ended" + waits)
    took = (ended.get(engine.descriptor, time.monotonic()) - engine.begin) * 1000
    return Row("engine", [engine.pid], took, "; ".join(facts) or "process gone", not facts)


def _hunt_workers(marks: set[str], until: float, unproved: list[str], deaths: list[float]) -> list[Row]:
    """Kill what carries the run's mark outside any sandbox; adds to `unproved` and `deaths`."""
    begin = time.monotonic()
    until = max(until, begin + 1.0)
    spared = frozenset(processes.ancestors(os.getpid()))
    hunting = Aside(lambda: hunt(marks, until, spared=spared))
    result, problem = hunting.wait(until + 1.0 - begin)
    if result is None:
        unproved.append(f"the search for what carries the run's mark gave no result ({problem}); repeat the command")
        return []
    tokens = {os.fsencode(mark) for mark in marks}
    for pid in sorted(pid for pid in spared if not tokens.isdisjoint(processes.environment(pid))):
        unproved.append(f"pid {pid} carries the run's mark and was spared: this command runs below it; end it yourself")
    killed, left = result
    if not killed and not left:
        return []
    deaths.append(time.monotonic())
    proof = "alive: " + " ".join(map(str, sorted(left))) if left else "no process carries the mark"
    return [Row("workers", sorted(killed | left), (time.monotonic() - begin) * 1000, proof, not left)]


def _settle_latch(root: Path, latching: Aside[str], until: float) -> tuple[str, ...]:
    """What became of the latch; empty when it is on the disk."""
    failed, hangs = latching.wait(min(DISK_SECONDS, max(0.1, until - time.monotonic())))
    problem = failed or (f"the latch {RunPaths(root).latch} is not on the disk yet: {hangs}" if hangs else "")
    return (f"{problem}; where it is missing, only you keep this run from being started again",) if problem else ()


def _latch_again(root: Path, actor: str, reason: str) -> bool:
    """Whether the run is latched; an engine that was just lifting the latch may have removed ours as it died."""
    path = RunPaths(root).latch
    if not os.path.lexists(path):
        write_latch(root, actor, reason)
    return os.path.lexists(path)


def _forget(root: Path, records: list[Record], rows: list[Row]) -> None:
    """Remove the records of sandboxes whose death is proved."""
    proved = {row.what for row in rows if row.proved}

    def remove() -> None:
        for record in records:
            if f"{record.kind} {record.id}" in proved:
                # In a read-only directory the record stays, and the next kill finds the same proof.
                with contextlib.suppress(OSError):
                    (RunPaths(root).procs / f"{record.id}.json").unlink(missing_ok=True)
                if record.cgroup:  # the kernel may have been busy with it when its death was proved
                    with contextlib.suppress(OSError, ValueError):
                        os.rmdir(record.cgroup)

    Aside(remove).wait(DISK_SECONDS)


def survivors(report: KillReport) -> set[int]:
    """Look again for anything of a killed run: the pids found now, which should be none."""
    return set(processes.marked(set(report.marks))) | set(processes.namespace_members(report.namespaces))


def find_run(run: str | None) -> Path:
    """The run directory; where the disk does not answer in time, the path or name as it was given.

    Raises:
        UnknownRun: there is none.
        OSError: it may not be looked at.
    """

    def look() -> Path | UnknownRun | OSError:
        try:
            return resolve(run)
        except (UnknownRun, OSError) as error:
            return error

    found = Aside(look).wait(DISK_SECONDS)[0]
    if isinstance(found, Path):
        return found
    if found is not None:
        raise found
    if run is None:
        raise UnknownRun(f"the disk with {runs_home()} does not answer; name the run by its path")
    return Path(os.path.abspath(run)) if os.sep in run else runs_home() / run


def main(arguments: list[str] | None = None) -> int:
    """`python -m engine.client.kill RUN`: exit code 0 when death is proved, 1 when not, 2 for wrong usage."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if len(arguments) > 1 or (arguments and arguments[0].startswith("-")):
        print("usage: python -m engine.client.kill [RUN]    RUN is a name or a path; the latest run without one")
        return 2
    try:
        root = find_run(arguments[0] if arguments else None)
    except UnknownRun as error:
        print(f"kill: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"kill: NOT PROVED: {error}; repeat this as the run's owner or as root", file=sys.stderr)
        return 1
    user = os.environ.get("USER", "") or str(os.getuid())
    return print_report(kill_run(root, actor=user, reason="emergency stop from the shell"))


if __name__ == "__main__":
    code = main()
    sys.stdout = None  # what it could not take must not change the exit code
    sys.exit(code)
