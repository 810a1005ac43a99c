"""Looking at and signalling processes through `/proc` and pidfds, without ever hitting a reused pid.

Standard library only: the emergency stop is built on this. A process is named by pid *and* start time (clock ticks
since boot); a signal goes through a pidfd opened before the start time was checked.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import time
from collections.abc import Iterable, Set

PAGE_SIZE = os.sysconf("SC_PAGE_SIZE")
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")
FIRST_PID_NAMESPACE = 0xEFFFFFFC  # the inode that the kernel gives to the one from which all others descend
STOPPED = ("T", "t")
DEAD = ("", "Z", "X")  # what `state` says of a process that runs no code any more


def boot_id() -> str:
    """The kernel's identifier of this boot; records from another boot name no living process."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return file.read().strip()
    except OSError:
        return ""


def stat_fields(pid: int | str) -> list[str] | None:
    """The fields of `/proc/PID/stat` from the state on (state is index 0); None when there is no such process.

    A thread is named by `PID/task/TID`.
    """
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


def is_dead(fields: list[str] | None) -> bool:
    """Whether these fields of `/proc/PID/stat` are of a process that runs no code any more.

    Once its main thread has ended, a process is shown as a zombie, though its other threads may run on.
    """
    if not fields or fields[0] not in DEAD:
        return not fields
    return fields[0] != "Z" or len(fields) < 18 or int(fields[17]) <= 1


def _threads(pid: int) -> dict[int, str]:
    """The threads of a process and the state of each, empty for one that ended while we looked."""
    try:
        names = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return {}
    return {int(name): (stat_fields(f"{pid}/task/{name}") or [""])[0] for name in names}


def living_thread(pid: int) -> int:
    """A thread whose `/proc/PID/task/TID` speaks for the process: the main one, unless it ended before the others."""
    fields = stat_fields(pid)
    if not fields or fields[0] != "Z" or is_dead(fields):
        return pid
    return next((thread for thread, letter in _threads(pid).items() if letter not in DEAD), pid)


def state(pid: int) -> str:
    """The one-letter state (`R`, `S`, `T`, `Z`, …); empty when there is no such process.

    Where the main thread ended before the others, it is theirs: stopped only when all of them are.
    """
    fields = stat_fields(pid)
    if not fields or fields[0] != "Z" or is_dead(fields):
        return fields[0] if fields else ""
    letters = [letter for letter in _threads(pid).values() if letter not in ("Z", "X")]
    # None, or one that ended while we looked: something in there has just run.
    return next((letter for letter in letters if letter not in STOPPED), (letters or ["R"])[0]) or "R"


def parent(pid: int) -> int:
    """The parent's pid; 0 when there is no such process."""
    fields = stat_fields(pid)
    return int(fields[1]) if fields and len(fields) > 1 else 0


def is_alive(pid: int, started: int) -> bool:
    """Whether exactly this process lives; a zombie is dead."""
    fields = stat_fields(pid)
    return fields is not None and len(fields) > 19 and int(fields[19]) == started and not is_dead(fields)


def open_exactly(pid: int, started: int) -> int | None:
    """A pidfd of exactly this process, or None when it is gone (or its pid belongs to somebody else now).

    Raises:
        OSError: the kernel gave no pidfd for another reason, such as too many open files; the process may be alive.
    """
    if not 1 < pid < 2**31 or started <= 0:
        return None
    try:
        descriptor = os.pidfd_open(pid)
    except OSError as error:
        # ESRCH: no such process. EINVAL, ENOENT: the number belongs to a thread by now. Both mean that it is gone.
        if error.errno in (errno.ESRCH, errno.EINVAL, errno.ENOENT):
            return None
        raise
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
    try:
        descriptor = open_exactly(pid, started)
    except OSError as error:
        return error.strerror or str(error)
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


def namespace_census(deadline: float) -> dict[int, list[int]]:
    """Which processes are in which pid namespace (inode to pids, ours left out); what was seen until `deadline`."""
    own = pid_namespace("self")
    found: dict[int, list[int]] = {}
    for pid in all_pids():
        inode = pid_namespace(pid)
        if inode and inode != own:
            found.setdefault(inode, []).append(pid)
        if time.monotonic() > deadline:
            break
    return found


def namespace_members(wanted: Iterable[tuple[int, int]]) -> dict[int, tuple[int, int]]:
    """Every process, zombies left out, in one of these pid namespaces: pid to (inode, start time).

    A namespace is named by its inode *and* the start time of its init, because the kernel gives the inode of a dead
    namespace to the next one at once. Without a living init of that start time nothing of it can be alive: the kernel
    ends an init only after everything else in its namespace. Our own namespace is never searched.
    """
    inits = {(inode, started) for inode, started in wanted if inode not in (0, pid_namespace("self"))}
    inodes = {inode for inode, _ in inits}
    found: dict[int, tuple[int, int]] = {}
    confirmed = set()
    for pid in all_pids() if inodes else ():
        inode = pid_namespace(pid)
        if inode not in inodes:
            continue
        fields = stat_fields(pid)
        # Looked at once more: the pid that has this start time is the one whose namespace was seen.
        if not fields or len(fields) < 20 or is_dead(fields) or pid_namespace(pid) != inode:
            continue
        started = int(fields[19])
        found[pid] = (inode, started)
        if (inode, started) in inits and _is_init(pid):
            confirmed.add(inode)
    return {pid: (inode, started) for pid, (inode, started) in found.items() if inode in confirmed}


def _is_init(pid: int) -> bool:
    """Whether a process is number 1 in its own pid namespace."""
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            content = file.read()
    except OSError:
        return False
    line = content[content.find(b"\nNSpid:") + 1 :].split(b"\n", 1)[0]
    return line.split()[-1:] == [b"1"]


def environment(pid: int) -> frozenset[bytes]:
    """The `NAME=value` entries that a process was started with; empty when they cannot be read."""
    content = _content(f"/proc/{pid}/environ")
    if not content and (thread := living_thread(pid)) != pid:  # a main thread that has ended has let go of it
        content = _content(f"/proc/{pid}/task/{thread}/environ")
    return frozenset(content.split(b"\0")) if content else frozenset()


def _content(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""


def marked(marks: Set[str], within: Set[str] = frozenset()) -> dict[int, int]:
    """Every process, zombies and ourselves left out, whose environment holds one of these `NAME=value` marks.

    With `within`, it must hold one of those as well. Returns pid to start time.
    """
    tokens, further = ({os.fsencode(mark) for mark in group} for group in (marks, within))
    found = {}
    for pid in all_pids() if tokens else ():
        if pid == os.getpid() or tokens.isdisjoint(environment(pid)):
            continue
        fields = stat_fields(pid)
        if not fields or len(fields) < 20 or is_dead(fields):
            continue
        # Read once more: the pid that has this start time is the one that carries the mark.
        entries = environment(pid)
        if not tokens.isdisjoint(entries) and not (further and further.isdisjoint(entries)):
            found[pid] = int(fields[19])
    return found


def ancestors(pid: int) -> set[int]:
    """The parents of a process up to the first one, without itself."""
    found: set[int] = set()
    above = parent(pid)
    while above > 0 and above not in found:
        found.add(above)
        above = parent(above)
    return found


def descendants(root: int) -> set[int]:
    """Living descendants of a process by parent links, without itself; those that were reparented are not found."""
    children: dict[int, list[int]] = {}
    for pid in all_pids():
        fields = stat_fields(pid)
        if fields and not is_dead(fields):
            children.setdefault(int(fields[1]), []).append(pid)
    found: set[int] = set()
    queue = [root]
    while queue:
        for child in children.get(queue.pop(), []):
            if child not in found:
                found.add(child)
                queue.append(child)
    return found


def children(pid: int, single: bool = False) -> list[int] | None:
    """A process's children by the kernel's lists; None when it is gone or the kernel keeps none.

    `single` says that it has one thread only, which saves a look for the others.
    """
    found: list[int] = []
    try:
        for thread in (pid,) if single else os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children") as file:
                found.extend(int(child) for child in file.read().split())
    except (OSError, ValueError):
        return None
    return found


def tree(root: int) -> set[int]:
    """`root` and its descendants by the kernel's children lists: cheap, and whole below a pid-namespace init."""
    found: set[int] = set()
    queue = [root]
    while queue:
        pid = queue.pop()
        if pid not in found and (below := children(pid)) is not None:
            found.add(pid)
            queue += below
    return found


def resident_bytes(pid: int) -> int:
    """Resident memory, shared pages counted fully; 0 when there is no such process."""
    try:
        with open(f"/proc/{pid}/task/{living_thread(pid)}/statm") as file:
            return int(file.read().split()[1]) * PAGE_SIZE
    except (OSError, ValueError, IndexError):
        return 0


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and of its children that were waited for."""
    fields = stat_fields(pid)
    return sum(int(value) for value in fields[11:15]) / CLOCK_TICKS if fields and len(fields) > 15 else 0.0
