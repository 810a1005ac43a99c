"""Starting untrusted programs, contained and registered, and looking after them until they are proved dead.

A program runs only after its record is on the disk: bubblewrap waits on one pipe, the wrapper inside on another. A
launch looks at the latch before it starts anything and again after registration, so a launch that races the emergency
stop loses. Children are spawned on the event loop's own main thread, because the kernel's parent-death signal belongs
to the thread that spawned.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import msgspec

from engine.client import processes
from engine.client.freeze import FreezeReport, freeze_records, thaw_records
from engine.client.kill import Row, Strike, kill_sandboxes
from engine.client.records import SANDBOX_MARK, Record, read_latch
from engine.client.rundir import RUN_MARK, RunPaths, run_mark
from engine.supervision import cgroup, folders, registry, usage
from engine.supervision.cgroup import Group
from engine.supervision.isolation import PROJECT, Isolation, SandboxSpec
from engine.supervision.pipes import Pipe, receive, wait_child
from engine.supervision.usage import Usage
from engine.supervision.watching import MACHINE, Allowance, LimitWatch, shorten

__all__ = ["Exit", "Isolation", "Latched", "LaunchFailed", "Launcher", "SandboxProcess", "SandboxSpec", "Usage"]

STATUS_DEADLINE = 30.0  # seconds until bubblewrap must have told its child's pid
OWN_NUMBERS = {97: "the launcher never let it start", 98: "a protection could not be applied; its log says which"}


class LaunchFailed(RuntimeError):
    """The sandbox could not be started; the message is one line."""


class Latched(LaunchFailed):
    """The emergency stop is latched: nothing may start."""


class Exit(msgspec.Struct, frozen=True):
    """How a sandbox ended.

    code: exit code; None when a signal ended it.
    signal: the signal's number; None when it exited.
    reason: why the watch killed it, or what the sandbox itself has to say; empty when it ended by itself.
    """

    code: int | None
    signal: int | None
    reason: str = ""

    @property
    def ok(self) -> bool:
        """Whether it ended by itself with exit code 0."""
        return self.code == 0 and not self.reason


class SandboxProcess:
    """A running sandbox.

    `pid` is the outermost process, `init_pid` the first one inside; `proved` becomes true when, at its end, nothing of
    it is left for certain.
    """

    def __init__(
        self,
        launcher: Launcher,
        spec: SandboxSpec,
        child: subprocess.Popen[bytes],
        record: Record,
        status: int,
        group: Group | None,
    ) -> None:
        self.spec = spec
        self.record = record
        self.pid = record.outer_pid
        self.init_pid = record.init_pid
        self.level = record.level
        self.started = time.monotonic()
        self.proved = False
        self._launcher = launcher
        self._child, self._status, self._group = child, status, group
        self._reason = ""
        allowance = msgspec.convert(spec, Allowance, from_attributes=True)
        self._limits = LimitWatch(record, allowance, spec.workdir, spec.log, group)
        self._watching = asyncio.create_task(self._watch())
        self._ending = asyncio.create_task(self._attend())

    async def wait(self) -> Exit:
        """Wait until it has ended and the whole tree is proved dead."""
        return await asyncio.shield(self._ending)

    def usage(self) -> Usage:
        """Memory, CPU time and processes now; zeros once it has ended."""
        return self._limits.usage()

    def peak(self) -> Usage:
        """The largest values that the watch has seen."""
        return self._limits.peak

    async def kill(self, reason: str = "", deadline: float = 10.0) -> Exit:
        """Kill the whole tree now and wait for the proof (see `proved`), at most about twice `deadline` seconds."""
        self._reason = self._reason or reason
        await asyncio.to_thread(kill_sandboxes, [self.record], deadline)
        try:
            async with asyncio.timeout(deadline):
                return await self.wait()
        except TimeoutError:
            return Exit(None, signal.SIGKILL, f"{self._reason}; its death could not be proved".removeprefix("; "))

    async def freeze(self) -> FreezeReport:
        """Stop every process in place; memory is kept."""
        return await asyncio.to_thread(freeze_records, [self.record])

    async def thaw(self) -> FreezeReport:
        """Let it go on after `freeze`."""
        return await asyncio.to_thread(thaw_records, [self.record])

    async def _attend(self) -> Exit:
        """Wait for the outermost process, then prove that nothing is left, then forget the record."""
        code = await wait_child(self._child)
        os.close(self._status)
        row = await asyncio.to_thread(_settle, self.record)
        self._watching.cancel()
        # A shim that ended by itself did so after its last child; one that was killed proves nothing.
        self.proved = row.proved or (not self.record.pid_namespace and code >= 0)
        if self.proved:
            with contextlib.suppress(OSError):  # a full or read-only disk: the next kill finds it dead and forgets it
                registry.forget(self._launcher.run_root, self.record.id)
        reason = self._reason or OWN_NUMBERS.get(code, "")
        if self._group is not None:
            reason = reason or self._limits.kernel_memory()
            self._group.remove()
        reason = reason or await asyncio.to_thread(self._limits.left_behind)
        if self.spec.log is not None:
            with contextlib.suppress(OSError):  # one that cannot be cut is long, and no more
                await asyncio.to_thread(shorten, self.spec.log, self.spec.log_mb * 2**20)
        if code < 0 or code > 128:
            number = -code if code < 0 else code - 128
            return Exit(None, number, reason)
        return Exit(code, None, reason)

    async def _watch(self) -> None:
        """Kill it when it overruns what it may use."""
        while True:
            try:
                problem = await asyncio.to_thread(self._limits.look)
            except Exception as error:  # whatever it was: what nobody watches must not run
                problem = f"{MACHINE}its limits cannot be watched ({type(error).__name__}: {error})"
            if problem:
                self._reason = self._reason or problem
                Strike(self.record).close()
            await asyncio.sleep(self._limits.pause)


class Launcher:
    """Starts sandboxes for one run.

    Args:
        run_root: the run directory; its `procs/` must exist.
        isolation: what the machine offers.
        level: the measured isolation level that is written into records; by default what the means can reach.
    """

    def __init__(self, run_root: Path, isolation: Isolation, level: int | None = None) -> None:
        self.run_root = run_root.resolve()
        self.isolation = isolation
        self.level = isolation.ceiling if level is None else level

    async def start(self, spec: SandboxSpec) -> SandboxProcess:
        """Start a program in a sandbox.

        Raises:
            Latched: the emergency stop is latched, before or during the launch.
            LaunchFailed: anything else that kept it from starting; nothing is left behind.
        """
        self._check(spec)
        workdir = spec.workdir.resolve()
        spec = msgspec.structs.replace(spec, workdir=workdir)
        try:
            workdir.mkdir(mode=0o700, parents=True, exist_ok=True)
            _check_disk(spec)
            self._hand_over(spec)
        except OSError as error:
            raise LaunchFailed(f"sandbox {spec.id} did not start: {error}") from None
        with Pipe(socket_pair=True) as gate, Pipe() as status, Pipe() as block:
            command = self.isolation.command(spec, self._environment(spec), gate.read, status.write, block.read)
            own = (gate.read, status.write, block.read) if self.isolation.bwrap else (gate.read,)
            child = self._spawn(spec, command, (*spec.pass_fds, *own))
            gate.close(gate.read)
            status.close(status.write)
            block.close(block.read)
            record = group = None
            try:
                init, inode = await self._first_inside(child, status.read, gate.write)
                group = self._join_cgroup(spec, child.pid, init)
                path = group.path if group else None
                record = registry.describe(self.run_root, spec.id, spec.kind, child.pid, init, inode, path, self.level)
                await asyncio.to_thread(registry.register, self.run_root, record)
                if self.isolation.bwrap:
                    os.write(block.write, b"go")
                    # From its word on, everything outside the wrapper is set to die with us; before, it must wait.
                    await _hear_wrapper(gate.write)
                self._check_latch()
                os.write(gate.write, b"go")
            except BaseException as error:
                await self._abandon(spec, child, record)
                if group is not None:
                    group.remove()
                if isinstance(error, (OSError, TimeoutError, EOFError, ValueError)):
                    raise LaunchFailed(f"sandbox {spec.id} did not start: {_tail(spec.log) or error}") from None
                raise
            # bubblewrap reports the end on this pipe as well, and would die of it if nobody could read.
            return SandboxProcess(self, spec, child, record, os.dup(status.read), group)

    async def _first_inside(self, child: subprocess.Popen[bytes], status: int, gate: int) -> tuple[int, int]:
        """The init of the sandbox's pid namespace and the namespace's inode; without one, the shim and 0."""
        if self.isolation.bwrap:
            async with asyncio.timeout(STATUS_DEADLINE):
                return await _read_status(status)
        await _hear_wrapper(gate)
        if not self.isolation.unshare:
            return child.pid, 0
        init = _only_child(child.pid)
        return init, processes.pid_namespace(init)

    def _check(self, spec: SandboxSpec) -> None:
        if threading.current_thread() is not threading.main_thread():
            raise LaunchFailed("sandboxes start on the main thread only: they die with the thread that starts them")
        if not registry.VALID_ID.fullmatch(spec.id):
            raise LaunchFailed(f"{spec.id!r} is no valid sandbox id")
        if not os.path.isabs(spec.argv[0]):
            raise LaunchFailed(f"{spec.argv[0]!r} is no absolute path")
        if (RunPaths(self.run_root).procs / f"{spec.id}.json").exists():
            raise LaunchFailed(f"a sandbox {spec.id} is registered already")
        self._check_latch()

    def _hand_over(self, spec: SandboxSpec) -> None:
        """Where root starts sandboxes under other user ids: give the folder away, and see that the rest is readable."""
        guest = self.isolation.guest(spec.id)
        if guest is None:
            return
        folders.hand_over(spec.workdir, guest)
        for path in spec.read_only:
            if path.exists() and not path.stat().st_mode & 0o004:
                raise LaunchFailed(f"{path} must be readable by everybody: sandboxes run under a user id of their own")

    def _check_latch(self) -> None:
        latch = read_latch(self.run_root)
        if latch is not None:
            raise Latched(f"the emergency stop is latched (by {latch.actor}: {latch.reason}); `asi rearm` releases it")

    def _environment(self, spec: SandboxSpec) -> dict[str, str]:
        """Built from nothing: no key or token of ours can reach a child."""
        workdir = str(spec.workdir)
        return {
            "PATH": "/usr/bin:/bin",
            "HOME": workdir,
            "TMPDIR": workdir,
            "USER": "asi",
            "LANG": "C.UTF-8",
            "PYTHONPATH": str(PROJECT.parent),  # of which only the domain's part is visible
            "PYTHONDONTWRITEBYTECODE": "1",
            "OMP_NUM_THREADS": "1",
            "MKL_NUM_THREADS": "1",
            "TORCHDYNAMO_DISABLE": "1",
            "CUDA_VISIBLE_DEVICES": ",".join(map(str, range(len(spec.gpus)))),
            **spec.environment,
            **self._marks(spec),
        }

    def _marks(self, spec: SandboxSpec) -> dict[str, str]:
        return {RUN_MARK: run_mark(self.run_root), SANDBOX_MARK: spec.id}

    def _spawn(self, spec: SandboxSpec, command: list[str], inherited: tuple[int, ...]) -> subprocess.Popen[bytes]:
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
            log = os.open(spec.log, flags, 0o600) if spec.log else os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
            try:
                return subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=inherited, cwd="/",
                    env=self._marks(spec), start_new_session=True,
                )  # fmt: skip
            finally:
                os.close(log)
        except (OSError, ValueError) as error:
            raise LaunchFailed(f"sandbox {spec.id} did not start: {error}") from None

    def _join_cgroup(self, spec: SandboxSpec, outer: int, init: int) -> Group | None:
        parent = self.isolation.cgroup
        if parent is None or outer == init:  # a shim must outlive its tree to prove the end of it
            return None
        group = cgroup.create(parent, f"{self._group_prefix}{spec.id}", spec.memory_mb, spec.processes)
        if group is not None:
            # All of them wait for permission, so no process of the tree can stay outside.
            for pid in processes.tree(outer):
                group.add(pid)
        return group

    @property
    def _group_prefix(self) -> str:
        return f"{cgroup.PREFIX}{run_mark(self.run_root)[:8]}-"

    def sweep_groups(self) -> None:
        """Remove the cgroups that an engine of this run which died has left."""
        if self.isolation.cgroup is not None:
            cgroup.sweep(self.isolation.cgroup, self._group_prefix)

    async def _abandon(self, spec: SandboxSpec, child: subprocess.Popen[bytes], record: Record | None) -> None:
        """Undo a launch that never got permission: only our own code has run in it."""
        child.kill()
        await wait_child(child)
        if record is not None:
            await asyncio.to_thread(_settle, record)
        with contextlib.suppress(OSError):
            registry.forget(self.run_root, spec.id)


def _check_disk(spec: SandboxSpec) -> None:
    """Raises LaunchFailed when the disk has no room for what the sandbox may write."""
    free = usage.free_bytes(spec.workdir)
    if free < usage.KEPT_FREE + spec.disk_mb * 2**20:
        raise LaunchFailed(f"sandbox {spec.id} did not start: the disk has {free >> 20} MB left")


def _settle(record: Record) -> Row:
    """The outermost process has ended: make sure that the rest has too."""
    return kill_sandboxes([record], 5.0)[0]


def _only_child(pid: int) -> int:
    """The one child of a process. Raises ValueError when there is none, or more."""
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text())


async def _hear_wrapper(gate: int) -> None:
    """Wait for the wrapper's word that it is there. Raises EOFError when it has ended instead."""
    async with asyncio.timeout(STATUS_DEADLINE):
        word = await receive(gate)
    if not word:
        raise EOFError("it ended before its program")


async def _read_status(descriptor: int) -> tuple[int, int]:
    """bubblewrap's first status line: the pid of its child and the inode of the child's pid namespace.

    Raises:
        EOFError: bubblewrap ended before it said so.
        ValueError: it said something else.
    """
    received = b""
    while b"\n" not in received:
        chunk = await receive(descriptor)
        if not chunk:
            raise EOFError("bubblewrap ended early")
        received += chunk
    content: dict[str, Any] = json.loads(received.split(b"\n", 1)[0])
    init = int(content["child-pid"])
    return init, processes.pid_namespace(init) or int(content["pid-namespace"])


def _tail(log: Path | None) -> str:
    """The last line of a log, for a message."""
    if log is None:
        return ""
    with contextlib.suppress(OSError), open(log, "rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - 500))
        lines = file.read().decode("utf-8", "replace").strip().splitlines()
        return lines[-1] if lines else ""
    return ""
