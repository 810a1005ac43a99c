"""The registry of sandboxes and the latch, as files: what the emergency stop reads. Standard library only."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import NamedTuple

from engine.client.rundir import RunPaths, fsync_directory

SANDBOX_MARK = "ASI_SANDBOX"
MAX_RECORD_BYTES = 16_384


class Record(NamedTuple):
    """`procs/<id>.json`: a sandbox that may be alive.

    `pid_namespace` is its inode, 0 for a sandbox without one, where `outer` and `init` are both the shim.
    """

    id: str
    kind: str
    outer_pid: int
    outer_start: int
    init_pid: int
    init_start: int
    pid_namespace: int
    cgroup: str | None
    boot_id: str
    level: int
    mark: str


class Latch(NamedTuple):
    """Who pulled the emergency stop, when (seconds since the epoch) and why."""

    actor: str
    reason: str
    time: float


def parse_record(content: bytes) -> Record:
    """Read a record strictly.

    Raises:
        ValueError: when it is not exactly a record.
    """
    try:
        fields = json.loads(content)
        record = Record(**fields)
    except (TypeError, RecursionError) as error:
        raise ValueError(str(error)) from None
    numbers = (record.outer_pid, record.outer_start, record.init_pid, record.init_start, record.pid_namespace)
    texts = (record.id, record.kind, record.boot_id, record.mark, record.cgroup or "")
    if not all(type(number) is int and number >= 0 for number in (*numbers, record.level)):
        raise ValueError("a number is missing or negative")
    if not all(isinstance(text, str) for text in texts):
        raise ValueError("a text is missing")
    return record


def read_records(root: Path) -> tuple[list[Record], list[str]]:
    """All registered sandboxes, and one line for each record that could not be read."""
    records, problems = [], []
    folder = RunPaths(root).procs
    try:
        names = sorted(name for name in os.listdir(folder) if name.endswith(".json") and not name.startswith("."))
    except FileNotFoundError:
        return [], []
    except OSError as error:
        return [], [f"{folder} cannot be read: {error.strerror}"]
    for name in names:
        try:
            with open(folder / name, "rb") as file:
                records.append(parse_record(file.read(MAX_RECORD_BYTES)))
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            problems.append(f"procs/{name} cannot be read ({error})")
    return records, problems


def read_latch(root: Path) -> Latch | None:
    """The latch, or None when nothing may be stopped by it. A latch that exists but cannot be read still latches."""
    path = RunPaths(root).latch
    try:
        with open(path, "rb") as file:
            content = json.loads(file.read(MAX_RECORD_BYTES) or b"{}")
        return Latch(str(content.get("actor", "?")), str(content.get("reason", "")), float(content.get("time", 0)))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, AttributeError, TypeError):
        return Latch("?", "the latch cannot be read", 0.0)


def write_latch(root: Path, actor: str, reason: str) -> str:
    """Latch the run; the first latch is kept. Returns what went wrong, empty when it is durable."""
    path = RunPaths(root).latch
    content = json.dumps({"actor": actor, "reason": reason, "time": time.time()}).encode() + b"\n"
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        return ""
    except OSError as error:
        return f"the latch {path} could not be written: {error.strerror}"
    try:
        os.write(descriptor, content)
        os.fsync(descriptor)
        fsync_directory(path.parent)
    except OSError as error:
        return f"the latch {path} exists but could not be filled: {error.strerror}"
    finally:
        os.close(descriptor)
    return ""


def clear_latch(root: Path) -> None:
    """Remove the latch (only `rearm` does this)."""
    path = RunPaths(root).latch
    path.unlink(missing_ok=True)
    fsync_directory(path.parent)


def sandbox_mark(record: Record) -> str:
    """The environment entry that the processes of one sandbox carry."""
    return f"{SANDBOX_MARK}={record.id}"
