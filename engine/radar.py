"""The leak radar: processes that carry the run's mark, but that nobody here answers for.

Whatever the engine starts carries `ASI_RUN_MARK`, and whatever a sandbox starts inherits it together with the sandbox's
own mark. Answered for are the engine, what it started outside of any sandbox (guard, scorers, helpers), everything in
or below a living sandbox, and whoever is connected, with the shells above. What is left ran away from its sandbox, or
was never in one. The emergency stop would kill it; the radar only shows it.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from engine.client import processes
from engine.client.aside import Aside
from engine.client.protocol import Stray
from engine.client.records import SANDBOX_MARK, Record
from engine.client.rundir import run_mark_entry
from store.audit import clean

PERIOD = 5.0
PATIENCE = 30.0  # a look that takes longer hangs in /proc: nothing is known then
LAUNCH_SECONDS = 60.0  # a child of the engine as young as this may be a sandbox that is just being started
MOST = 50

_Name = tuple[int, int]


class Radar:
    """Looks every few seconds, in a thread of its own; what was there in two looks in a row is a stray."""

    def __init__(self, root: Path) -> None:
        self.strays: list[Stray] | None = None
        self._mark = run_mark_entry(root)
        self._suspects: dict[_Name, float] = {}
        self._looking: Aside[dict[_Name, str]] | None = None
        self._begun = float("-inf")

    def poll(self, alive: list[Record], attached: set[int]) -> list[Stray] | None:
        """What the last looks saw, None where there is nothing to go by; begins a new look when it is time.

        Args:
            alive: the records of all living sandboxes.
            attached: processes that are connected to the engine.
        """
        now = time.monotonic()
        if self._looking is not None and not self._looking.pending:
            seen, _ = self._looking.wait(0.0)
            self._looking = None
            if seen is not None:
                self.take(seen)
            else:
                self._blind()
        elif self._looking is not None and now - self._begun > PATIENCE:
            self._blind()
        if self._looking is None and now - self._begun >= PERIOD:
            self._begun = now
            self._looking = Aside(lambda: self.look(alive, attached))
        return self.strays

    def take(self, seen: dict[_Name, str]) -> None:
        """Compare a look with the one before."""
        now = time.time()
        again = sorted(self._suspects.keys() & seen.keys(), key=lambda name: (self._suspects[name], name))
        self.strays = [Stray(name[0], seen[name], self._suspects[name]) for name in again[:MOST]]
        self._suspects = {name: self._suspects.get(name, now) for name in seen}

    def _blind(self) -> None:
        self.strays, self._suspects = None, {}

    def look(self, alive: list[Record], attached: set[int]) -> dict[_Name, str]:
        """Every marked process that nobody answers for: (pid, start time) to its command line. Blocks."""
        known = _Known(alive, attached)
        marked = processes.marked({self._mark})
        return {(pid, started): _command(pid) for pid, started in marked.items() if not known.answers_for(pid, started)}


class _Known:
    """Who answers for what, at one moment."""

    def __init__(self, alive: list[Record], attached: set[int]) -> None:
        self._engine = os.getpid()
        self._spaces = {record.pid_namespace for record in alive} - {0, processes.pid_namespace("self")}
        self._roots = {pid for record in alive for pid in (record.outer_pid, record.init_pid)}
        self._attached = set(attached)
        for pid in attached:
            self._attached |= processes.ancestors(pid)

    def answers_for(self, pid: int, started: int) -> bool:
        """Whether this process has its place."""
        if pid == self._engine or pid in self._attached or processes.pid_namespace(pid) in self._spaces:
            return True
        line = {pid, *processes.ancestors(pid)}
        if line & self._roots:
            return True
        return self._engine in line and (_age(started) < LAUNCH_SECONDS or not _sandboxed(pid))


def _age(started: int) -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME) - started / processes.CLOCK_TICKS


def _sandboxed(pid: int) -> bool:
    mark = f"{SANDBOX_MARK}=".encode()
    return any(entry.startswith(mark) for entry in processes.environment(pid))


def _command(pid: int) -> str:
    """Its command line, hostile text made harmless."""
    for name in ("cmdline", "comm"):
        try:
            with open(f"/proc/{pid}/{name}", "rb") as file:
                content = file.read(4_096)
        except OSError:
            continue
        if text := clean(content.replace(b"\0", b" ").decode("utf-8", "replace"), 80):
            return text
    return "?"
