"""Looking at and signalling processes through `/proc` and pidfds, without ever hitting a reused pid.

Standard library only: the emergency stop is built on this. A process is named by pid *and* start time (clock ticks
since boot); a signal goes through a pidfd opened before the start time was checked.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Iterable

PAGE_SIZE = os.sysconf("SC_PAGE_SIZE")
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")
DEAD = ("", "Z", "X")  # states in which a process runs no code any more


def boot_id() -> str:
    """The kernel's identifier of this boot; records from another boot name no living process."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return file.read().strip()
    except OSError:
        return ""


def stat_fields(pid: int) -> list[str] | None:
    """The fields of `/proc/PID/stat` from the state on (state is index 0); None when there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            content = file.read()
    except OSError:
        return None
    # The command name may hold spaces and parentheses, so the fields start after the last ")".
    return content[content.rfind(b")") + 2 :].decode("ascii", "replace").split()


def start_time(pid: int) -> int:
    """Start time in clock ticks since boot; 0 when there is no such process."""
    fields = stat_fields(pid)
    return int(fields[19]) if fields and len(fields) > 19 else 0


def state(pid: int) -> str:
    """The one-letter state (`R`, `S`, `T`, `Z`, …); empty when there is no such process."""
    fields = stat_fields(pid)
    return fields[0] if fields else ""


def parent(pid: int) -> int:
    """The parent's pid; 0 when there is no such process."""
    fields = stat_fields(pid)
    return int(fields[1]) if fields and len(fields) > 1 else 0


def is_alive(pid: int, started: int) -> bool:
    """Whether exactly this process lives; a zombie is dead."""
    fields = stat_fields(pid)
    return fields is not None and len(fields) > 19 and int(fields[19]) == started and fields[0] not in DEAD


def open_exactly(pid: int, started: int) -> int | None:
    """A pidfd of exactly this process, or None when it is gone (or its pid belongs to somebody else now)."""
    if pid <= 1 or started <= 0:
        return None
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:
        return None
    # Checked after opening: whatever the pidfd names was alive under this pid at that moment.
    if start_time(pid) != started:
        os.close(descriptor)
        return None
    return descriptor


def send(descriptor: int, number: int) -> str:
    """Signal through a pidfd; returns an empty text, or why it failed. A process already gone is no failure."""
    try:
        signal.pidfd_send_signal(descriptor, number)
    except ProcessLookupError:
        return ""
    except OSError as error:
        return error.strerror or str(error)
    return ""


def signal_exactly(pid: int, started: int, number: int) -> str:
    """Signal exactly this process; the text says why it failed, empty when it worked or there is nothing left."""
    descriptor = open_exactly(pid, started)
    if descriptor is None:
        return ""
    try:
        return send(descriptor, number)
    finally:
        os.close(descriptor)


def wait_ended(descriptors: Iterable[int], deadline: float) -> dict[int, float]:
    """Wait until these pidfds are readable (their process has ended) or `deadline` (monotonic) has come.

    Returns when each one ended, on the monotonic clock; those that did not are missing.
    """
    ended: dict[int, float] = {}
    waiting = set(descriptors)
    poll = select.poll()
    for descriptor in waiting:
        poll.register(descriptor, select.POLLIN)
    while waiting:
        left = deadline - time.monotonic()
        for descriptor, _ in poll.poll(max(0.0, left) * 1000):
            ended[descriptor] = time.monotonic()
            waiting.discard(descriptor)
            poll.unregister(descriptor)
        if left <= 0:
            break
    return ended


def all_pids() -> list[int]:
    """Every pid in `/proc`."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def pid_namespace(pid: int | str) -> int:
    """The inode of a process's pid namespace; 0 when it cannot be read."""
    try:
        return int(os.readlink(f"/proc/{pid}/ns/pid")[5:-1])
    except (OSError, ValueError):
        return 0


def namespace_members(inodes: set[int]) -> dict[int, tuple[int, int]]:
    """Every process, zombies left out, in one of these pid namespaces: pid to (inode, start time).

    Our own namespace is never searched for: asking for it would name the whole machine. The start time is read first,
    so that a pid that still has it later is the process whose namespace was seen.
    """
    wanted = inodes - {0, pid_namespace("self"), pid_namespace(1)}
    found: dict[int, tuple[int, int]] = {}
    if wanted:
        for pid in all_pids():
            started = start_time(pid)
            inode = pid_namespace(pid)
            if inode in wanted and state(pid) not in DEAD:
                found[pid] = (inode, started)
    return found


def marked(marks: set[str]) -> dict[int, int]:
    """Every process, zombies and ourselves left out, whose environment holds one of these `NAME=value` marks.

    Returns pid to start time, read before the environment was.
    """
    tokens = {mark.encode() for mark in marks}
    found = {}
    for pid in all_pids():
        if pid == os.getpid():
            continue
        started = start_time(pid)
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:
                environment = file.read()
        except OSError:
            continue
        if not tokens.isdisjoint(environment.split(b"\0")) and state(pid) not in DEAD:
            found[pid] = started
    return found


def descendants(root: int) -> set[int]:
    """Living descendants of a process by parent links, without itself; those that were reparented are not found."""
    children: dict[int, list[int]] = {}
    for pid in all_pids():
        fields = stat_fields(pid)
        if fields and fields[0] not in DEAD:
            children.setdefault(int(fields[1]), []).append(pid)
    found: set[int] = set()
    queue = [root]
    while queue:
        for child in children.get(queue.pop(), []):
            if child not in found:
                found.add(child)
                queue.append(child)
    return found


def tree(root: int) -> set[int]:
    """`root` and its descendants by the kernel's children lists: cheap, and whole below a pid-namespace init."""
    found: set[int] = set()
    queue = [root]
    while queue:
        pid = queue.pop()
        if pid in found:
            continue
        try:
            threads = os.listdir(f"/proc/{pid}/task")
            found.add(pid)
            for thread in threads:
                with open(f"/proc/{pid}/task/{thread}/children") as file:
                    queue.extend(int(child) for child in file.read().split())
        except (OSError, ValueError):
            continue
    return found


def resident_bytes(pid: int) -> int:
    """Resident memory, shared pages counted fully; 0 when there is no such process."""
    try:
        with open(f"/proc/{pid}/statm") as file:
            return int(file.read().split()[1]) * PAGE_SIZE
    except (OSError, ValueError, IndexError):
        return 0


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and of its children that were waited for."""
    fields = stat_fields(pid)
    return sum(int(value) for value in fields[11:15]) / CLOCK_TICKS if fields and len(fields) > 15 else 0.0
