"""The limits of a sandbox that the kernel enforces per process or not at all, looked at ten times a second.

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
from engine.supervision.usage import Usage

PERIOD = 0.1
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


class LimitWatch:
    """Watches one sandbox; `look` says what it has overrun."""

    def __init__(self, record: Record, allowance: Allowance, workdir: Path, log: Path | None) -> None:
        self._record, self._allowance = record, allowance
        self._workdir, self._log = workdir, log
        self._log_begin = _size(log)
        self._next_disk = 0.0
        self._crowded_since = 0.0
        self.peak = Usage(0, 0.0, 0)

    def usage(self) -> Usage:
        """Memory, CPU time and processes now; zeros once it has ended."""
        return usage.of_tree(self._record.init_pid, self._record.init_start)

    def look(self) -> str:
        """One line on what has been overrun, empty when nothing was. Blocks for a moment: not for an event loop."""
        now = self.usage()
        self.peak = self.peak.maximum(now)
        if not now.processes:
            return ""
        return self._time(now) or self._crowd(now) or self._memory(now) or self._output() or self._disk()

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
        hidden = usage.tmpfs_bytes(self._record.init_pid) if self._record.pid_namespace else 0
        if now.memory_bytes + hidden <= allowed:
            return ""
        # Forked workers share pages; count those once before anybody is killed for them.
        pids = processes.tree(self._record.init_pid)
        exact = sum(usage.proportional_bytes(pid) for pid in pids) + hidden
        return f"memory: {exact / 2**20:.0f} MB of {self._allowance.memory_mb} MB" if exact > allowed else ""

    def _output(self) -> str:
        written = (_size(self._log) - self._log_begin) / 2**20
        allowed = self._allowance.log_mb
        return f"output: {written:.0f} MB printed, {allowed} MB are allowed" if written > allowed else ""

    def _disk(self) -> str:
        begin = time.monotonic()
        if begin < self._next_disk:
            return ""
        used, files = usage.folder_size(self._workdir)
        hidden = usage.hidden_bytes(self._record.init_pid)
        self._next_disk = begin + (time.monotonic() - begin) / DISK_SHARE
        if files > usage.MAX_FILES:
            return f"disk: more than {usage.MAX_FILES} files"
        total, allowed = (used + hidden) / 2**20, self._allowance.disk_mb
        if total <= allowed:
            return ""
        note = f", {hidden / 2**20:.0f} MB of them in nameless files" if hidden > used else ""
        return f"disk: {total:.0f} MB of {allowed} MB{note}"


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
