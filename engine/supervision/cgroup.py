"""Control groups (version 2), where this user may make them: hard limits for a whole tree, and cgroup.kill."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import NamedTuple


class Cgroup(NamedTuple):
    """A folder below which sandboxes get their own cgroups; `limits` when memory and process limits work there."""

    path: Path
    limits: bool


def find() -> Cgroup | None:
    """The cgroup below which we may create others, found by creating one; None when there is none."""
    mount, own = _mount_point(), _own_path()
    if mount is None or own is None:
        return None
    base = mount / own.lstrip("/")
    trial = base / f"asi-try-{os.getpid()}"
    try:
        trial.mkdir()
    except OSError:
        return None
    with contextlib.suppress(OSError):
        trial.rmdir()
    return Cgroup(base, _enable_limits(base))


def create(parent: Cgroup, name: str, memory_mb: int, processes: int) -> Path | None:
    """A new cgroup with these limits; None when the kernel refused, and nothing is left behind."""
    path = parent.path / name
    try:
        path.mkdir()
        if parent.limits:
            (path / "memory.max").write_text(str(memory_mb * 2**20))
            (path / "pids.max").write_text(str(processes + 8))
            with contextlib.suppress(OSError):  # a machine without swap accounting
                (path / "memory.swap.max").write_text("0")
    except OSError:
        remove(path)
        return None
    return path


def add(path: Path, pid: int) -> None:
    """Move a process into a cgroup.

    Raises:
        OSError: when the kernel refuses.
    """
    (path / "cgroup.procs").write_text(str(pid))


def remove(path: Path) -> None:
    """Remove a cgroup that is empty; one that is not stays."""
    with contextlib.suppress(OSError):
        path.rmdir()


def _mount_point() -> Path | None:
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        if after.startswith("cgroup2 "):
            return Path(before.split()[4])
    return None


def _own_path() -> str | None:
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        if line.startswith("0::"):
            return line[3:]
    return None


def _enable_limits(base: Path) -> bool:
    """Hand the memory and pids controllers to children of `base`.

    A cgroup with processes in it cannot do that, so where we are its only process we step aside into a leaf.
    """
    try:
        available = set((base / "cgroup.controllers").read_text().split())
        if not {"memory", "pids"} <= available:
            return False
        control = base / "cgroup.subtree_control"
        if {"memory", "pids"} <= set(control.read_text().split()):
            return True
        if (base / "cgroup.procs").read_text().split() == [str(os.getpid())]:
            leaf = base / "asi-engine"
            leaf.mkdir(exist_ok=True)
            add(leaf, os.getpid())
        control.write_text("+memory +pids")
    except OSError:
        return False
    return True
