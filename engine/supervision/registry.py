"""Writing `procs/<id>.json`, the registry that the emergency stop reads; `engine.client.records` owns the format."""

from __future__ import annotations

import json
import re
from pathlib import Path

from engine.client import processes
from engine.client.records import Record
from engine.client.rundir import RunPaths, atomic_write, run_mark_entry

VALID_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,79}")


def describe(
    root: Path, identifier: str, kind: str, outer: int, init: int, pid_namespace: int, cgroup: Path | None, level: int
) -> Record:
    """The record of a sandbox that has just been started and still waits for permission to run its program."""
    return Record(
        id=identifier,
        kind=kind,
        outer_pid=outer,
        outer_start=processes.start_time(outer),
        init_pid=init,
        init_start=processes.start_time(init),
        pid_namespace=pid_namespace,
        cgroup=str(cgroup) if cgroup else None,
        boot_id=processes.boot_id(),
        level=level,
        mark=run_mark_entry(root),
        home=processes.pid_namespace("self"),
    )


def register(root: Path, record: Record) -> None:
    """Make a record durable: file and folder are on the disk when this returns.

    Raises:
        OSError: it could not be written; the sandbox must not run.
        ValueError: the id is no file name.
    """
    if not VALID_ID.fullmatch(record.id):
        raise ValueError(f"{record.id!r} is no valid sandbox id")
    atomic_write(RunPaths(root).procs / f"{record.id}.json", json.dumps(record._asdict()).encode() + b"\n")


def forget(root: Path, identifier: str) -> None:
    """Remove the record of a sandbox whose death is proved. Not fsynced: a record too many only costs a look."""
    (RunPaths(root).procs / f"{identifier}.json").unlink(missing_ok=True)
