"""What this machine offers to contain a process, found by trying, and the bubblewrap command line made of it."""

from __future__ import annotations

import contextlib
import marshal
import os
import shutil
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import msgspec

import engine
from engine.supervision import cgroup, landlock, seccomp

PROJECT = Path(engine.__file__).resolve().parent
VISIBLE_CODE = (PROJECT / "__init__.py", PROJECT / "domain.py", PROJECT / "linear_attention")
WRAPPER_FILES = ("wrapper.py", "landlock.py")
INSIDE = Path("/run/asi")  # where the wrapper lies inside a sandbox
SYSTEM_LINKS = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
HARMLESS_DEVICES = tuple(f"/dev/{name}" for name in ("null", "zero", "full", "random", "urandom"))
GPU_DEVICES = ("/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools", "/dev/nvidia-modeset", "/dev/nvidia-caps")
GUEST_RANGES = ((1_900_000_000, 2**24), (60_000, 4_000))  # user ids that nobody has; the first that is mapped
UNSHARED = ("--fork", "--pid", "--kill-child=KILL", "--net", "--ipc", "--uts", "--mount", "--mount-proc")
OWN_SHARED_MEMORY = 'mount -t tmpfs -o "size=$0m,mode=1777,nosuid,nodev" tmpfs /dev/shm && exec "$@"'
NAMESPACES = ("--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try")


class SandboxSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What to run and what it may use.

    workdir: the only folder it may write to, at the same path inside.
    read_only: further files and folders it may read, at the same path inside.
    disk_mb: largest single file, and largest sum over the workdir.
    log_mb: most that it may print.
    processes: processes and threads together; processes that stay near it are taken for a fork bomb.
    cpu_seconds: over the whole tree.
    gpus: indices of the NVIDIA devices it is granted.
    pass_fds: file descriptors it inherits, under the same numbers.
    log: file for standard output and error (appended); None discards them.
    """

    id: str
    argv: tuple[str, ...]
    workdir: Path
    kind: str = "trial"
    read_only: tuple[Path, ...] = ()
    environment: dict[str, str] = {}
    memory_mb: int = 2048
    disk_mb: int = 512
    log_mb: int = 8
    processes: int = 128
    cpu_seconds: int = 3600
    gpus: tuple[int, ...] = ()
    pass_fds: tuple[int, ...] = ()
    log: Path | None = None


class Isolation(msgspec.Struct, frozen=True):
    """The means of containment that work here.

    bwrap: path of bubblewrap; empty when there is none or it fails.
    unshare: path of util-linux's `unshare`, used without bubblewrap; empty when it is not needed or fails.
    guest_uid: the first of the user ids that root gives to sandboxes; None when the engine is not root.
    landlock_abi: 0 without Landlock.
    filter: the system-call filter in hexadecimal; empty without seccomp.
    trouble: why something is missing, one line each.
    """

    bwrap: str = ""
    unshare: str = ""
    disable_userns: bool = False
    guest_uid: int | None = None
    guest_count: int = 0
    landlock_abi: int = 0
    filter: str = ""
    cgroup: cgroup.Cgroup | None = None
    trouble: tuple[str, ...] = ()

    @property
    def ceiling(self) -> int:
        """The level that these means can reach; what is claimed is what the attack probe measures."""
        if self.bwrap:
            return 3 if self.cgroup and self.cgroup.limits else 2
        return 1 if self.landlock_abi and self.filter else 0

    @classmethod
    def detect(cls) -> Isolation:
        """Try everything once. Blocks for some tens of milliseconds; call it on the main thread."""
        uid, count = _guest_range() if os.geteuid() == 0 else (None, 0)
        program = seccomp.program().hex()
        base = cls(guest_uid=uid, guest_count=count, landlock_abi=landlock.abi(), filter=program, cgroup=cgroup.find())
        path = shutil.which("bwrap", path="/usr/bin:/bin:/usr/local/bin")
        if path is None:
            return base._without_bubblewrap("bubblewrap (bwrap) is not installed")
        trouble: list[str] = []
        candidates = [msgspec.structs.replace(base, bwrap=path, disable_userns=disable) for disable in (True, False)]
        if uid is not None:
            # Root inside a user namespace stays the machine's root to some limits; better than no namespaces.
            candidates.append(msgspec.structs.replace(candidates[0], guest_uid=None))
        for candidate in candidates:
            problem = candidate._try()
            if not problem:
                return candidate
            trouble.append(problem)
        return base._without_bubblewrap(f"bubblewrap fails: {trouble[-1]}")

    def _without_bubblewrap(self, why: str) -> Isolation:
        """The next best: namespaces by `unshare`, which leave the files to Landlock alone; else none."""
        path = shutil.which("unshare", path="/usr/bin:/bin")
        if path is None:
            return msgspec.structs.replace(self, trouble=(why, "unshare (util-linux) is not installed"))
        candidate = msgspec.structs.replace(self, unshare=path, trouble=(why,))
        problem = candidate._try()
        return msgspec.structs.replace(self, trouble=(why, f"unshare fails: {problem}")) if problem else candidate

    def _try(self) -> str:
        """Start Python inside the namespaces; returns what went wrong."""
        command = self.namespace_arguments()
        if self.bwrap:
            command += [*system_arguments(64), "--remount-ro", "/", "--"]
        uid = self.guest("")
        code = "" if uid is None else f"import os; os.setresuid({uid}, {uid}, {uid})"
        command += [sys.executable, "-I", "-S", "-c", code]
        try:
            done = subprocess.run(command, capture_output=True, timeout=20, env={}, stdin=subprocess.DEVNULL, cwd="/")
        except (OSError, subprocess.TimeoutExpired) as error:
            return str(error)
        lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
        return "" if done.returncode == 0 else (lines[-1] if lines else f"exit code {done.returncode}")

    def guest(self, identifier: str) -> int | None:
        """The user id of one sandbox, its own where possible, so that limits per user are limits per sandbox."""
        if self.guest_uid is None or not self.bwrap:
            return None  # without mount namespaces, another user could not even reach root's folders
        return self.guest_uid + zlib.crc32(identifier.encode()) % self.guest_count

    def namespace_arguments(self, tmpfs_mb: int = 64) -> list[str]:
        """bubblewrap (or `unshare`) with its namespaces and capabilities, up to where mounts or the program follow."""
        if not self.bwrap:
            setpriv = shutil.which("setpriv", path="/usr/bin:/bin")
            # The guard ends what the engine leaves behind; the kernel does so at once.
            dying = [setpriv, "--pdeathsig", "KILL"] if setpriv else []
            user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]  # as root, it may mount
            return [*dying, self.unshare, *user, *UNSHARED, "--", "/bin/sh", "-c", OWN_SHARED_MEMORY, str(tmpfs_mb)]
        arguments = [self.bwrap, *NAMESPACES, "--die-with-parent", "--new-session", "--clearenv", "--cap-drop", "ALL"]
        if self.guest_uid is not None:
            # Started by root: real namespaces, and just the power to become somebody else.
            return [*arguments, "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
        return [*arguments, "--unshare-user", *(["--disable-userns"] if self.disable_userns else [])]

    def command(self, spec: SandboxSpec, environment: dict[str, str], gate: int, status: int, block: int) -> list[str]:
        """The whole command line: bubblewrap where there is one, the wrapper, the program."""
        here = Path(__file__).resolve().parent
        python = [sys.executable, "-I", "-S"]
        wrapper = marshal.dumps(self._wrapper_spec(spec, environment, gate)).hex()
        if not self.bwrap:
            outside = self.namespace_arguments(tmpfs_mb(spec)) if self.unshare else []
            return [*outside, *python, str(here / "wrapper.py"), wrapper]
        arguments = [*self.namespace_arguments(), *system_arguments(tmpfs_mb(spec))]
        for index in spec.gpus:
            arguments += ["--dev-bind-try", f"/dev/nvidia{index}", f"/dev/nvidia{index}"]
        for device in GPU_DEVICES if spec.gpus else ():
            arguments += ["--dev-bind-try", device, device]
        system = "/sys" if spec.gpus else "/sys/devices/system/cpu"
        arguments += ["--ro-bind-try", system, system]
        for path in (*VISIBLE_CODE, *spec.read_only):
            arguments += bind("--ro-bind-try", path.resolve(), path)
        for name in WRAPPER_FILES:
            arguments += bind("--ro-bind", here / name, INSIDE / name)
        arguments += [*bind("--bind", spec.workdir, spec.workdir), "--remount-ro", "/"]
        arguments += ["--json-status-fd", str(status), "--block-fd", str(block), "--"]
        return [*arguments, *python, str(INSIDE / "wrapper.py"), wrapper]

    def _wrapper_spec(self, spec: SandboxSpec, environment: dict[str, str], gate: int) -> dict[str, Any]:
        megabyte = 2**20
        limits = {
            "CORE": 0,
            "FSIZE": spec.disk_mb * megabyte,
            "CPU": spec.cpu_seconds + 5,
            "NPROC": spec.processes,
            "NOFILE": 4096,
            "MSGQUEUE": 0,
        }
        if not spec.gpus:  # CUDA reserves far more than it uses
            limits["DATA"] = spec.memory_mb * megabyte
        return {
            "argv": list(spec.argv),
            "environment": environment,
            "workdir": str(spec.workdir),
            "gate": gate,
            "shim": not self.bwrap,
            "launcher": 0 if self.unshare else os.getpid(),
            "uid": self.guest(spec.id),
            "limits": limits,
            "landlock": self._file_rules(spec) if self.landlock_abi else None,
            "seccomp": self.filter,
        }

    def _file_rules(self, spec: SandboxSpec) -> dict[str, list[str]]:
        devices = [*HARMLESS_DEVICES, "/dev/shm"]
        if spec.gpus:
            devices += [*GPU_DEVICES, *(f"/dev/nvidia{index}" for index in spec.gpus)]
        if self.bwrap:
            # Its own /proc shows nobody else, and CUDA names its threads there.
            return {"read": ["/"], "write": [str(spec.workdir), "/tmp", "/proc", *devices]}
        readable = ["/usr", "/proc", "/sys/devices/system/cpu", *SYSTEM_LINKS, "/etc/ld.so.cache", "/etc/alternatives"]
        readable += [str(path) for path in (*python_folders(), *VISIBLE_CODE, *spec.read_only)]
        return {"read": readable, "write": [str(spec.workdir), *devices]}


def tmpfs_mb(spec: SandboxSpec) -> int:
    """The size of a sandbox's own /dev/shm, and of its /tmp: memory as well, and counted with the rest."""
    return max(16, spec.memory_mb // 4)


def python_folders() -> list[Path]:
    """The folders that the running interpreter and its packages live in, outermost first, without `/usr`."""
    folders = {Path(prefix) for prefix in (sys.prefix, sys.base_prefix, sys.exec_prefix)}
    folders |= {folder.resolve() for folder in folders}
    folders.add(Path(os.path.realpath(sys.executable)).parent.parent)
    outside = [folder for folder in folders if folder != Path("/") and not folder.is_relative_to("/usr")]
    return sorted(outside, key=lambda folder: len(folder.parts))


def system_arguments(tmpfs_mb: int) -> list[str]:
    """The read-only system, the interpreter, and fresh /proc, /dev, /dev/shm and /tmp of bounded size."""
    size = str(tmpfs_mb * 2**20)
    arguments = ["--ro-bind", "/usr", "/usr"]
    for link in SYSTEM_LINKS:
        if os.path.islink(link):
            arguments += ["--symlink", os.readlink(link), link]
        elif os.path.isdir(link):
            arguments += ["--ro-bind", link, link]
    for path in ("/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/alternatives"):
        arguments += ["--ro-bind-try", path, path]
    arguments += ["--proc", "/proc", "--dev", "/dev", "--perms", "1777", "--size", size, "--tmpfs", "/dev/shm"]
    arguments += ["--perms", "1777", "--size", size, "--tmpfs", "/tmp"]
    for folder in python_folders():
        arguments += bind("--ro-bind", folder.resolve(), folder)
    return arguments


def bind(kind: str, source: Path, target: Path) -> list[str]:
    """Mount a file or folder; the folders above it are made so that a sandbox that left uid 0 can pass them."""
    arguments = []
    for folder in reversed(target.parents[:-1]):
        arguments += ["--perms", "0755", "--dir", str(folder)]
    return [*arguments, kind, str(source), str(target)]


def _guest_range() -> tuple[int | None, int]:
    """User ids for sandboxes that this (possibly itself contained) root can switch to."""
    with contextlib.suppress(OSError, ValueError):
        rows = [[int(field) for field in line.split()] for line in Path("/proc/self/uid_map").read_text().splitlines()]
        for first, count in GUEST_RANGES:
            if any(inside <= first and first + count <= inside + length for inside, _, length in rows):
                return first, count
    return None, 0
