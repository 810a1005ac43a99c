"""Stopping every process of a run in place, and letting it go on. Standard library only.

A stop by signals races with forks. A cgroup's freezer holds everything at once. Where there is none, each namespace is
walked from its init until nothing in it moves any more; without a namespace, all processes are walked until two passes
see the same ones, all stopped.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import NamedTuple

from engine.client import processes
from engine.client.aside import Aside
from engine.client.processes import STOPPED
from engine.client.records import SANDBOX_MARK, Record, Registry, read_registry, sandbox_mark
from engine.client.rundir import run_mark_entry

CHASE_SECONDS = 0.02


class FreezeReport(NamedTuple):
    """Processes stopped (or continued), milliseconds it took, whether all were seen in that state, and what failed."""

    pids: list[int]
    milliseconds: float
    complete: bool
    errors: list[str]


class Quarry:
    """What is to be stopped: sandboxes by their records, and those whose record cannot be read by their marks."""

    def __init__(self, records: list[Record], marks: set[str] | None = None, within: set[str] | None = None) -> None:
        boot = processes.boot_id()
        current = [record for record in records if record.boot_id == boot]
        self.contained = [record for record in current if record.pid_namespace]
        self.bare = [record for record in current if not record.pid_namespace]
        self.marks = {sandbox_mark(record) for record in self.bare} | (marks or set())
        self.within = {record.mark for record in self.bare} | (within or set())

    def members(self) -> dict[int, int]:
        """Every living process of them, pid to start time; the shims of namespace-less ones stay out."""
        namespaces = [(record.pid_namespace, record.init_start) for record in self.contained]
        found = {pid: started for pid, (_, started) in processes.namespace_members(namespaces).items()}
        if self.marks:
            found |= processes.marked(self.marks, self.within)
        for record in self.bare:
            if processes.is_alive(record.init_pid, record.init_start):
                found |= {pid: processes.start_time(pid) for pid in processes.descendants(record.init_pid)}
        shims = {record.init_pid for record in self.bare}
        return {pid: started for pid, started in found.items() if pid not in shims}


def freeze_records(records: list[Record], deadline: float = 2.0) -> FreezeReport:
    """Stop these sandboxes in place; memory is kept. Takes at most about `deadline` seconds."""
    return _freeze(Quarry(records), deadline)


def thaw_records(records: list[Record], deadline: float = 2.0) -> FreezeReport:
    """Let stopped sandboxes go on."""
    return _thaw(Quarry(records), deadline)


def freeze_run(root: Path, deadline: float = 2.0) -> FreezeReport:
    """Stop every registered sandbox of a run in place; the engine itself goes on.

    A record that cannot be read makes the report incomplete, and keeps nothing else from being stopped.
    """
    begin = time.monotonic()
    quarry, problems = _quarry(root, deadline / 2)
    report = _freeze(quarry, begin + deadline - time.monotonic())
    return report._replace(errors=report.errors + problems, complete=report.complete and not problems)


def thaw_run(root: Path, deadline: float = 2.0) -> FreezeReport:
    """Let every registered sandbox of a run go on."""
    begin = time.monotonic()
    quarry, problems = _quarry(root, deadline / 2)
    report = _thaw(quarry, begin + deadline - time.monotonic())
    return report._replace(errors=report.errors + problems, complete=report.complete and not problems)


def _quarry(root: Path, seconds: float) -> tuple[Quarry, list[str]]:
    """What the run directory names, read for at most so many seconds, and what could not be read."""
    seen: list[Record] = []

    def read() -> tuple[Registry, str]:
        return read_registry(root, seen.append), run_mark_entry(root)

    result, problem = Aside(read).wait(seconds)
    if result is None:
        return Quarry(list(seen)), [f"not everything in {root} could be read ({problem})"]
    registry, mark = result
    return Quarry(registry.records, {f"{SANDBOX_MARK}={name}" for name in registry.unread}, {mark}), registry.problems


def _freeze(quarry: Quarry, deadline: float) -> FreezeReport:
    """Stop until nothing moves below any namespace's init, and a scan of all processes sees every one stopped."""
    begin = time.monotonic()
    # A frozen cgroup's processes take no stop signal, and need none.
    grouped = [record for record in quarry.contained if record.cgroup and _write_freezer(record.cgroup, "1")]
    everything, moving = quarry.contained, [record for record in quarry.contained if record not in grouped]
    quarry.contained = moving
    previous: set[int] | None = None
    while True:
        # From the inside first: each hopper that stands still leaves the rest fewer turns.
        moving = [record for record in moving if not _still(record.init_pid, record.init_start)]
        current, errors = quarry.members(), []
        missing = sum(not _freezer_reached(record.cgroup, "1") for record in grouped)
        for pid, started in current.items():
            state = processes.state(pid)
            if state in processes.DEAD or state in STOPPED:
                continue
            missing += 1
            error = processes.signal_exactly(pid, started, signal.SIGSTOP)
            errors.append(f"pid {pid}: {error or 'does not stop (state ' + state + ')'}")
        # What has no namespace to be looked at from its init must be seen twice.
        settled = previous == set(current) or not quarry.marks
        complete = not missing and not moving and settled
        if complete or time.monotonic() - begin > deadline:
            took = (time.monotonic() - begin) * 1000
            errors += [f"{record.kind} {record.id}: something in it keeps moving" for record in moving]
            quarry.contained = everything
            pids = sorted(quarry.members() if grouped else current)
            return FreezeReport(pids, took, complete, [] if complete else errors)
        previous = set(current)
        time.sleep(0.001)


def _still(init: int, started: int) -> bool:
    """Stop whatever moves below an init, which adopts every orphan; true once a look has seen nothing move.

    A scan of all of `/proc` misses what hops from pid to pid faster than it is read. In here a hop shows: as a running
    process, as one that is gone between its parent's list and its own entry, or as a zombie more than before.
    """
    until = time.monotonic() + CHASE_SECONDS
    before: set[int] | None = None
    while processes.is_alive(init, started):
        zombies = _look(init)
        if zombies is not None and (not zombies or zombies == before):
            return True
        if time.monotonic() > until:
            return False
        before = zombies
    return True


def _look(init: int) -> set[int] | None:
    """The zombies below an init, or None when something there was not stopped yet; that gets the signal."""
    still = True
    seen: set[int] = set()
    zombies: set[int] = set()
    queue = [init]
    while queue:
        pid = queue.pop()
        fields = processes.stat_fields(pid)
        if fields and processes.is_dead(fields):
            zombies.add(pid)  # its children went to the init, perhaps after we had read the init's list
            continue
        if not fields or len(fields) < 20:
            still = False
            continue
        if (processes.state(pid) if fields[0] == "Z" else fields[0]) not in STOPPED:
            still = False
            processes.signal_exactly(pid, int(fields[19]), signal.SIGSTOP)
        children = processes.children(pid, single=fields[17] == "1")
        still = still and children is not None
        queue += set(children or ()) - seen
        seen |= set(children or ())
    return zombies if still else None


def _thaw(quarry: Quarry, deadline: float) -> FreezeReport:
    """Continue each stopped process once: what stops itself afterwards does so of its own accord."""
    begin = time.monotonic()
    for record in quarry.contained:
        if record.cgroup:
            _write_freezer(record.cgroup, "0")
    continued: dict[int, int] = {}
    while True:
        current = quarry.members()
        waiting = sum(not _freezer_reached(record.cgroup, "0") for record in quarry.contained)
        errors = []
        for pid, started in current.items():
            if processes.state(pid) not in STOPPED or continued.get(pid) == started:
                continue
            waiting += 1
            error = processes.signal_exactly(pid, started, signal.SIGCONT)
            if error:
                errors.append(f"pid {pid}: {error}")
            else:
                continued[pid] = started
        if not waiting or time.monotonic() - begin > deadline:
            return FreezeReport(sorted(current), (time.monotonic() - begin) * 1000, not waiting, errors)
        time.sleep(0.001)


def _write_freezer(cgroup: str, value: str) -> bool:
    """Ask a cgroup to freeze or thaw; false when it is gone or has no freezer."""
    try:
        with open(os.path.join(cgroup, "cgroup.freeze"), "w") as file:
            file.write(value)
    except OSError:
        return False
    return True


def _freezer_reached(cgroup: str | None, value: str) -> bool:
    """Whether a cgroup is frozen (`"1"`) or thawed (`"0"`); one without a freezer is left to the walk."""
    try:
        with open(os.path.join(cgroup or "", "cgroup.events")) as file:
            lines = file.read().splitlines()
    except OSError:
        return True
    return not any(line.startswith("frozen ") and line != f"frozen {value}" for line in lines)
