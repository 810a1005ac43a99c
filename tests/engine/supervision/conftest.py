"""Real sandboxes for the tests: skipped, with the reason, where this machine cannot make them."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from engine.client import processes
from engine.client.rundir import RunPaths, run_mark_entry
from engine.supervision.isolation import Isolation, SandboxSpec
from engine.supervision.sandbox import Exit, Launcher

Run = Callable[..., Awaitable[tuple[Exit, str]]]


@pytest.fixture(scope="session")
def means() -> Isolation:
    return Isolation.detect()


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """A run directory; afterwards nothing of the run may be alive."""
    folder = tmp_path / "run"
    RunPaths(folder).create()
    yield folder
    assert processes.marked({run_mark_entry(folder)}) == {}


@pytest.fixture
def launcher(root: Path, means: Isolation) -> Launcher:
    if not means.bwrap:
        pytest.skip(f"bubblewrap does not work here: {means.trouble}")
    return Launcher(root, means)


@pytest.fixture
def bare_launcher(root: Path, means: Isolation) -> Launcher:
    """Without namespaces: the level below."""
    return Launcher(root, msgspec.structs.replace(means, bwrap="", unshare=""))


@pytest.fixture
def unshare_launcher(root: Path, means: Isolation) -> Launcher:
    """Without bubblewrap, with namespaces by `unshare`."""
    without = msgspec.structs.replace(means, bwrap="", unshare="")._without_bubblewrap("left out")
    if not without.unshare:
        pytest.skip(f"unshare does not work here: {without.trouble}")
    return Launcher(root, without)


def python(code: str, identifier: str = "t", root: Path = Path("/"), **limits: object) -> SandboxSpec:
    """A sandbox that runs a piece of Python."""
    return msgspec.convert(
        {
            "id": identifier, "argv": [sys.executable, "-I", "-S", "-c", code], "cpu_seconds": 60, "memory_mb": 512,
            "workdir": root / "trials" / identifier, "log": root / f"{identifier}.log", **limits,
        },
        SandboxSpec,
        dec_hook=lambda kind, value: kind(value),
    )  # fmt: skip


@pytest.fixture
def run(launcher: Launcher) -> Run:
    async def run_code(code: str, identifier: str = "t", **limits: object) -> tuple[Exit, str]:
        process = await launcher.start(python(code, identifier, launcher.run_root, **limits))
        ended = await process.wait()
        assert process.proved
        return ended, (launcher.run_root / f"{identifier}.log").read_text()

    return run_code
