"""The last trusted code in a sandbox: takes rights away from its own process, then becomes the untrusted program.

Runs as `python -I -S wrapper.py SPEC`, inside bubblewrap where there is one. Standard library only, with `landlock.py`
beside it. It says that it is there, and starts the program only when the launcher, having registered the sandbox,
allows it. SPEC is a dictionary in marshal's format, in hexadecimal: unlike others that one is read without an import,
and imports are most of what a launch costs.

Exit codes 97 (never allowed to start) and 98 (a protection could not be applied) are its own.
"""

from __future__ import annotations

import ctypes
import marshal
import os
import resource
import struct
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import landlock  # type: ignore[import-not-found]  # noqa: E402  beside this file, wherever that is

NOT_STARTED, NOT_PROTECTED = 97, 98
PR_SET_PDEATHSIG, PR_CAPBSET_DROP, PR_SET_SECCOMP, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 1, 24, 22, 36, 38
PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL = 47, 4
SECCOMP_MODE_FILTER = 2
CAPABILITY_VERSION_3 = 0x20080522
CAPGET, CAPSET = {"x86_64": (125, 126), "aarch64": (90, 91)}.get(os.uname().machine, (0, 0))


class _Filter(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


libc = ctypes.CDLL(None, use_errno=True)


def check(result: int, what: str) -> None:
    """Raise OSError when a C call failed."""
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def set_limits(limits: dict[str, int]) -> None:
    """Set resource limits given by their names without the prefix; both soft and hard, never above the old hard one."""
    for name, wanted in limits.items():
        kind = getattr(resource, f"RLIMIT_{name}")
        hard = resource.getrlimit(kind)[1]
        value = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(kind, (value, value))


def drop_privileges(uid: int | None) -> None:
    """Leave root for `uid` (when one is given) and give up every capability, now and for all children."""
    capabilities_known = CAPSET != 0
    for capability in range(64):
        if libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) != 0:
            break
    if uid is not None:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    if capabilities_known:
        header = struct.pack("=Ii", CAPABILITY_VERSION_3, 0)
        check(libc.syscall(CAPSET, header, bytes(24)), "capset")
    check(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")


def set_filter(program: bytes) -> None:
    """Install the system-call filter for good."""
    description = _Filter(len(program) // 8, program)
    check(libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(description), 0, 0), "seccomp")


def protect(spec: dict[str, Any]) -> None:
    """Take every right away that the specification names."""
    os.umask(0o077)
    with open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")  # when the machine's memory ends, the kernel takes sandboxes first
    set_limits(spec["limits"])
    drop_privileges(spec["uid"])
    if spec["landlock"] is not None:
        landlock.restrict(spec["landlock"]["read"], spec["landlock"]["write"])
    if spec["seccomp"]:
        set_filter(bytes.fromhex(spec["seccomp"]))


def children_of_self() -> set[int]:
    """All our living descendants that the kernel's children lists show."""
    found: set[int] = set()
    queue = [os.getpid()]
    while queue:
        pid = queue.pop()
        try:
            for thread in os.listdir(f"/proc/{pid}/task"):
                with open(f"/proc/{pid}/task/{thread}/children") as file:
                    fresh = {int(child) for child in file.read().split()} - found
                    found |= fresh
                    queue.extend(fresh)
        except OSError:
            continue
    return found


def watch_tree(main: int) -> NoReturn:
    """The shim of a sandbox without bubblewrap: adopts every orphan, and ends only after the last of its tree.

    When the main program ends, or on SIGTERM, or when the engine dies, it kills the rest until nobody is left to wait
    for; its own end is therefore the proof that the tree is gone. Exits like the main program did.
    """
    import signal

    status = 128 + signal.SIGKILL
    ending = False
    while True:
        while True:
            try:
                pid, raw = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                os._exit(status)
            if pid == 0:
                break
            if pid == main:
                code = os.waitstatus_to_exitcode(raw)
                status = code if code >= 0 else 128 - code
                ending = True
        if ending:
            for child in children_of_self():
                try:
                    os.kill(child, signal.SIGKILL)
                except OSError:
                    continue  # it ended by itself
            time.sleep(0.001)
            continue
        received = signal.sigtimedwait({signal.SIGTERM, signal.SIGCHLD}, 1.0)
        ending = received is not None and received.si_signo == signal.SIGTERM


def become_shim(launcher: int) -> None:
    """Fork: the parent stays as the shim and never returns, the child goes on to become the program.

    `launcher` is the pid of our parent, 0 where that is outside our pid namespace and `unshare` has tied us to it.
    """
    import signal

    listened = {signal.SIGTERM, signal.SIGCHLD}
    signal.pthread_sigmask(signal.SIG_BLOCK, listened)
    check(libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "subreaper")
    if launcher:
        check(libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0), "pdeathsig")
    if os.getppid() != launcher:
        os._exit(NOT_STARTED)
    main = os.fork()
    if main:
        os.closerange(3, 256)
        watch_tree(main)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, listened)


def main() -> NoReturn:
    """Wait for permission, protect, become the program."""
    spec = marshal.loads(bytes.fromhex(sys.argv[1]))
    if spec["shim"]:
        become_shim(spec["launcher"])
    gate = spec["gate"]
    os.write(gate, b"r")
    permitted = os.read(gate, 2) == b"go"
    os.close(gate)
    if not permitted:
        os._exit(NOT_STARTED)
    try:
        protect(spec)
        os.chdir(spec["workdir"])
        os.execve(spec["argv"][0], spec["argv"], spec["environment"])
    except OSError as error:
        print(f"sandbox: {error}", file=sys.stderr, flush=True)
        os._exit(NOT_PROTECTED)


if __name__ == "__main__":
    main()
