"""Control groups, where this user may make them: limits for a whole tree of processes, cgroup.kill and freezing.

Version 2 offers all of it in one folder. Version 1 has limits only, each in a hierarchy of its own, often beside an
empty version 2 that kills and freezes. Either way a sandbox gets one `Group`.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import NamedTuple

CONTROLLERS = ("memory", "pids")
PREFIX = "asi-"
NEARLY = 2**20  # bytes: the kernel charges in batches, and what does not fit is not charged
ABANDONED = 3600.0  # seconds after which an empty group is nobody's: one is filled as soon as it is made


class Cgroup(NamedTuple):
    """Folders below which sandboxes get cgroups of their own.

    path: version 2, None without one. limited: folders with memory and process limits, by controller; complete (both)
    or empty. With version 2 controllers they are `path` itself.
    """

    path: Path | None
    limited: dict[str, Path]

    @property
    def limits(self) -> bool:
        """Whether memory and processes of a tree can be limited by the kernel."""
        return bool(self.limited)


class Group(NamedTuple):
    """The cgroup of one sandbox: its folders, the version 2 one (which the emergency stop uses) among them."""

    path: Path | None
    memory: Path | None
    folders: tuple[Path, ...]

    def add(self, pid: int) -> None:
        """Move a process in. Raises OSError when the kernel refuses."""
        for folder in self.folders:
            (folder / "cgroup.procs").write_text(str(pid))

    def out_of_memory(self) -> bool:
        """Whether the kernel has killed a process of the tree for its memory limit.

        A kill alone does not say so: when the whole machine runs out of memory, sandboxes are what it takes first.
        """
        if self.memory is None:
            return False
        counts: dict[str, int] = {}
        for name in ("memory.events", "memory.oom_control"):
            with contextlib.suppress(OSError, ValueError):
                lines = (self.memory / name).read_text().splitlines()
                counts |= {key: int(value) for key, value in map(str.split, lines)}
        for name in ("memory", "memory.memsw"):  # version 1 does not count how often a limit was hit
            with contextlib.suppress(OSError, ValueError):
                files = (self.memory / f"{name}.{what}_in_bytes" for what in ("max_usage", "limit"))
                most, limit = (int(file.read_text()) for file in files)
                counts["oom"] = counts.get("oom", 0) + (most >= limit - NEARLY)
        return counts.get("oom_kill", 0) > 0 and counts.get("oom", 0) > 0

    def remove(self) -> None:
        """Remove the folders once they are empty; those that are not stay."""
        for folder in self.folders:
            with contextlib.suppress(OSError):
                folder.rmdir()


def find() -> Cgroup | None:
    """Where we may make cgroups, found by making one; None when that is nowhere."""
    unified = _usable(_base("cgroup2", ""))
    if unified is not None and _enable_limits(unified):
        return Cgroup(unified, dict.fromkeys(CONTROLLERS, unified))
    found = {name: base for name in CONTROLLERS if (base := _usable(_base("cgroup", name))) is not None}
    limited = found if len(found) == len(CONTROLLERS) else {}
    return Cgroup(unified, limited) if unified is not None or limited else None


def create(parent: Cgroup, name: str, memory_mb: int, processes: int) -> Group | None:
    """A new group with these limits; None when the kernel refused, and nothing is left behind."""
    bases = dict.fromkeys([*([parent.path] if parent.path else []), *parent.limited.values()])
    memory = parent.limited["memory"] / name if parent.limited else None
    group = Group(parent.path and parent.path / name, memory, tuple(base / name for base in bases))
    try:
        for folder in group.folders:
            folder.mkdir(exist_ok=True)
        if memory is not None:
            _limit_memory(memory, memory_mb * 2**20)
            (parent.limited["pids"] / name / "pids.max").write_text(str(processes + 8))
    except OSError:
        group.remove()
        return None
    return group


def sweep(parent: Cgroup, prefix: str) -> None:
    """Remove the empty groups of engines that died: of this run by how their names begin, others by their age."""
    now = time.time()
    for base in {*parent.limited.values(), *([parent.path] if parent.path else [])}:
        for folder in base.glob(f"{PREFIX}*"):
            with contextlib.suppress(OSError):  # one in use stays
                if folder.name.startswith(prefix) or now - folder.stat().st_mtime > ABANDONED:
                    folder.rmdir()


def _limit_memory(folder: Path, size: int) -> None:
    if (folder / "memory.max").exists():
        (folder / "memory.max").write_text(str(size))
        with contextlib.suppress(OSError):  # kernels without these; the limit itself is what counts
            (folder / "memory.oom.group").write_text("1")
            (folder / "memory.swap.max").write_text("0")
        return
    (folder / "memory.limit_in_bytes").write_text(str(size))
    with contextlib.suppress(OSError):  # a kernel without swap accounting
        (folder / "memory.memsw.limit_in_bytes").write_text(str(size))


def _usable(base: Path | None) -> Path | None:
    """The folder, when we can make another one in it."""
    if base is None:
        return None
    trial = base / f"{PREFIX}try-{os.getpid()}"
    try:
        trial.mkdir()
    except OSError:
        return None
    with contextlib.suppress(OSError):
        trial.rmdir()
    return base


def _base(kind: str, controller: str) -> Path | None:
    """Our own folder in a hierarchy: version 2 (`cgroup2`), or that of a version 1 controller."""
    mount = own = None
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        found, _, options = after.split(" ", 2)
        if found == kind and (not controller or controller in options.split(",")):
            mount = Path(before.split()[4])
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        number, controllers, path = line.split(":", 2)
        if controller in controllers.split(",") if controller else number == "0":
            own = path
    return mount / own.lstrip("/") if mount is not None and own is not None else None


def _enable_limits(base: Path) -> bool:
    """Hand the memory and pids controllers of version 2 to children of `base`.

    A cgroup with processes in it cannot do that, so where we are its only process we step aside into a leaf.
    """
    try:
        if not set(CONTROLLERS) <= set((base / "cgroup.controllers").read_text().split()):
            return False
        control = base / "cgroup.subtree_control"
        if set(CONTROLLERS) <= set(control.read_text().split()):
            return True
        if (base / "cgroup.procs").read_text().split() == [str(os.getpid())]:
            leaf = base / f"{PREFIX}engine"
            leaf.mkdir(exist_ok=True)
            (leaf / "cgroup.procs").write_text(str(os.getpid()))
        control.write_text("+memory +pids")
    except OSError:
        return False
    return True
