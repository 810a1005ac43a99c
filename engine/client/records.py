"""The registry of sandboxes and the latch, as files: what the emergency stop reads. Standard library only.

Nothing here trusts a file: one that is a link, a pipe, a folder, too large or not exactly a record is named as a
problem and never waited for.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import stat
import time
from collections.abc import Callable, Container
from pathlib import Path
from typing import NamedTuple

from engine.client import processes
from engine.client.rundir import RUN_MARK, EngineLock, RunPaths, fsync_directory, run_mark_entry

SANDBOX_MARK = "ASI_SANDBOX"
MAX_RECORD_BYTES = 16_384
MAX_KILLS_BYTES = 1 << 20
VALID_MARK = re.compile(RUN_MARK + r"=[0-9a-f]{8,64}")


class Record(NamedTuple):
    """`procs/<id>.json`: a sandbox that may be alive.

    `pid_namespace` is its inode, 0 for a sandbox without one, where `outer` and `init` are both the shim. `home` is the
    engine's own, in which the pids are counted; 0 where it is not known.
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
    home: int = 0


class Latch(NamedTuple):
    """Who pulled the emergency stop, when (seconds since the epoch) and why."""

    actor: str
    reason: str
    time: float


class Kill(NamedTuple):
    """What one kill came to: who and why, when (seconds since the epoch), processes, and whether death was proved."""

    actor: str
    reason: str
    time: float
    processes: int
    death_ms: float
    proved: bool


class Registry(NamedTuple):
    """What `procs/` and `engine.lock` say.

    `unread` holds the ids of records that exist but could not be read, `problems` one line for each of them and for
    each that names what is not this directory's, or cannot be seen from here.
    """

    records: list[Record]
    problems: list[str]
    unread: list[str]


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
    if not all(type(number) is int and 0 <= number < 2**63 for number in (*numbers, record.level, record.home)):
        raise ValueError("a number is missing or out of range")
    if not all(isinstance(text, str) for text in texts):
        raise ValueError("a text is missing")
    if any(b"\0" in os.fsencode(text) for text in texts):  # encoding fails with a ValueError
        raise ValueError("a text holds a zero byte")
    # Whatever carries the mark is killed, so a damaged one must not name anything else.
    if not VALID_MARK.fullmatch(record.mark):
        raise ValueError("its mark is none")
    if record.cgroup and not (os.path.isabs(record.cgroup) and os.path.basename(record.cgroup).startswith("asi-")):
        raise ValueError("its cgroup is none of ours")
    return record


def read_regular(path: Path, limit: int = MAX_RECORD_BYTES) -> tuple[bytes, float]:
    """The content of a regular file and when it was written (seconds since the epoch); never waits for a pipe.

    Raises:
        OSError: it cannot be read, or is a link, pipe, device or folder.
        ValueError: it is longer than `limit` bytes.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "it is no regular file")
        content = os.read(descriptor, limit + 1)
    finally:
        os.close(descriptor)
    if len(content) > limit:
        raise ValueError(f"it is longer than {limit} bytes")
    return content, status.st_mtime


def elsewhere(boot_id: str, written: float, home: int) -> str:
    """Where else processes are that cannot be seen from here, in words; empty when they can.

    Another machine has written what is not of this boot and yet after its beginning. Another container is a `home` that
    is neither our pid namespace nor, for all that we know, below it: only the machine's first one sees them all.
    """
    if boot_id != processes.boot_id():
        booted = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
        return "on another machine" if written > booted + 60.0 else ""
    own = processes.pid_namespace("self")
    return "in another container" if home not in (0, own) and own != processes.FIRST_PID_NAMESPACE else ""


def held(root: Path) -> bool:
    """Whether somebody holds `engine.lock`: a living engine does, also after a rename, but not a copy's lock."""
    try:
        descriptor = os.open(RunPaths(root).lock, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: two who look do not see each other
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False


def moved(root: Path) -> bool:
    """Whether this directory got its path while its engine runs, so that what carries another mark is its own.

    To be asked before that engine is killed: a copy of a run looks the same but for the lock that the living hold.
    """
    lock = _read_lock(root)[0]
    own = os.fsencode(run_mark_entry(root))
    if lock is not None and (lock.pid == os.getpid() or own in processes.environment(lock.pid)):
        return False  # it was started right here
    return held(root)


def _over(record: Record) -> bool:
    """Whether nothing of a sandbox can be alive, as far as its record alone can tell."""
    if record.boot_id != processes.boot_id():
        return True
    if not record.pid_namespace or record.home != processes.pid_namespace("self"):
        return False
    named = ((record.init_pid, record.init_start), (record.outer_pid, record.outer_start))
    return not any(processes.is_alive(pid, started) for pid, started in named)


def read_registry(
    root: Path,
    seen: Callable[[Record], None] | None = None,
    skip: Container[str] = (),
    own_all: bool | None = None,
) -> Registry:
    """All registered sandboxes of this directory.

    A living sandbox of another directory, of which this one is a copy, is a problem and no record; of a dead one,
    nothing is left in the record that could hit the other directory's.

    Args:
        root: the run directory.
        seen: called with each record as soon as it is read.
        skip: ids that are left out.
        own_all: what `moved` said, where the engine may be dead by now; else it is asked when it matters.
    """
    found = Registry([], [], [])
    folder = RunPaths(root).procs
    try:
        names = sorted(name for name in os.listdir(folder) if name.endswith(".json") and not name.startswith("."))
    except FileNotFoundError:
        return found
    except OSError as error:
        found.problems.append(f"{folder} cannot be read ({error.strerror}); repeat this as the run's owner or as root")
        return found
    mark = run_mark_entry(root)
    for name in names:
        identifier = name.removesuffix(".json")
        if identifier in skip:
            continue
        try:
            content, written = read_regular(folder / name)
            record = parse_record(content)
            if record.id != identifier:
                raise ValueError("it is named like another one")
            if where := elsewhere(record.boot_id, written, record.home):
                found.problems.append(f"{record.kind} {record.id} was started {where}; repeat this there")
                continue
            if record.mark != mark:
                own_all = moved(root) if own_all is None else own_all
                if not own_all and not _over(record):
                    found.problems.append(
                        f"{record.kind} {record.id} belongs to another directory; kill that run, or remove the record "
                        f"procs/{name} once it has ended"
                    )
                    continue
                record = record if own_all else record._replace(mark=mark, cgroup=None)
            if seen:
                seen(record)
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            reason = (error.strerror if isinstance(error, OSError) else "") or error
            found.problems.append(f"procs/{name} cannot be read ({reason}); once nothing of the run is left, remove it")
            found.unread.append(identifier)
            continue
        found.records.append(record)
    return found


def read_records(root: Path) -> tuple[list[Record], list[str]]:
    """All registered sandboxes of this directory, and one line for each record that is no such one."""
    registry = read_registry(root)
    return registry.records, registry.problems


def read_engine(root: Path) -> tuple[EngineLock | None, str]:
    """The engine that `engine.lock` names, alive or not, and a line when there is one that is not to be killed here."""
    lock, problem = _read_lock(root)
    if lock is None or lock.boot_id != processes.boot_id() or not processes.is_alive(lock.pid, lock.start_time):
        return lock, problem
    marks = {entry for entry in processes.environment(lock.pid) if entry.startswith(f"{RUN_MARK}=".encode())}
    if not marks or os.fsencode(run_mark_entry(root)) in marks or held(root):
        return lock, problem
    remedy = "kill that run, or remove engine.lock once it has ended"
    return None, f"the engine (pid {lock.pid}) belongs to another directory; {remedy}"


def _read_lock(root: Path) -> tuple[EngineLock | None, str]:
    """The engine that `engine.lock` names, and a line when there is one that cannot be known."""
    try:
        content, written = read_regular(RunPaths(root).lock, 4096)
        if not content.strip():  # it left in order
            return None, ""
        fields = json.loads(content)
        home = int(fields.get("home", 0))
        lock = EngineLock(int(fields["pid"]), int(fields["start_time"]), str(fields["boot_id"]), home)
    except FileNotFoundError:
        return None, ""
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        reason = (error.strerror if isinstance(error, OSError) else "") or error
        return None, f"engine.lock cannot be read ({reason}); the engine was looked for by its mark alone"
    if where := elsewhere(lock.boot_id, written, lock.home):
        return None, f"the engine (pid {lock.pid}) was started {where}; repeat this there"
    return lock, ""


def read_latch(root: Path) -> Latch | None:
    """The latch, or None when nothing may be stopped by it. A latch that exists but cannot be read still latches.

    One that does not say when it was written has its file's time.
    """
    path = RunPaths(root).latch
    try:
        written = os.lstat(path).st_mtime
    except OSError:
        written = 0.0
    try:
        content = json.loads(read_regular(path)[0] or b"{}")
        moment = content.get("time")
        return Latch(
            _encodable(str(content.get("actor", "?"))),
            _encodable(str(content.get("reason", ""))),
            float(moment) if _is_moment(moment) else written,
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, AttributeError, TypeError, RecursionError):
        return Latch("?", "the latch cannot be read", written)


def _is_moment(value: object) -> bool:
    """Whether this is a time in seconds since the epoch that every formatter can print."""
    return type(value) in (int, float) and 0.0 <= value < 1e11  # type: ignore[operator]


def _encodable(text: str) -> str:
    """The text without halves of characters, which no journal or terminal takes."""
    return text.encode("utf-8", "replace").decode()


def write_latch(root: Path, actor: str, reason: str) -> str:
    """Latch the run; the first latch is kept. Returns what went wrong, empty when it is durable."""
    path = RunPaths(root).latch
    content = json.dumps({"actor": actor, "reason": reason, "time": time.time()}).encode() + b"\n"
    return write_first(path, content, "the latch ")


def write_first(path: Path, content: bytes, what: str = "") -> str:
    """Write a file that is not there yet, durably; one that is there is kept. Returns what went wrong."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        return ""
    except OSError as error:
        return f"{what}{path} could not be written: {error.strerror}"
    try:
        os.write(descriptor, content)
        os.fsync(descriptor)
        fsync_directory(path.parent)
    except OSError as error:
        return f"{what}{path} exists but could not be filled: {error.strerror}"
    finally:
        os.close(descriptor)
    return ""


def clear_latch(root: Path) -> None:
    """Remove the latch (only `rearm` does this), and the signature that was left beside it."""
    path = RunPaths(root).latch
    path.unlink(missing_ok=True)
    RunPaths(root).kill_signature.unlink(missing_ok=True)
    fsync_directory(path.parent)


def write_kill(root: Path, entry: Kill) -> str:
    """Add a kill to `kills.jsonl`, which the next engine puts on record. Returns what went wrong, empty if nothing."""
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(RunPaths(root).kills, flags, 0o600)
        try:
            os.write(descriptor, json.dumps(entry._asdict()).encode() + b"\n")
        finally:
            os.close(descriptor)
    except OSError as error:
        return f"this report could not be kept in {RunPaths(root).kills}: {error.strerror}"
    return ""


def read_kills(root: Path) -> list[Kill]:
    """Every kill of this run that was kept, oldest first; lines that are none are left out."""
    found = []
    try:
        lines = read_regular(RunPaths(root).kills, MAX_KILLS_BYTES)[0].splitlines()
    except (OSError, ValueError):
        return []
    for line in lines:
        try:
            kill = Kill(**json.loads(line))
            if _is_kill(kill):
                found.append(kill._replace(actor=_encodable(kill.actor), reason=_encodable(kill.reason)))
        except (ValueError, TypeError, RecursionError):
            continue
    return found


def _is_kill(kill: Kill) -> bool:
    """Whether each field has the type that it is said to have: the file may hold anything."""
    texts = isinstance(kill.actor, str) and isinstance(kill.reason, str)
    count = type(kill.processes) is int and 0 <= kill.processes < 2**31
    return texts and count and _is_moment(kill.time) and _is_moment(kill.death_ms) and type(kill.proved) is bool


def sandbox_mark(record: Record) -> str:
    """The environment entry that the processes of one sandbox carry."""
    return f"{SANDBOX_MARK}={record.id}"
