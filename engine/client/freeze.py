"""Stopping every process of a run in place, and letting it go on. Standard library only.

A stop by signals races with forks, so the walk is repeated until two passes see the same processes, all stopped.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from engine.client import processes
from engine.client.records import Record, read_records, sandbox_mark


class FreezeReport(NamedTuple):
    """Processes stopped (or continued), milliseconds it took, whether all were seen in that state, and what failed."""

    pids: list[int]
    milliseconds: float
    complete: bool
    errors: list[str]


def members(records: list[Record]) -> dict[int, int]:
    """Every living process of these sandboxes, pid to start time; the shims of namespace-less ones stay out."""
    current = [record for record in records if record.boot_id == processes.boot_id()]
    inodes = {record.pid_namespace for record in current}
    found = {pid: started for pid, (_, started) in processes.namespace_members(inodes).items()}
    bare = [record for record in current if not record.pid_namespace]
    if bare:
        found |= processes.marked({sandbox_mark(record) for record in bare})
        for record in bare:
            if processes.is_alive(record.init_pid, record.init_start):
                found |= {pid: processes.start_time(pid) for pid in processes.descendants(record.init_pid)}
        shims = {record.init_pid for record in bare}
        found = {pid: started for pid, started in found.items() if pid not in shims}
    return found


def freeze_records(records: list[Record], deadline: float = 2.0) -> FreezeReport:
    """Stop these sandboxes in place; memory is kept. Takes at most about `deadline` seconds."""
    return _walk(records, signal.SIGSTOP, lambda state: state in "Tt", "1", deadline)


def thaw_records(records: list[Record], deadline: float = 2.0) -> FreezeReport:
    """Let stopped sandboxes go on."""
    return _walk(records, signal.SIGCONT, lambda state: state not in "Tt", "0", deadline)


def freeze_run(root: Path, deadline: float = 2.0) -> FreezeReport:
    """Stop every registered sandbox of a run in place; the engine itself goes on."""
    records, problems = read_records(root)
    report = freeze_records(records, deadline)
    return report._replace(errors=report.errors + problems, complete=report.complete and not problems)


def thaw_run(root: Path, deadline: float = 2.0) -> FreezeReport:
    """Let every registered sandbox of a run go on."""
    records, problems = read_records(root)
    report = thaw_records(records, deadline)
    return report._replace(errors=report.errors + problems, complete=report.complete and not problems)


def _walk(
    records: list[Record], number: int, reached: Callable[[str], bool], frozen: str, deadline: float
) -> FreezeReport:
    """Signal everything until two passes see the same processes, all in the wanted state."""
    begin = time.monotonic()
    # A frozen cgroup holds what forks faster than any walk; its processes take no stop signal, and need none.
    grouped = {
        record.pid_namespace
        for record in records
        if record.cgroup and record.boot_id == processes.boot_id() and _write_freezer(record.cgroup, frozen)
    }
    walked = [record for record in records if number == signal.SIGCONT or record.pid_namespace not in grouped]
    previous: set[int] | None = None
    while True:
        errors = []
        current = members(walked)
        missing = sum(not _freezer_reached(record.cgroup, frozen) for record in records if record.cgroup)
        for pid, started in current.items():
            state = processes.state(pid)
            if state in processes.DEAD or reached(state):
                continue
            missing += 1
            error = processes.signal_exactly(pid, started, number)
            if error:
                errors.append(f"pid {pid}: {error}")
        complete = not missing and previous == set(current)
        if complete or time.monotonic() - begin > deadline:
            pids = sorted(members(records))
            return FreezeReport(pids, (time.monotonic() - begin) * 1000, complete, [] if complete else errors)
        previous = set(current)
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
