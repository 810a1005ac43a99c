"""The limits of a sandbox that the kernel enforces per process or not at all, looked at ten times a second, and
oftener where one is near.

Where there are limits of a cgroup too, whichever notices first says why.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import msgspec

from engine.client import processes
from engine.client.records import Record
from engine.supervision import usage
from engine.supervision.cgroup import Group
from engine.supervision.usage import FolderSize, Nameless, Usage

MACHINE = "this machine: "  # so begins a reason to end a sandbox that is not its program's fault
PERIOD = 0.1
SHORTEST = 0.01  # seconds between looks at what grows fast
DISK_SHARE = 0.1  # of the time may go into walking the folder
CROWD_SHARE = 0.75  # of the allowed processes, for longer than
CROWD_SECONDS = 1.0  # seconds, is a fork bomb: the kernel's limit keeps it from being more


class Allowance(msgspec.Struct, frozen=True):
    """What a sandbox may use in all; sizes in MB, `log_mb` of what it prints."""

    memory_mb: int
    disk_mb: int
    log_mb: int
    processes: int
    cpu_seconds: int


class Growth:
    """How soon a size that is looked at now and then may reach its limit."""

    def __init__(self, size: int) -> None:
        self._size, self._when = size, time.monotonic()

    def seconds_left(self, size: int, limit: int) -> float:
        """Seconds until `limit` if it goes on growing as since the last look."""
        now = time.monotonic()
        rate = (size - self._size) / max(now - self._when, 1e-6)
        self._size, self._when = size, now
        return (limit - size) / rate if rate > 0 else float("inf")


class LimitWatch:
    """Watches one sandbox; `look` says what it has overrun, `pause` how many seconds until the next look."""

    def __init__(
        self, record: Record, allowance: Allowance, workdir: Path, log: Path | None, group: Group | None = None
    ) -> None:
        self._record, self._allowance = record, allowance
        self._workdir, self._log, self._group = workdir, log, group
        self._log_begin = _size(log)
        self._log_growth, self._disk_growth = Growth(self._log_begin), Growth(0)
        self._next_disk = 0.0
        self._crowded_since = 0.0
        self._nameless = Nameless(0, {})
        self.peak = Usage(0, 0.0, 0)
        self.pause = PERIOD

    def usage(self) -> Usage:
        """Memory, CPU time and processes now; zeros once it has ended."""
        return usage.of_tree(self._record.init_pid, self._record.init_start)

    def look(self) -> str:
        """One line on what has been overrun, empty when nothing was. Blocks for a moment: not for an event loop."""
        self.pause = PERIOD
        now = self.usage()
        self.peak = self.peak.maximum(now)
        if not now.processes:
            return ""
        return (
            self.kernel_memory() or self._time(now) or self._crowd(now)
            or self._output() or self._disk() or self._memory(now)
        )  # fmt: skip

    def kernel_memory(self) -> str:
        """Says so when the kernel has killed for the memory limit: with version 1, one process of the tree only."""
        if self._group is None or not self._group.out_of_memory():
            return ""
        return f"memory: the kernel's limit of {self._allowance.memory_mb} MB was reached"

    def left_behind(self) -> str:
        """What was overrun in the last moments, between the last look and the end."""
        return self._output() or self._folder_overrun(usage.folder_size(self._workdir), Nameless(0, {}))

    def _time(self, now: Usage) -> str:
        allowed = self._allowance.cpu_seconds
        return f"CPU time: {now.cpu_seconds:.0f} s of {allowed} s" if now.cpu_seconds > allowed else ""

    def _crowd(self, now: Usage) -> str:
        allowed = self._allowance.processes
        if now.processes < CROWD_SHARE * allowed:
            self._crowded_since = 0.0
            return ""
        self._crowded_since = self._crowded_since or time.monotonic()
        if now.processes > allowed + 8 or time.monotonic() - self._crowded_since > CROWD_SECONDS:
            return f"processes: {now.processes}, at most {allowed} can be"
        return ""

    def _memory(self, now: Usage) -> str:
        allowed = self._allowance.memory_mb * 2**20
        tmpfs = usage.own_tmpfs(self._record.init_pid) if self._record.pid_namespace else {}
        files = self._nameless.memory
        if now.memory_bytes + sum(tmpfs.values()) + sum(files.values()) <= allowed:
            return ""
        used = usage.memory_bytes(processes.tree(self._record.init_pid), tmpfs, files, allowed)
        if used <= allowed:
            return ""
        shared = (sum(tmpfs.values()) + sum(files.values())) / 2**20
        note = f", {shared:.0f} MB of them in files in memory" if shared >= 1 else ""
        return f"memory: {used / 2**20:.0f} MB of {self._allowance.memory_mb} MB{note}"

    def _output(self) -> str:
        size, allowed = _size(self._log), self._allowance.log_mb * 2**20
        self._hurry(self._log_growth.seconds_left(size, self._log_begin + allowed))
        written = size - self._log_begin
        return f"output: {written / 2**20:.0f} MB printed of {allowed >> 20} MB" if written > allowed else ""

    def _disk(self) -> str:
        begin = time.monotonic()
        if begin < self._next_disk:
            return ""
        folder = usage.folder_size(self._workdir)
        try:
            self._nameless = usage.nameless(self._record.init_pid, self._workdir)
            free = usage.free_bytes(self._workdir)
        except OSError as error:
            return f"disk: its folder cannot be looked at ({error.strerror})"
        total, allowed = folder.used + self._nameless.disk, self._allowance.disk_mb * 2**20
        self._hurry(self._disk_growth.seconds_left(total, allowed))
        self._next_disk = begin + (time.monotonic() - begin) / DISK_SHARE
        if overrun := self._folder_overrun(folder, self._nameless):
            return overrun
        if free < usage.KEPT_FREE:
            left = f"{free / 2**20:.0f} MB are left on the whole disk, {usage.KEPT_FREE >> 20} MB are kept free"
            return f"{MACHINE}disk: {left}"
        return ""

    def _folder_overrun(self, folder: FolderSize, nameless: Nameless) -> str:
        if folder.files > usage.MAX_FILES:
            return f"disk: more than {usage.MAX_FILES} files"
        if folder.unreadable:
            return "disk: it made a folder that cannot be read, so that its size cannot be known"
        total, hidden, allowed = folder.used + nameless.disk, nameless.disk, self._allowance.disk_mb * 2**20
        if total <= allowed:
            return ""
        note = f", {hidden / 2**20:.0f} MB of them in deleted files" if hidden > folder.used else ""
        return f"disk: {total / 2**20:.0f} MB of {allowed >> 20} MB{note}"

    def _hurry(self, seconds_left: float) -> None:
        """Look again when half of what is left has passed."""
        self.pause = min(self.pause, max(SHORTEST, seconds_left / 2))


def shorten(log: Path, most_bytes: int) -> None:
    """Cut a file that nobody writes any more: its beginning and its end stay, within `most_bytes`."""
    half = most_bytes // 2
    descriptor = os.open(log, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(descriptor, "r+b") as file:
        size = os.fstat(descriptor).st_size
        if size <= most_bytes:
            return
        file.seek(size - half)
        end = file.read(half)
        file.seek(half)
        file.write(b"\n[... %d MB left out ...]\n" % ((size - most_bytes) >> 20))
        file.write(end)
        file.truncate()


def _size(path: Path | None) -> int:
    try:
        return os.lstat(path).st_size if path else 0
    except OSError:
        return 0
