"""Measuring the isolation level: the attacks of `probe.py`, run inside the real launcher against real targets."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from engine.client import processes
from engine.supervision import folders, probe, sandbox
from engine.supervision.isolation import SandboxSpec

PROBE = Path(probe.__file__).resolve()
NAMES = [attack.__name__ for attack in probe.ATTACKS]
ANSWERED_BY_WATCH = (("fork_bomb", "processes"), ("many_files", "disk"))  # and how the watch begins to say so
DEADLINE = 60.0
MEMORY_MB, PROCESSES, DISK_MB = 512, 48, 32
# Without namespaces these cannot be stopped for certain; any other success means that there is no isolation.
OPEN_WITHOUT_NAMESPACES = {"other_processes", "unix_path", "daemon", "fork_bomb", "unix_abstract", "signal_outside"}
POLLED = {"many_files"}  # answered by a watch, which a machine under load can keep from its work
SHARED_WITH_ROOT = {"fork_bomb", "privilege"}  # inside namespaces, for a root that could not leave its user id


class Attack(msgspec.Struct, frozen=True):
    """One attack: whether it was stopped, and by what or how far it came."""

    attack: str
    stopped: bool
    detail: str


class IsolationReport(msgspec.Struct, frozen=True):
    """The measured level (0 to 3), attack by attack, and what would raise it; `advice` is one line or empty."""

    level: int
    attacks: list[Attack]
    advice: str
    seconds: float

    @property
    def name(self) -> str:
        """The level as it is shown: `L2`."""
        return f"L{self.level}"

    @property
    def succeeded(self) -> list[str]:
        """The attacks that were not stopped."""
        return [attack.attack for attack in self.attacks if not attack.stopped]


async def measure(launcher: sandbox.Launcher) -> IsolationReport:
    """Attack sandboxes from inside and compute their level; takes about a second.

    Raises:
        LaunchFailed: a sandbox could not be started at all.
    """
    begin = time.monotonic()
    with _targets() as (targets, datagrams):
        # What the watch answers by killing would take the other attacks with it: each has a sandbox of its own.
        alone = [[name] for name, _ in ANSWERED_BY_WATCH]
        together = [name for name in NAMES if [name] not in alone]
        found = await asyncio.gather(*(_probe(launcher, targets, datagrams, names) for names in (together, *alone)))
    attacks = sorted((attack for part in found for attack in part), key=lambda attack: NAMES.index(attack.attack))
    level = level_of(launcher.isolation.ceiling, attacks)
    return IsolationReport(level, attacks, advice(launcher.isolation, level), time.monotonic() - begin)


async def _probe(
    launcher: sandbox.Launcher, targets: dict[str, Any], datagrams: socket.socket, names: list[str]
) -> list[Attack]:
    """Try these attacks from inside one sandbox."""
    identifier = f"probe-{secrets.token_hex(4)}"
    workdir = launcher.run_root / "trials" / identifier
    try:
        workdir.mkdir(mode=0o700, parents=True)
        # Through a file: on a command line the token would be visible inside, and look like a process outside.
        (workdir / "targets.json").write_bytes(msgspec.json.encode(targets))
        os.chmod(workdir / "targets.json", 0o644)
        argv = (sys.executable, "-I", "-S", str(PROBE), *names)
        spec = SandboxSpec(
            id=identifier, kind="probe", argv=argv, workdir=workdir, read_only=(PROBE,),
            memory_mb=MEMORY_MB, processes=PROCESSES, disk_mb=DISK_MB, cpu_seconds=60,
        )  # fmt: skip
        process = await launcher.start(spec)
        attacks, as_root = await _await_results(process, workdir / "attacks.json", names)
        dead = await _proved_dead(process)
        return [_judge(attack, datagrams, as_root, dead) for attack in attacks]
    finally:
        await asyncio.to_thread(folders.remove, workdir)


def level_of(ceiling: int, attacks: list[Attack]) -> int:
    """The level that the means can reach, lowered by each attack that succeeded."""
    succeeded = {attack.attack for attack in attacks if not attack.stopped}
    if succeeded - OPEN_WITHOUT_NAMESPACES - SHARED_WITH_ROOT - POLLED:
        return 0
    return min(ceiling, 1) if succeeded else ceiling


def advice(isolation: sandbox.Isolation, level: int) -> str:
    """The one line that would raise the level on this machine; empty at the top."""
    if level >= 3:
        return ""
    if level == 2:
        if not Path("/run/systemd/system").is_dir():
            return "let this user make cgroups with the memory and pids controllers (version 1 or 2)"
        return f"start with: systemd-run {'' if os.geteuid() == 0 else '--user '}--scope -p Delegate=yes asi run"
    if shutil.which("bwrap") is None:
        for manager, line in (("apt-get", "apt-get install"), ("dnf", "dnf install"), ("pacman", "pacman -S")):
            if shutil.which(manager):
                return f"{line} bubblewrap   (as root)"
        return "install bubblewrap"
    for path, refusing, line in (
        (
            "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
            "1",
            "kernel.apparmor_restrict_unprivileged_userns=0",
        ),
        ("/proc/sys/kernel/unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone=1"),
        ("/proc/sys/user/max_user_namespaces", "0", "user.max_user_namespaces=10000"),
    ):
        with contextlib.suppress(OSError):
            if os.geteuid() != 0 and Path(path).read_text().strip() == refusing:  # root needs no user namespace
                return f"sysctl -w {line}   (as root; lets bubblewrap make user namespaces)"
    if isolation.trouble:
        return isolation.trouble[0]
    return "run the engine as an ordinary user" if os.geteuid() == 0 else ""


@contextlib.contextmanager
def _targets() -> Iterator[tuple[dict[str, Any], socket.socket]]:
    """Things worth attacking: a secret file, services of every kind, a process with a secret in its environment."""
    token, secret = secrets.token_hex(12), secrets.token_hex(12)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="asi-target-")))
        (folder / "secret").write_text(secret)
        os.chmod(folder / "secret", 0o600)
        tcp = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        udp = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        udp.bind(("127.0.0.1", 0))
        udp.setblocking(False)
        by_path = stack.enter_context(socket.socket(socket.AF_UNIX))
        by_path.bind(str(folder / "socket"))
        by_path.listen()
        abstract = stack.enter_context(socket.socket(socket.AF_UNIX))
        abstract.bind("\0asi-" + token)
        abstract.listen()
        victim = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", "import time; time.sleep(60)", token],
            env={"SECRET": secret}, stdin=subprocess.DEVNULL, cwd="/",
        )  # fmt: skip
        stack.callback(victim.wait)
        stack.callback(victim.kill)
        yield {
            "token": token, "environment_secret": secret, "victim": victim.pid, "outside": str(folder),
            "secret": str(folder / "secret"), "unix": str(folder / "socket"), "abstract": "asi-" + token,
            "tcp": tcp.getsockname()[1], "udp": udp.getsockname()[1], "memory_mb": MEMORY_MB,
            "processes": PROCESSES, "disk_mb": DISK_MB,
        }, udp  # fmt: skip


async def _await_results(process: sandbox.SandboxProcess, path: Path, names: list[str]) -> tuple[list[Attack], bool]:
    """The probe's own account, strictly parsed, and whether it is the machine's root.

    An attack without a result counts as not stopped.
    """
    as_root: bool | None = None
    ended = asyncio.create_task(process.wait())
    until = time.monotonic() + DEADLINE
    found: dict[str, Attack] = {}
    while len(found) < len(names) and time.monotonic() < until:
        over = ended.done()
        found = _read_results(path)
        if found and as_root is None:
            as_root = _runs_as_root(process)
        if over:
            break
        await asyncio.sleep(0.01)
    if ended.done():
        reason = ended.result().reason
        for name, beginning in ANSWERED_BY_WATCH:
            if name in names and reason.startswith(beginning):
                found[name] = Attack(name, True, f"killed by the watch ({reason})")
    attacks = [found.get(name, Attack(name, False, "the probe gave no result")) for name in names]
    return attacks, os.geteuid() == 0 if as_root is None else as_root


def _read_results(path: Path) -> dict[str, Attack]:
    """Results so far; empty while there are none that can be read."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            attacks = msgspec.json.decode(file.read(65_536), type=list[Attack])
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return {}
    return {attack.attack: attack for attack in attacks}


async def _proved_dead(process: sandbox.SandboxProcess) -> bool:
    """Kill the probe; whether it and all that it left behind are proved dead."""
    row = (await asyncio.to_thread(sandbox.kill_sandboxes, [process.record], 5.0))[0]
    await process.wait()
    return row.proved or process.proved


def _runs_as_root(process: sandbox.SandboxProcess) -> bool:
    """Whether the probe has the user id 0 as seen from outside; inside, a user namespace can call it anything."""
    for pid in processes.tree(process.init_pid):
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[1:4] == [b"-I", b"-S", os.fsencode(PROBE)]:
                return os.stat(f"/proc/{pid}").st_uid == 0
    return os.geteuid() == 0


def _judge(attack: Attack, datagrams: socket.socket, as_root: bool, dead: bool) -> Attack:
    """Replace the attacker's opinion by ours where the outside knows better."""
    if attack.attack == "udp" and not attack.stopped:
        try:
            datagrams.recv(64)
        except BlockingIOError:
            return Attack("udp", True, "sent, and never arrived")
    if attack.attack == "privilege" and attack.stopped and as_root:
        return Attack("privilege", False, "is the machine's root, without capabilities")
    if attack.attack == "daemon":
        return Attack("daemon", dead, "dead after the kill" if dead else "its death could not be proved")
    return attack
