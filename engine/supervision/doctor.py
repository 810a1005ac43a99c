"""Examining this machine: what is installed, how well it contains and kills, and what would make it better."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

import msgspec

from engine.client.rundir import RunPaths, runs_home
from engine.supervision.attack import IsolationReport, measure
from engine.supervision.drill import DrillReport, drill
from engine.supervision.isolation import Isolation
from engine.supervision.sandbox import Launcher, LaunchFailed

LEVELS = {
    3: "isolated; the kernel limits memory and processes of the whole tree, disk use is polled",
    2: "isolated; limits of the whole tree (memory, disk) are polled ten times a second",
    1: "files and network are limited by Landlock and a system-call filter alone",
    0: "NO isolation: a program can read your files and use the network",
}
MIN_FREE_GB = 5.0


class Examination(msgspec.Struct, frozen=True):
    """Everything `asi doctor` knows. `problems` are lines that keep a run from being armed."""

    python: str
    torch: str
    kernel: str
    bwrap: str
    unshare: bool
    missing: list[str]
    landlock_abi: int
    seccomp: bool
    cgroup: str
    as_root: bool
    free_gb: float
    runs: str
    isolation: IsolationReport | None
    drill: DrillReport | None
    problems: list[str]
    agents: str = ""


async def examine() -> Examination:
    """Look at everything and run the probe and the drill, in a run directory of their own."""
    problems: list[str] = []
    means = Isolation.detect()
    report = result = None
    with tempfile.TemporaryDirectory(prefix="asi-doctor-") as folder:
        root = Path(folder) / "run"
        RunPaths(root).create()
        try:
            report = await measure(Launcher(root, means))
            result = await drill(Launcher(root, means, report.level))
        except (LaunchFailed, OSError) as error:
            problems.append(str(error))
    if report is not None and report.level == 0:
        problems.append("no isolation: " + ", ".join(report.succeeded) + " succeeded")
    if result is not None and not result.proved:
        problems.append(f"the drill did not prove the death of its tree: {result.proof}")
    torch = _version("torch")
    if not torch:
        problems.append("torch is not installed")
    home = runs_home()
    free = _free_gb(home)
    if free < MIN_FREE_GB:
        problems.append(f"only {free:.1f} GB are free at {home}")
    return Examination(
        python=platform.python_version(), torch=torch, kernel=platform.release(), bwrap=_bwrap_version(means),
        unshare=bool(means.unshare), missing=list(means.trouble),
        landlock_abi=means.landlock_abi, seccomp=bool(means.filter),
        cgroup="none" if means.cgroup is None else "limits" if means.cgroup.limits else "kill and freeze only",
        as_root=os.geteuid() == 0, free_gb=round(free, 1), runs=str(home), isolation=report, drill=result,
        problems=problems,
    )  # fmt: skip


def format_examination(found: Examination) -> str:
    """The examination as plain text for 80 columns."""
    missing = "not installed"
    lines = [
        f"python     {found.python}",
        f"torch      {found.torch or missing}",
        f"kernel     {found.kernel}{'   (running as root)' if found.as_root else ''}",
        f"bubblewrap {found.bwrap or missing}",
        *(["unshare    in place of bubblewrap; files are guarded by Landlock alone"] if found.unshare else []),
        f"landlock   {f'ABI {found.landlock_abi}' if found.landlock_abi else 'none'}",
        f"seccomp    {'yes' if found.seccomp else 'no filter for this architecture'}",
        f"cgroup     {found.cgroup}",
        f"disk       {found.free_gb} GB free at {found.runs}",
        *(f"missing    {line}" for line in found.missing),
    ]
    if found.isolation is not None:
        lines.append("")
        for attack in found.isolation.attacks:
            name = attack.attack.replace("_", " ")
            lines.append(f"  {'stopped  ' if attack.stopped else 'SUCCEEDED'}  {name:<22}  {attack.detail}"[:110])
        lines += ["", f"level      {found.isolation.name}: {LEVELS[found.isolation.level]}"]
        if found.isolation.advice:
            lines.append(f"raise it   {found.isolation.advice}")
    if found.drill is not None:
        verdict = "proved" if found.drill.proved else "NOT PROVED"
        lines.append(
            f"drill      {found.drill.processes} processes killed in {found.drill.killed_ms:.1f} ms, {verdict}"
        )
    if found.agents:
        lines.append(f"agents     {found.agents}")
    lines += [f"problem    {problem}" for problem in found.problems]
    return "\n".join(lines)


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _bwrap_version(means: Isolation) -> str:
    """The version that works, or why the one that is there does not."""
    path = means.bwrap or shutil.which("bwrap")
    if not path:
        return ""
    try:
        done = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{path} cannot be started: {error}"
    version = done.stdout.strip().removeprefix("bubblewrap ")
    return version if means.bwrap else f"{version}, but it does not work here ({'; '.join(means.trouble)})"


def _free_gb(folder: Path) -> float:
    """Free space where the folder is or would be."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free / 1e9
