"""The emergency stop: needs the run directory and `/proc`, and nothing and nobody else.

Standard library only, and few of its modules, so that it starts at once; also runs as a bare script
(`python -I -S engine/client/kill.py RUN`). It latches the run, kills every registered sandbox through the init of its
pid namespace, then the engine, then whatever still carries the run's mark, and reports what the kernel confirms.
Nothing here may prevent the killing: a latch that cannot be written or a record that cannot be read is reported.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import NamedTuple

if not __package__:  # started as a bare script, isolated from everything that is installed
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from engine.client import processes
from engine.client.freeze import FreezeReport, freeze_run, thaw_run
from engine.client.records import Latch, Record, clear_latch, read_latch, read_records, sandbox_mark, write_latch
from engine.client.rundir import RunPaths, UnknownRun, read_lock, resolve, run_mark_entry

__all__ = [
    "FreezeReport", "KillReport", "Latch", "Record", "Row", "clear_latch", "format_report", "freeze_run", "kill_run",
    "kill_sandboxes", "read_latch", "read_records", "survivors", "thaw_run",
]  # fmt: skip

SHIM_GRACE = 2.0  # seconds a namespace-less sandbox's shim gets to end its tree and thereby prove it


class Row(NamedTuple):
    """One thing that was killed: its pids, how long it took, what proves it."""

    what: str
    pids: list[int]
    killed_ms: float
    proof: str
    proved: bool


class KillReport(NamedTuple):
    """What a kill did. `proved` is true only when the kernel confirmed every death."""

    run: str
    latched: bool
    rows: list[Row]
    unproved: list[str]
    total_ms: float
    namespaces: frozenset[int]
    marks: frozenset[str]

    @property
    def proved(self) -> bool:
        """Whether every row is proved and nothing is left open."""
        return not self.unproved and all(row.proved for row in self.rows)


class Strike:
    """A sandbox under fire: signals are sent at construction, `row` says what became of it."""

    def __init__(self, record: Record) -> None:
        self.record = record
        self.errors: list[str] = []
        self.descriptors: list[int] = []
        self.cooperative = record.pid_namespace == 0
        if record.boot_id != processes.boot_id():
            return
        self._kill_cgroup()
        named = {(record.init_pid, record.init_start), (record.outer_pid, record.outer_start)}
        for pid, started in sorted(named, key=lambda pair: pair[0] != record.init_pid):
            descriptor = processes.open_exactly(pid, started)
            if descriptor is None:
                continue
            self.descriptors.append(descriptor)
            # Without a namespace only the shim knows its whole tree: it kills it to the last child and then ends.
            error = processes.send(descriptor, signal.SIGTERM if self.cooperative else signal.SIGKILL)
            if error:
                self.errors.append(f"pid {pid}: {error}")

    def _kill_cgroup(self) -> None:
        if self.record.cgroup:
            try:
                with open(os.path.join(self.record.cgroup, "cgroup.kill"), "w") as file:
                    file.write("1")
            except OSError:
                pass  # gone, or an older kernel: the pidfds do the work, and the proof below is the same

    def close(self) -> None:
        """Release the pidfds."""
        for descriptor in self.descriptors:
            os.close(descriptor)
        self.descriptors = []


def cgroup_populated(path: str | None) -> bool:
    """Whether a cgroup still holds a living process; one that is gone does not."""
    if not path:
        return False
    try:
        with open(os.path.join(path, "cgroup.events")) as file:
            return "populated 1" in file.read()
    except OSError:
        return False


def kill_sandboxes(records: list[Record], deadline: float = 10.0) -> list[Row]:
    """Kill these sandboxes and prove it; returns one row for each. Takes at most about `deadline` seconds."""
    begin = time.monotonic()
    until = begin + deadline
    before = processes.namespace_members({record.pid_namespace for record in records})
    strikes = [Strike(record) for record in records]
    try:
        hard = [descriptor for strike in strikes if not strike.cooperative for descriptor in strike.descriptors]
        ended = processes.wait_ended(hard, until)
        soft = [descriptor for strike in strikes if strike.cooperative for descriptor in strike.descriptors]
        ended |= processes.wait_ended(soft, min(until, time.monotonic() + SHIM_GRACE))
        left = _await_empty([record for record in records if record.pid_namespace], until)
        return [_row(strike, before, ended, left, begin, until) for strike in strikes]
    finally:
        for strike in strikes:
            strike.close()
            with contextlib.suppress(OSError):  # only an empty one goes
                os.rmdir(strike.record.cgroup or "")


def _await_empty(records: list[Record], until: float) -> dict[int, tuple[int, int]]:
    """Wait for namespaces without members and cgroups without population; returns the members that are left."""
    inodes = {record.pid_namespace for record in records}
    while True:
        left = processes.namespace_members(inodes)
        populated = any(cgroup_populated(record.cgroup) for record in records)
        if (not left and not populated) or time.monotonic() >= until:
            return left
        time.sleep(0.002)


def _row(
    strike: Strike,
    before: dict[int, tuple[int, int]],
    ended: dict[int, float],
    left: dict[int, tuple[int, int]],
    begin: float,
    until: float,
) -> Row:
    """The verdict on one sandbox."""
    record = strike.record
    what = f"{record.kind} {record.id}"
    if record.boot_id != processes.boot_id():
        return Row(what, [], 0.0, "registered in an earlier boot of this machine", True)
    if strike.cooperative:
        return _row_without_namespace(strike, ended, begin, until)
    pids = sorted(pid for pid, (inode, _) in before.items() if inode == record.pid_namespace)
    if not strike.descriptors and not pids:
        return Row(what, [], 0.0, "already dead: no such process, namespace empty", True)
    times = [ended[descriptor] for descriptor in strike.descriptors if descriptor in ended]
    took = (max(times, default=time.monotonic()) - begin) * 1000
    survivors = [pid for pid, (inode, _) in left.items() if inode == record.pid_namespace]
    facts = list(strike.errors)
    if len(times) < len(strike.descriptors):
        facts.append("a pidfd is not readable: the process has not ended")
    if survivors:
        facts.append("alive in its namespace: " + " ".join(map(str, survivors)))
    if cgroup_populated(record.cgroup):
        facts.append("its cgroup is populated")
    proof = "; ".join(facts) or "namespace init reaped, namespace empty" + (", cgroup empty" if record.cgroup else "")
    return Row(what, pids or [record.init_pid], took, proof, not facts)


def _row_without_namespace(strike: Strike, ended: dict[int, float], begin: float, until: float) -> Row:
    """Without a namespace, the proof is that the shim ended by itself after its last child; else we hunt."""
    record = strike.record
    what = f"{record.kind} {record.id}"
    shim_ended = bool(strike.descriptors) and all(descriptor in ended for descriptor in strike.descriptors)
    hunted = set() if shim_ended else processes.descendants(record.init_pid) if strike.descriptors else set()
    for pid in hunted:
        processes.signal_exactly(pid, processes.start_time(pid), signal.SIGKILL)
    killed, left = hunt({sandbox_mark(record)}, set(), min(until, time.monotonic() + 1.0))
    for descriptor in () if shim_ended else strike.descriptors:
        processes.send(descriptor, signal.SIGKILL)
    took = (time.monotonic() - begin) * 1000
    pids = sorted({record.init_pid, *hunted, *killed})
    if left:
        return Row(what, pids, took, "alive: " + " ".join(map(str, sorted(left))), False)
    if shim_ended and not killed:
        return Row(what, pids, took, "its shim reaped the whole tree", True)
    return Row(what, pids, took, "nothing carries its mark, but without a namespace this is no proof", False)


def hunt(marks: set[str], inodes: set[int], until: float) -> tuple[set[int], set[int]]:
    """Kill whatever carries a mark or lives in a namespace, until two scans in a row find nothing.

    Returns the pids that were killed and those that were still there at `until` (monotonic).
    """
    killed: set[int] = set()
    clean = 0
    while True:
        found = processes.marked(marks)
        found.update({pid: started for pid, (_, started) in processes.namespace_members(inodes).items()})
        clean = 0 if found else clean + 1
        if clean == 2 or time.monotonic() >= until:
            return killed, set(found)
        descriptors = []
        for pid, started in found.items():
            descriptor = processes.open_exactly(pid, started)
            if descriptor is not None:
                descriptors.append(descriptor)
                if not processes.send(descriptor, signal.SIGKILL):
                    killed.add(pid)
        processes.wait_ended(descriptors, min(until, time.monotonic() + 0.1))
        for descriptor in descriptors:
            os.close(descriptor)


def kill_engine(root: Path, deadline: float = 5.0) -> Row | None:
    """Kill the engine that holds the run; None when none is alive, or when it is the caller itself."""
    lock = read_lock(root)
    if lock is None or lock.boot_id != processes.boot_id() or lock.pid == os.getpid():
        return None
    descriptor = processes.open_exactly(lock.pid, lock.start_time)
    if descriptor is None or not processes.is_alive(lock.pid, lock.start_time):
        return None
    begin = time.monotonic()
    try:
        error = processes.send(descriptor, signal.SIGKILL)
        ended = processes.wait_ended([descriptor], begin + deadline)
    finally:
        os.close(descriptor)
    took = (time.monotonic() - begin) * 1000
    proof = error or ("pidfd readable" if ended else "its pidfd is not readable: it has not ended")
    return Row("engine", [lock.pid], took, proof, bool(ended) and not error)


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
    latch_problem = ["the latch is still being written; the disk may hang"]

    def latch() -> None:
        latch_problem[0] = write_latch(root, actor, reason)

    # In a thread: a hanging disk must not keep the killing from happening.
    latching = threading.Thread(target=latch, daemon=True)
    latching.start()
    latching.join(0.1)
    records, unproved = read_records(root)
    rows = kill_sandboxes(records, deadline)
    engine = kill_engine(root, max(1.0, until - time.monotonic()))
    if engine:
        rows.append(engine)
    # A live engine may have registered more while we worked: with it dead, no further launch is possible.
    known = {record.id for record in records}
    late, unproved = read_records(root)
    rows += kill_sandboxes([record for record in late if record.id not in known], max(1.0, until - time.monotonic()))
    records += [record for record in late if record.id not in known]
    marks = {run_mark_entry(root), *(record.mark for record in records)}
    inodes = {record.pid_namespace for record in records if record.boot_id == processes.boot_id()}
    hunt_begin = time.monotonic()
    killed, left = hunt(marks, inodes, max(until, hunt_begin + 1.0))
    if killed or left:
        proof = "alive: " + " ".join(map(str, sorted(left))) if left else "no process carries the run's mark any more"
        rows.append(Row("workers", sorted(killed | left), (time.monotonic() - hunt_begin) * 1000, proof, not left))
    latching.join(max(0.0, min(1.0, until - time.monotonic())))
    if latch_problem[0]:
        unproved.append(f"{latch_problem[0]}; nothing but you keeps this run from being started again")
    _forget(root, records, rows)
    total = (time.monotonic() - begin) * 1000
    latched = RunPaths(root).latch.exists() if not latching.is_alive() else False
    return KillReport(str(root), latched, rows, unproved, total, frozenset(inodes), frozenset(marks))


def _forget(root: Path, records: list[Record], rows: list[Row]) -> None:
    """Remove the records of sandboxes whose death is proved."""
    proved = {row.what for row in rows if row.proved}
    for record in records:
        if f"{record.kind} {record.id}" in proved:
            # In a read-only directory the record stays, and the next kill finds the same proof.
            with contextlib.suppress(OSError):
                (RunPaths(root).procs / f"{record.id}.json").unlink(missing_ok=True)


def survivors(report: KillReport) -> set[int]:
    """Look again for anything of a killed run: the pids found now, which should be none."""
    return set(processes.marked(set(report.marks))) | set(processes.namespace_members(set(report.namespaces)))


def format_report(report: KillReport) -> str:
    """The report as a plain table for any terminal."""
    lines = [f"kill {report.run}"]
    for row in report.rows:
        verdict = "dead" if row.proved else "NOT PROVED"
        count = f"{len(row.pids)} process{'' if len(row.pids) == 1 else 'es'}"
        lines.append(f"  {verdict:<10}  {row.what:<28}  {count:>13}  {row.killed_ms:8.1f} ms  {row.proof}")
    if not report.rows:
        lines.append("  nothing of this run was alive")
    lines += [f"  {'OPEN':<10}  {problem}" for problem in report.unproved]
    lines.append(f"  latched: {'yes' if report.latched else 'NO'}; {report.total_ms:.1f} ms in all")
    if report.proved:
        lines.append("  everything is dead: proved")
    else:
        lines.append(
            "  NOT everything could be proved dead. As the user who started the run (or root), repeat the command;"
        )
        patterns = " ".join(f"-e {mark}" for mark in sorted(report.marks))
        lines.append(f"  then look with: grep -lsz {patterns} /proc/[0-9]*/environ")
    return "\n".join("".join(c if c.isprintable() else "\ufffd" for c in line) for line in lines)


def main(arguments: list[str] | None = None) -> int:
    """`python -m engine.client.kill RUN`: exit code 0 when death is proved, 1 when not, 2 for wrong usage."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if len(arguments) > 1 or (arguments and arguments[0].startswith("-")):
        print("usage: python -m engine.client.kill [RUN]    RUN is a name or a path; the latest run without one")
        return 2
    try:
        root = resolve(arguments[0] if arguments else None)
    except UnknownRun as error:
        print(f"kill: {error}", file=sys.stderr)
        return 2
    user = os.environ.get("USER", "") or str(os.getuid())
    report = kill_run(root, actor=user, reason="emergency stop from the shell")
    print(format_report(report))
    return 0 if report.proved else 1


if __name__ == "__main__":
    sys.exit(main())
