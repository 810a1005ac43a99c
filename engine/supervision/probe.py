"""The attacks that the isolation level is measured by; runs inside a sandbox as its untrusted program.

Standard library only: `python -I -S probe.py ATTACK…`, with the `targets.json` that `attack.measure` wrote into its
folder.
Each attack is a function that returns what it achieved, or raises OSError when it was stopped. Harmless where it
succeeds.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import platform
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

libc = ctypes.CDLL(None, use_errno=True)
X86 = platform.machine() == "x86_64"
CLONE_NEWUSER = 0x10000000
PTRACE_SEIZE, PTRACE_DETACH = 0x4206, 17
AF_VSOCK = 40
HOLD = 0.5  # seconds a successful fork bomb lasts: longer than the period of the launcher's watch


class Stopped(OSError):
    """An attack that found nothing to attack."""


def _call(number: int, *arguments: Any) -> int:
    result: int = libc.syscall(number, *arguments)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def _read(path: str) -> str:
    with open(path, "rb") as file:
        return f"read {len(file.read(64))} bytes of {path}"


def _victim(targets: dict[str, Any]) -> int:
    """The pid of the process outside, by its command line, or by number where no other process has that number."""
    token = targets["token"].encode()
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            try:
                with open(f"/proc/{name}/cmdline", "rb") as file:
                    if token in file.read():
                        return int(name)
            except OSError:
                continue
    if os.path.exists(f"/proc/{targets['victim']}"):
        raise Stopped("that pid is one of our own here")
    return int(targets["victim"])


def secret_file(targets: dict[str, Any]) -> str:
    """Read a file outside."""
    return _read(targets["secret"])


def secret_symlink(targets: dict[str, Any]) -> str:
    """Read it through a symbolic link in the work folder."""
    os.symlink(targets["secret"], "link")
    return _read("link")


def secret_hardlink(targets: dict[str, Any]) -> str:
    """Read it through a hard link in the work folder."""
    os.link(targets["secret"], "hard")
    return _read("hard")


def secret_through_proc(targets: dict[str, Any]) -> str:
    """Read it through the root folder of another process."""
    for pid in (1, os.getppid(), targets["victim"]):
        try:
            return _read(f"/proc/{pid}/root{targets['secret']}")
        except OSError:
            continue
    raise Stopped("no process's root leads there")


def foreign_environment(targets: dict[str, Any]) -> str:
    """Find a secret in the environment of any other process, or in our own."""
    token = targets["environment_secret"].encode()
    for name in os.listdir("/proc"):
        try:
            with open(f"/proc/{name}/environ", "rb") as file:
                if token in file.read():
                    return f"read the environment of process {name}"
        except OSError:
            continue
    raise Stopped("the secret is in no readable environment")


def other_processes(targets: dict[str, Any]) -> str:
    """See a process outside."""
    pid = _victim(targets)
    with open(f"/proc/{pid}/stat", "rb") as file:
        file.read(1)
    return f"sees process {pid}"


def write_outside(targets: dict[str, Any]) -> str:
    """Create a file outside the work folder."""
    with open(os.path.join(targets["outside"], "written"), "w") as file:
        file.write("x")
    return f"wrote into {targets['outside']}"


def write_python(targets: dict[str, Any]) -> str:
    """Open the interpreter's own library for writing."""
    descriptor = os.open(os.path.dirname(json.__file__) + "/__init__.py", os.O_WRONLY)
    os.close(descriptor)
    return "opened the standard library for writing"


def tcp(targets: dict[str, Any]) -> str:
    """Connect to a service on this machine."""
    with socket.create_connection(("127.0.0.1", targets["tcp"]), 1.0):
        return "connected"


def udp(targets: dict[str, Any]) -> str:
    """Send a datagram; the receiver outside says whether it came."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(targets["token"].encode(), ("127.0.0.1", targets["udp"]))
    return "sent"


def netlink(targets: dict[str, Any]) -> str:
    """Open a netlink socket."""
    socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0).close()
    return "opened"


def vsock(targets: dict[str, Any]) -> str:
    """Open a socket to the hypervisor."""
    socket.socket(AF_VSOCK, socket.SOCK_STREAM, 0).close()
    return "opened"


def unix_path(targets: dict[str, Any]) -> str:
    """Connect to a Unix socket by its path."""
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(targets["unix"])
    return "connected"


def unix_abstract(targets: dict[str, Any]) -> str:
    """Connect to an abstract Unix socket."""
    with socket.socket(socket.AF_UNIX) as client:
        client.connect("\0" + targets["abstract"])
    return "connected"


def signal_outside(targets: dict[str, Any]) -> str:
    """Signal a process outside."""
    os.kill(_victim(targets), signal.SIGCONT)
    return "signalled"


def ptrace(targets: dict[str, Any]) -> str:
    """Trace a process outside."""
    pid = _victim(targets)
    _call(101 if X86 else 117, PTRACE_SEIZE, pid, 0, 0)
    libc.ptrace(PTRACE_DETACH, pid, 0, 0)
    return "traced"


def foreign_memory(targets: dict[str, Any]) -> str:
    """Open the memory of a process outside."""
    os.close(os.open(f"/proc/{_victim(targets)}/mem", os.O_RDONLY))
    return "opened"


def user_namespace(targets: dict[str, Any]) -> str:
    """Make a new user namespace, the door to much of the kernel."""
    child = os.fork()
    if child == 0:
        os._exit(0 if libc.unshare(CLONE_NEWUSER) == 0 else 1)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0:
        raise Stopped("refused")
    return "made one"


def io_uring(targets: dict[str, Any]) -> str:
    """Set up an io_uring, which passes by system-call filters."""
    parameters = ctypes.create_string_buffer(120)
    os.close(_call(425, 4, parameters))
    return "set up"


def keyring(targets: dict[str, Any]) -> str:
    """Use the kernel's key store."""
    _call(250 if X86 else 219, 0, ctypes.c_int(-3), 1)
    return "used"


def privilege(targets: dict[str, Any]) -> str:
    """Hold any capability; the launcher adds whether it is the machine's root."""
    with open("/proc/self/status") as file:
        status = dict(line.split(":", 1) for line in file if ":" in line)
    held = int(status["CapEff"], 16) | int(status["CapPrm"], 16)
    if held:
        return f"holds capabilities {held:x}"
    raise Stopped("none")


def fork_bomb(targets: dict[str, Any]) -> str:
    """Fork beyond the limit."""
    children = []
    try:
        for _ in range(targets["processes"] * 2):
            child = os.fork()
            if child == 0:
                time.sleep(10)
                os._exit(0)
            children.append(child)
        time.sleep(HOLD)
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    return f"forked {len(children)} times with a limit of {targets['processes']}"


def memory(targets: dict[str, Any]) -> str:
    """Allocate beyond the limit."""
    size = targets["memory_mb"] * 2 * 2**20
    mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS).close()
    return f"mapped {size >> 20} MB with a limit of {targets['memory_mb']} MB"


def big_file(targets: dict[str, Any]) -> str:
    """Make a file beyond the limit."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with open("big", "wb") as file:
        file.truncate(targets["disk_mb"] * 2**20 + 1)
    return "made"


def many_files(targets: dict[str, Any]) -> str:
    """Fill the disk with files of which each is below the limit."""
    piece = bytes(2**20)
    count = 0
    for number in range(4 * targets["disk_mb"]):
        with open(f"file{number}", "wb") as file:
            file.write(piece)
        count += 1
        time.sleep(0.002)  # a disk is slower than this machine's memory
    time.sleep(HOLD)
    return f"wrote {count} MB with a limit of {targets['disk_mb']} MB"


def daemon(targets: dict[str, Any]) -> str:
    """Leave a process behind that ignores requests to end; the launcher says whether it survived the kill."""
    child = os.fork()
    if child == 0:
        os.setsid()
        if os.fork():
            os._exit(0)
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        time.sleep(60)
        os._exit(0)
    os.waitpid(child, 0)
    return "left behind"


ATTACKS: tuple[Callable[[dict[str, Any]], str], ...] = (
    secret_file, secret_symlink, secret_hardlink, secret_through_proc, foreign_environment, other_processes,
    write_outside, write_python, tcp, udp, netlink, vsock, unix_path, unix_abstract, signal_outside, ptrace,
    foreign_memory, user_namespace, io_uring, keyring, privilege, memory, big_file, daemon, fork_bomb, many_files,
)  # fmt: skip


def main() -> None:
    """Try the named attacks and write `attacks.json` after each, then stay until killed: the kill is measured too."""
    with open("targets.json") as file:
        targets = json.load(file)
    results = []
    for attack in (known for known in ATTACKS if known.__name__ in sys.argv):
        try:
            stopped, detail = False, attack(targets)
        except (OSError, MemoryError, OverflowError) as error:
            stopped, detail = True, getattr(error, "strerror", None) or str(error) or type(error).__name__
        results.append({"attack": attack.__name__, "stopped": stopped, "detail": detail})
        with open("attacks.tmp", "w") as output:
            json.dump(results, output)
        os.rename("attacks.tmp", "attacks.json")
    time.sleep(60)


if __name__ == "__main__":
    main()
