"""The real program, driven as its user would, in a home of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine.client.kill import kill_run
from engine.client.rundir import list_runs

ASI = [sys.executable, "-m", "asi_tui.main"]
SMOKE = """
[trials]
tier = "probe-smoke"
baselines = ["linear_attention"]
noise_seeds = 2
max_seeds = 2
"""


class Shell:
    """Runs `asi` in a private home."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.environment = {
            **os.environ,
            "HOME": str(home),
            "XDG_DATA_HOME": str(home / "data"),
            "XDG_CACHE_HOME": str(home / "cache"),
        }
        self.config = home / "smoke.toml"
        self.config.write_text(SMOKE)

    def __call__(self, *arguments: str, timeout: float = 240.0) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*ASI, *arguments], env=self.environment, capture_output=True, text=True, timeout=timeout, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*ASI, *arguments], env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def run_directory(self, name: str) -> Path:
        return self.home / "data" / "asi" / "runs" / name


@pytest.fixture
def asi(tmp_path: Path) -> Iterator[Shell]:
    shell = Shell(tmp_path)
    yield shell
    for root in list_runs(tmp_path / "data" / "asi" / "runs"):
        kill_run(root, actor="the test's end", reason="clean-up")


def wait_for(condition: Callable[[], object], seconds: float = 240.0) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.1)
