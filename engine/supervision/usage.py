"""What a sandbox uses: memory, CPU time and processes of its tree, disk space of its folder, and what it hides."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

import msgspec

from engine.client import processes

MAX_FILES = 20_000


class Usage(msgspec.Struct, frozen=True):
    """What a sandbox uses now: resident memory in bytes, CPU seconds of the whole tree so far, living processes."""

    memory_bytes: int
    cpu_seconds: float
    processes: int

    def maximum(self, other: Usage) -> Usage:
        """The larger of each value."""
        return Usage(
            max(self.memory_bytes, other.memory_bytes),
            max(self.cpu_seconds, other.cpu_seconds),
            max(self.processes, other.processes),
        )


def of_tree(init: int, started: int) -> Usage:
    """What a process and all below it use; zeros when exactly this process is not alive."""
    if not processes.is_alive(init, started):
        return Usage(0, 0.0, 0)
    pids = processes.tree(init)
    cpu = sum(processes.cpu_seconds(pid) for pid in pids)
    return Usage(sum(processes.resident_bytes(pid) for pid in pids), cpu, len(pids))


def proportional_bytes(pid: int) -> int:
    """Memory of a process with shared pages divided among those who share them."""
    with contextlib.suppress(OSError, ValueError, IndexError), open(f"/proc/{pid}/smaps_rollup") as file:
        for line in file:
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return processes.resident_bytes(pid)


def tmpfs_bytes(init: int) -> int:
    """Memory in the files of a sandbox's own /tmp and /dev/shm; 0 where they cannot be seen or are not its own."""
    total = 0
    for folder in ("tmp", "dev/shm"):
        with contextlib.suppress(OSError):
            inside, outside = f"/proc/{init}/root/{folder}", f"/{folder}"
            if os.stat(inside).st_dev != os.stat(outside).st_dev:
                status = os.statvfs(inside)
                total += (status.f_blocks - status.f_bfree) * status.f_frsize
    return total


def folder_size(folder: Path) -> tuple[int, int]:
    """Bytes on the disk and number of entries below a folder; links are not followed, and counting is bounded."""
    used = files = 0
    queue = [os.fspath(folder)]
    while queue and files <= MAX_FILES:
        try:
            with os.scandir(queue.pop()) as entries:
                for entry in entries:
                    files += 1
                    used += entry.stat(follow_symlinks=False).st_blocks * 512
                    if entry.is_dir(follow_symlinks=False):
                        queue.append(entry.path)
        except OSError:
            continue  # removed while we looked
    return used, files


def hidden_bytes(init: int) -> int:
    """Bytes in files that have no name any more but are held open: deleted ones, and files in memory (memfd).

    Neither a folder's size nor resident memory shows them.
    """
    sizes: dict[tuple[int, int], int] = {}
    for pid in processes.tree(init):
        try:
            names = os.listdir(f"/proc/{pid}/fd")
        except OSError:
            continue
        for name in names:
            with contextlib.suppress(OSError):
                status = os.stat(f"/proc/{pid}/fd/{name}")
                if stat.S_ISREG(status.st_mode) and status.st_nlink == 0:
                    sizes[status.st_dev, status.st_ino] = status.st_blocks * 512
    return sum(sizes.values())
