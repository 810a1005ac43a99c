"""Killing sandboxes and proving that they are dead. Standard library only: the emergency stop is made of this."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import time
from collections.abc import Iterable, Set

from engine.client import processes
from engine.client.records import Record, sandbox_mark
from engine.client.report import Row

SHIM_GRACE = 2.0  # seconds a namespace-less sandbox's shim gets to end its tree and thereby prove it
CENSUS_SECONDS = 0.05  # what the table's process counts may cost before the first signal


class Strike:
    """A sandbox under fire: signals are sent at construction, `row` says what became of it."""

    def __init__(self, record: Record) -> None:
        self.record = record
        self.errors: list[str] = []
        self.descriptors: list[int] = []
        self.chased: set[int] = set()  # members of its namespace that were seen and hit after its init
        self.cooperative = record.pid_namespace == 0
        self.current = record.boot_id == processes.boot_id()
        self.begin = time.monotonic()
        if not self.current:
            return
        self._kill_cgroup()
        named = {(record.init_pid, record.init_start), (record.outer_pid, record.outer_start)}
        for pid, started in sorted(named, key=lambda pair: pair[0] != record.init_pid):
            try:
                descriptor = processes.open_exactly(pid, started)
            except OSError as error:
                self.errors.append(f"pid {pid} cannot be reached ({error.strerror})")
                continue
            if descriptor is not None:
                self.descriptors.append(descriptor)
                self._signal(pid, descriptor)

    @property
    def namespace(self) -> tuple[int, int]:
        """What names its pid namespace: the inode and the start time of its init."""
        return self.record.pid_namespace, self.record.init_start

    def _signal(self, pid: int, descriptor: int) -> None:
        # Without a namespace only the shim knows its whole tree: it kills it to the last child and then ends.
        numbers = (signal.SIGTERM, signal.SIGCONT) if self.cooperative else (signal.SIGKILL,)
        for number in numbers:
            error = processes.send(descriptor, number)
            if error:
                self.errors.append(f"pid {pid} cannot be signalled ({error})")
                return

    def _kill_cgroup(self) -> None:
        if self.record.cgroup:
            try:
                # Unbuffered: a write that is refused must not come up again when the file is closed.
                with open(os.path.join(self.record.cgroup, "cgroup.kill"), "wb", buffering=0) as file:
                    file.write(b"1")
            except (OSError, ValueError):
                pass  # gone, no path, or an older kernel: the pidfds do the work, and the proof below is the same

    def close(self) -> None:
        """Release the pidfds."""
        for descriptor in self.descriptors:
            os.close(descriptor)
        self.descriptors = []


def raise_file_limit() -> None:
    """Allow as many pidfds as we may have: each sandbox takes two."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(OSError, ValueError):  # the limit as it is will do for hundreds
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def cgroup_populated(path: str | None) -> bool:
    """Whether a cgroup still holds a living process; one that is gone does not."""
    if not path:
        return False
    try:
        with open(os.path.join(path, "cgroup.events")) as file:
            return "populated 1" in file.read()
    except (OSError, ValueError):
        return False


def kill_sandboxes(records: list[Record], deadline: float = 10.0) -> list[Row]:
    """Kill these sandboxes and prove it; returns one row for each. Takes at most about `deadline` seconds."""
    until = time.monotonic() + deadline
    census = processes.namespace_census(time.monotonic() + CENSUS_SECONDS)
    return prove([Strike(record) for record in records], census, until)[0]


def prove(
    strikes: list[Strike], census: dict[int, list[int]], until: float, also: Iterable[int] = ()
) -> tuple[list[Row], dict[int, float]]:
    """Wait until `until` (monotonic) for proof that these sandboxes are dead; closes the strikes.

    `also` are further pidfds to wait for. Returns a row for each strike, and when which pidfd became readable.
    """
    try:
        hard = [descriptor for strike in strikes if not strike.cooperative for descriptor in strike.descriptors]
        ended = processes.wait_ended([*hard, *also], until)
        soft = [descriptor for strike in strikes if strike.cooperative for descriptor in strike.descriptors]
        ended |= processes.wait_ended(soft, min(until, time.monotonic() + SHIM_GRACE))
        left = _await_empty([strike for strike in strikes if strike.current and not strike.cooperative], until)
        return [_row(strike, census, ended, left, until) for strike in strikes], ended
    finally:
        for strike in strikes:
            strike.close()
            if strike.record.cgroup:
                with contextlib.suppress(OSError, ValueError):  # only an empty one goes
                    os.rmdir(strike.record.cgroup)


def _await_empty(strikes: list[Strike], until: float) -> dict[int, tuple[int, int]]:
    """Kill what is left in the namespaces until they and the cgroups are empty; returns the members that are left."""
    pause = 0.001
    while True:
        left = processes.namespace_members(strike.namespace for strike in strikes)
        populated = any(cgroup_populated(strike.record.cgroup) for strike in strikes)
        if (not left and not populated) or time.monotonic() >= until:
            return left
        # Usually the kernel is at it; from outside the engine's own pid namespace, only this finds them.
        for pid, (inode, started) in left.items():
            processes.signal_exactly(pid, started, signal.SIGKILL)
            for strike in strikes:
                if strike.record.pid_namespace == inode:
                    strike.chased.add(pid)
        time.sleep(pause)
        pause = min(0.05, pause * 2)


def _row(
    strike: Strike,
    census: dict[int, list[int]],
    ended: dict[int, float],
    left: dict[int, tuple[int, int]],
    until: float,
) -> Row:
    """The verdict on one sandbox."""
    record = strike.record
    what = f"{record.kind} {record.id}"
    if not strike.current:
        return Row(what, [], 0.0, "from an earlier boot", True)
    if strike.cooperative:
        return _row_without_namespace(strike, ended, until)
    # Where its init is gone, the inode may be another namespace's by now, and so may whoever was seen in it.
    pids = sorted({*(census.get(record.pid_namespace, ()) if strike.descriptors else ()), *strike.chased})
    alive = [pid for pid, (inode, _) in left.items() if inode == record.pid_namespace]
    waiting = [descriptor for descriptor in strike.descriptors if descriptor not in ended]
    facts = list(strike.errors)
    if waiting:
        facts.append("its pidfd says that it has not ended" + _state(record))
    if alive:
        facts.append("alive in its namespace: " + " ".join(map(str, alive)))
    if cgroup_populated(record.cgroup):
        facts.append("its cgroup is populated")
    if not facts and not strike.descriptors and not pids:
        return Row(what, [], 0.0, "was dead already", True)
    times = [ended[descriptor] for descriptor in strike.descriptors if descriptor in ended]
    took = (max(times, default=time.monotonic()) - strike.begin) * 1000
    proof = "; ".join(facts) or ("init, namespace, cgroup gone" if record.cgroup else "init and namespace gone")
    return Row(what, pids or [record.init_pid], took, proof, not facts)


def _state(record: Record) -> str:
    """Why it may not end: a process that waits inside the kernel dies only when that wait is over."""
    if processes.state(record.init_pid) == "D" or processes.state(record.outer_pid) == "D":
        return " (it waits for a device or a disk, and dies when that answers)"
    return ""


def _row_without_namespace(strike: Strike, ended: dict[int, float], until: float) -> Row:
    """Without a namespace, the proof is that the shim ended by itself after its last child; else we hunt."""
    record = strike.record
    what = f"{record.kind} {record.id}"
    shim_ended = bool(strike.descriptors) and all(descriptor in ended for descriptor in strike.descriptors)
    hunted = processes.descendants(record.init_pid) if strike.descriptors and not shim_ended else set()
    for pid in hunted:
        processes.signal_exactly(pid, processes.start_time(pid), signal.SIGKILL)
    killed, left = hunt({sandbox_mark(record)}, min(until, time.monotonic() + 1.0), within={record.mark})
    for descriptor in () if shim_ended else strike.descriptors:
        processes.send(descriptor, signal.SIGKILL)
    pids = sorted({*({record.init_pid} if strike.descriptors else ()), *hunted, *killed})
    took = (time.monotonic() - strike.begin) * 1000
    facts = list(strike.errors)
    if left:
        facts.append("alive: " + " ".join(map(str, sorted(left))))
    if facts:
        return Row(what, pids, took, "; ".join(facts), False)
    if shim_ended and not killed:
        return Row(what, pids, took, "its shim reaped the whole tree", True)
    return Row(what, pids, took, "nothing carries its mark, but without a namespace this is no proof", False)


def hunt(
    marks: set[str], until: float, *, within: Set[str] = frozenset(), spared: Set[int] = frozenset()
) -> tuple[set[int], set[int]]:
    """Kill whatever carries a mark (and one of `within`), until two scans in a row find nothing.

    Returns the pids that were killed and those that were still there at `until` (monotonic). `spared` is never hit.
    """
    killed: set[int] = set()
    clean = 0
    while True:
        found = {pid: started for pid, started in processes.marked(marks, within).items() if pid not in spared}
        clean = 0 if found else clean + 1
        if clean == 2 or time.monotonic() >= until:
            return killed, set(found)
        descriptors = []
        for pid, started in found.items():
            with contextlib.suppress(OSError):  # no pidfd now: it is found again, and counts as alive until then
                descriptor = processes.open_exactly(pid, started)
                if descriptor is not None:
                    descriptors.append(descriptor)
                    if not processes.send(descriptor, signal.SIGKILL):
                        killed.add(pid)
        processes.wait_ended(descriptors, min(until, time.monotonic() + 0.1))
        for descriptor in descriptors:
            os.close(descriptor)
