"""What a sandbox uses: memory, CPU time and processes of its tree, disk space of its folder, and what it hides."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import msgspec

from engine.client import processes

MAX_FILES = 20_000
KEPT_FREE = 512 * 2**20  # bytes of a disk that sandboxes must leave to everybody else

FileId = tuple[int, int]  # device and inode


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


class FolderSize(NamedTuple):
    """Bytes on the disk, number of entries, and whether some of it could not be looked at."""

    used: int
    files: int
    unreadable: bool


class Nameless(NamedTuple):
    """Files without a name that are held open or mapped: bytes on the disk, and bytes in memory, file by file."""

    disk: int
    memory: dict[FileId, int]


def own_tmpfs(init: int) -> dict[int, int]:
    """Bytes in a sandbox's own /tmp and /dev/shm, by device; what is not its own is left out."""
    found = {}
    for folder in ("tmp", "dev/shm"):
        with contextlib.suppress(OSError):
            inside = f"/proc/{init}/root/{folder}"
            device = os.stat(inside).st_dev
            if device != os.stat(f"/{folder}").st_dev:
                status = os.statvfs(inside)
                found[device] = (status.f_blocks - status.f_bfree) * status.f_frsize
    return found


def memory_bytes(pids: Iterable[int], tmpfs: dict[int, int], files: dict[FileId, int], limit: int) -> int:
    """Memory of processes and of the files in memory that they share, everything counted once.

    The exact count is slow, so it is made only where the quick one, which counts mapped files twice, is above `limit`.
    """
    pids = list(pids)
    shared = sum(tmpfs.values()) + sum(files.values())
    quick = shared + sum(_proportional_bytes(pid) for pid in pids)
    return quick if quick <= limit else shared + sum(_bytes_beside(pid, tmpfs, files) for pid in pids)


def _proportional_bytes(pid: int) -> int:
    """Memory of a process with shared pages divided among those who share them."""
    with contextlib.suppress(OSError, ValueError, IndexError), open(f"/proc/{pid}/smaps_rollup") as file:
        for line in file:
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return processes.resident_bytes(pid)


def _bytes_beside(pid: int, tmpfs: dict[int, int], files: dict[FileId, int]) -> int:
    """The same without mappings of files that are counted as files already."""
    total, counts = 0, True
    try:
        with open(f"/proc/{pid}/smaps") as file:
            for line in file:
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024 if counts else 0
                elif line[0] in "0123456789abcdef":  # the names of values begin with capital letters
                    fields = line.split(maxsplit=5)
                    major, minor = fields[3].split(":")
                    device = os.makedev(int(major, 16), int(minor, 16))
                    counts = device not in tmpfs and (device, int(fields[4])) not in files
    except (OSError, ValueError, IndexError):
        return processes.resident_bytes(pid)
    return total or processes.resident_bytes(pid)  # its main thread has ended, and has no mappings any more


def folder_size(folder: Path) -> FolderSize:
    """The size of all below a folder; links are not followed, and counting is bounded."""
    used = files = 0
    unreadable = False
    queue = [os.fspath(folder)]
    while queue and files <= MAX_FILES:
        try:
            with os.scandir(queue.pop()) as entries:
                for entry in entries:
                    files += 1
                    try:
                        used += entry.stat(follow_symlinks=False).st_blocks * 512
                    except FileNotFoundError:
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        queue.append(entry.path)
        except (FileNotFoundError, NotADirectoryError):
            continue  # removed or replaced while we looked
        except OSError:  # no right to read it, or nested deeper than a path can name
            unreadable = True
    return FolderSize(used, files, unreadable)


def free_bytes(folder: Path) -> int:
    """What this user can still write to the disk of a folder."""
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize


def nameless(init: int, workdir: Path) -> Nameless:
    """What neither the folder's size nor resident memory shows: deleted files in use, and files in memory (memfd)."""
    device = os.stat(workdir).st_dev
    tmpfs = own_tmpfs(init)
    sizes: dict[FileId, int] = {}
    for pid in processes.tree(init):
        for path in (*_descriptors(pid), *_deleted_mappings(pid, workdir)):
            with contextlib.suppress(OSError):
                status = os.stat(path)
                if stat.S_ISREG(status.st_mode) and status.st_nlink == 0 and status.st_dev not in tmpfs:
                    sizes[status.st_dev, status.st_ino] = status.st_blocks * 512
    memory = {key: size for key, size in sizes.items() if key[0] != device}
    return Nameless(sum(sizes.values()) - sum(memory.values()), memory)


def _descriptors(pid: int) -> list[str]:
    folder = f"/proc/{pid}/task/{processes.living_thread(pid)}/fd"
    try:
        return [f"{folder}/{name}" for name in os.listdir(folder)]
    except OSError:
        return []


def _deleted_mappings(pid: int, workdir: Path) -> list[str]:
    """Where the files of the work folder can be looked at that are deleted, closed, and still mapped (root only)."""
    found = []
    thread = processes.living_thread(pid)  # /proc/TID is not listed, and yet there
    with contextlib.suppress(OSError), open(f"/proc/{thread}/maps") as file:
        for line in file:
            if line.endswith(" (deleted)\n") and f" {workdir}/" in line:
                found.append(f"/proc/{thread}/map_files/{line.split(maxsplit=1)[0]}")
    return found
