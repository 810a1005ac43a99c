"""Where runs live and what their files are called. Standard library only: the emergency stop depends on it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
import tempfile
from pathlib import Path
from typing import NamedTuple

from engine.client import processes

RUN_MARK = "ASI_RUN_MARK"
SOCKET_PATH_LIMIT = 100  # sun_path holds 108 bytes with its terminator; a margin for suffixes


class UnknownRun(LookupError):
    """No run answers to the name; the message is one line, with near matches."""


class EngineLock(NamedTuple):
    """The engine that holds a run: enough to tell it from a later process with the same pid."""

    pid: int
    start_time: int
    boot_id: str
    home: int = 0  # inode of the pid namespace in which the pid is counted


class RunPaths:
    """The files of one run directory."""

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)
        self.config = self.root / "run.toml"
        self.journal = self.root / "journal"
        self.database = self.root / "asi.duckdb"
        self.vectors = self.root / "vectors.usearch"
        self.blobs = self.root / "blobs"
        self.trials = self.root / "trials"
        self.procs = self.root / "procs"
        self.lock = self.root / "engine.lock"
        self.token = self.root / "engine.token"
        self.log = self.root / "engine.log"
        self.latch = self.root / "KILLED"
        self.kills = self.root / "kills.jsonl"
        self.kill_signature = self.root / "kill.sig.json"

    @property
    def socket(self) -> Path:
        """The engine's socket: in the run directory, or where a long path would not fit, in a private short one."""
        return socket_path(self.root)

    def create(self) -> None:
        """Make the directory (0700) and its folders; existing ones are kept.

        Raises:
            OSError: when the place cannot be written.
        """
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.root.chmod(0o700)
        for folder in (self.journal, self.blobs, self.trials, self.procs):
            folder.mkdir(mode=0o700, exist_ok=True)


def runs_home() -> Path:
    """The folder of all runs: `$XDG_DATA_HOME/asi/runs`, by default `~/.local/share/asi/runs`."""
    data_home = os.environ.get("XDG_DATA_HOME", "")
    base = Path(data_home) if os.path.isabs(data_home) else Path.home() / ".local" / "share"
    return base / "asi" / "runs"


def is_run(path: Path) -> bool:
    """Whether a folder looks like a run directory."""
    return (path / "run.toml").is_file() or (path / "journal").is_dir() or (path / "procs").is_dir()


def last_touched(root: Path) -> float:
    """When the run last changed, in seconds since the epoch: the newest of its journal and `run.toml`."""
    newest = 0.0
    journal = root / "journal"
    candidates = [root / "run.toml", journal]
    with contextlib.suppress(OSError):  # a run without a journal yet still has its run.toml
        candidates += sorted(journal.iterdir())[-1:]
    for path in candidates:
        try:
            newest = max(newest, path.stat().st_mtime)
        except OSError:
            continue
    return newest


def list_runs(home: Path | None = None) -> list[Path]:
    """All run directories of this user, the latest first."""
    home = home or runs_home()
    try:
        found = [path for path in home.iterdir() if path.is_dir() and is_run(path)]
    except OSError:
        return []
    return sorted(found, key=last_touched, reverse=True)


def resolve(run: str | None) -> Path:
    """The directory of a run given by name or path; the latest run for None.

    Raises:
        UnknownRun: with one line that says what there is instead.
    """
    home = runs_home()
    if run is None:
        runs = list_runs(home)
        if not runs:
            raise UnknownRun(f"there is no run yet under {home}; `asi run` starts one")
        return runs[0]
    path = Path(run).expanduser()
    looks_like_path = os.sep in run or run in (".", "..")
    named = home / run
    if run and not looks_like_path and is_run(named):
        return named
    if run and is_run(path):
        return path.resolve()
    if looks_like_path:
        raise UnknownRun(f"{run} is not a run directory (it has no run.toml, journal/ or procs/)")
    import difflib  # only for the error message: the kill path must start fast

    names = [existing.name for existing in list_runs(home)]
    near = difflib.get_close_matches(run, names, n=3, cutoff=0.5) or names[:3]
    hint = "did you mean " + ", ".join(near) + "?" if near else "there are no runs yet"
    raise UnknownRun(f"no run named {run!r} under {home}; {hint}")


def run_mark(root: Path) -> str:
    """The token that every process of a run carries as `ASI_RUN_MARK`, derived from the directory alone."""
    real = os.path.realpath(root)
    return hashlib.sha256(os.fsencode(real)).hexdigest()[:20]


def run_mark_entry(root: Path) -> str:
    """The mark as it stands in an environment: `ASI_RUN_MARK=<mark>`."""
    return f"{RUN_MARK}={run_mark(root)}"


def socket_path(root: Path) -> Path:
    """A path for the engine's socket that fits into `sun_path`.

    Raises:
        PermissionError: when the short fallback folder belongs to somebody else.
    """
    direct = Path(os.path.realpath(root)) / "engine.sock"
    if len(os.fsencode(direct)) <= SOCKET_PATH_LIMIT:
        return direct
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    folder = Path(runtime) / "asi" if os.path.isabs(runtime) and len(runtime) < 60 else None
    folder = folder or Path("/tmp") / f"asi-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
    except FileNotFoundError:
        folder = Path("/tmp") / f"asi-{os.getuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise PermissionError(f"{folder} must be a folder of yours with mode 0700")
    return folder / f"{run_mark(root)}.sock"


def read_lock(root: Path) -> EngineLock | None:
    """What `engine.lock` says, alive or not; None when there is nothing readable in it."""
    try:
        with open(RunPaths(root).lock, "rb") as file:
            content = json.loads(file.read(4096))
        home = int(content.get("home", 0))
        return EngineLock(int(content["pid"]), int(content["start_time"]), str(content["boot_id"]), home)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def engine_pid(root: Path) -> int | None:
    """The pid of the engine that holds this run, or None when it is not alive (a reused pid counts as not alive)."""
    lock = read_lock(root)
    if lock is None or lock.boot_id != processes.boot_id():
        return None
    return lock.pid if processes.is_alive(lock.pid, lock.start_time) else None


def lock_content() -> bytes:
    """What the calling process writes into `engine.lock`."""
    pid = os.getpid()
    lock = EngineLock(pid, processes.start_time(pid), processes.boot_id(), processes.pid_namespace("self"))
    return json.dumps(lock._asdict()).encode() + b"\n"


def fsync_directory(path: Path) -> None:
    """Make a rename, creation or removal in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def atomic_write(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Replace a file by write, fsync, rename and fsync of the directory: readers see the old or the new, whole.

    Raises:
        OSError: the disk is full or the place cannot be written; the old file is untouched.
    """
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):  # the first error is the one to report
            os.unlink(name)
        raise
    fsync_directory(path.parent)
