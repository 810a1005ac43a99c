"""A whole run through the command: crash it, kill it, gate it, feed it cheats, and look at what is left."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import pytest

from engine.client.rundir import engine_pid
from store import events as ev
from store.journal import read
from tests.e2e.conftest import Shell, wait_for

pytestmark = [
    pytest.mark.skipif(shutil.which("bwrap") is None, reason="needs bubblewrap"),
    pytest.mark.timeout(600),
]

LEAKER = '''"""Looks one token ahead."""
import torch
from torch import nn


class Mixer(nn.Module):
    def __init__(self, d_model, n_heads, layer_idx, max_len):
        super().__init__()
        self.map = nn.Linear(d_model, d_model)

    def forward(self, x):
        ahead = torch.cat([x[:, 1:], x[:, :1]], dim=1)
        return self.map(x + ahead)
'''


def records(asi: Shell, run: str) -> list[ev.Record]:
    return list(read(asi.run_directory(run) / "journal"))


def events(asi: Shell, run: str, kind: type) -> list:
    return [record.data for record in records(asi, run) if isinstance(record.data, kind)]


def test_three_crashes_lose_nothing_and_count_nothing_twice(asi: Shell) -> None:
    root = asi.run_directory("crashed")
    argv = ["run", "crashed", "--headless", "--experiments", "3"]
    first = [*argv, "--config", str(asi.config)]
    for crash, kind in enumerate((ev.ProgramVetted, ev.TrialStarted, ev.TrialFinished), 1):
        following = asi.start(*(first if crash == 1 else argv))
        wait_for(lambda: (root / "journal").exists() and engine_pid(root))
        wait_for(lambda kind=kind, crash=crash: len(events(asi, "crashed", kind)) >= crash)
        pid = engine_pid(root)
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        following.wait(30)
        assert engine_pid(root) is None
    ended = asi(*argv)
    assert ended.returncode == 0, ended.stdout + ended.stderr

    finished = [(e.experiment, e.program, e.seed) for e in events(asi, "crashed", ev.TrialFinished)]
    assert len(finished) == len(set(finished))
    opened = {e.experiment for e in events(asi, "crashed", ev.ExperimentOpened) if e.origin != "baseline"}
    closed = [e.experiment for e in events(asi, "crashed", ev.ExperimentClosed)]
    assert len(opened) == 3
    assert opened <= set(closed)
    assert len(closed) == len(set(closed))
    over = {e.trial for kind in (ev.TrialFinished, ev.TrialFailed, ev.TrialKilled) for e in events(asi, "crashed", kind)}
    assert {e.trial for e in events(asi, "crashed", ev.TrialStarted)} <= over

    verified = asi("audit", "crashed", "--verify")
    assert verified.returncode == 0, verified.stdout
    board = json.loads(asi("leaderboard", "crashed", "--json").stdout)
    assert board == sorted(board, key=lambda row: -row["score"])
    rebuilt = asi("rebuild", "crashed")
    assert rebuilt.returncode == 0, rebuilt.stderr
    assert "3 experiments" not in rebuilt.stderr
    segment = root / "journal" / "000001.jsonl"
    content = bytearray(segment.read_bytes())
    content[len(content) // 2] ^= 1
    segment.write_bytes(content)
    torn = asi("audit", "crashed", "--verify")
    assert torn.returncode == 1
    assert "record" in torn.stdout


def test_kill_latches_until_rearmed(asi: Shell) -> None:
    root = asi.run_directory("killed")
    following = asi.start("run", "killed", "--headless", "--config", str(asi.config))
    wait_for(lambda: (root / "journal").exists() and events(asi, "killed", ev.TrialStarted))
    second = asi("run", "killed", "--experiments", "1", "--headless")
    assert second.returncode == 4
    assert str(engine_pid(root)) in second.stderr
    killed = asi("kill", "killed")
    assert killed.returncode == 0, killed.stdout + killed.stderr
    following.wait(30)
    assert following.returncode == 5
    assert engine_pid(root) is None
    refused = asi("run", "killed", "--headless")
    assert refused.returncode == 5
    assert "rearm" in refused.stderr
    rearmed = asi("rearm", "killed", "--reason", "the test goes on")
    assert rearmed.returncode == 0, rearmed.stderr
    again = asi.start("run", "killed", "--headless")
    wait_for(lambda: events(asi, "killed", ev.EngineStarted)[1:])
    wait_for(lambda: engine_pid(root))
    wait_for(lambda: events(asi, "killed", ev.RunResumed)[1:])
    assert asi("pause", "killed").returncode == 0
    assert asi("pause", "killed").returncode == 4
    assert asi("resume", "killed").returncode == 0
    assert asi("stop", "killed").returncode == 0
    assert again.wait(30) == 0
    assert [e.reason for e in events(asi, "killed", ev.RunRearmed)] == ["the test goes on"]
    assert asi("audit", "killed", "--verify").returncode == 0


def test_a_person_decides_and_a_leaker_is_caught(asi: Shell, tmp_path: Path) -> None:
    following = asi.start("run", "gated", "--headless", "--config", str(asi.config), "--policy", "cautious")
    wait_for(lambda: len(events(asi, "gated", ev.ApprovalRequested)) >= 2)
    pending = json.loads(asi("approvals", "gated", "--json").stdout)
    first, second = pending[0], pending[1]
    assert asi("reject", first["id"], "--run", "gated").returncode == 2
    assert asi("reject", first["id"], "--run", "gated", "--reason", "seen before").returncode == 0
    assert asi("approve", first["id"], "--run", "gated").returncode == 4
    assert asi("approve", second["id"], "--run", "gated").returncode == 0
    wait_for(lambda: any(e.experiment == second["experiment"] for e in events(asi, "gated", ev.TrialStarted)))
    assert not any(e.experiment == first["experiment"] for e in events(asi, "gated", ev.TrialStarted))
    launched = next(e for e in events(asi, "gated", ev.TrialStarted) if e.experiment == second["experiment"])
    assert launched.program == second["program"]

    program = tmp_path / "ahead.py"
    program.write_text(LEAKER)
    handed = asi("propose", str(program), "--run", "gated", "--motivation", "why not look ahead")
    assert handed.returncode == 0, handed.stderr
    experiment = handed.stdout.split()[0]
    wait_for(lambda: any(e.experiment == experiment for e in events(asi, "gated", ev.ExperimentClosed)))
    closed = next(e for e in events(asi, "gated", ev.ExperimentClosed) if e.experiment == experiment)
    assert closed.outcome == "failed"
    assert "causal" in closed.reason
    assert asi("stop", "gated").returncode == 0
    assert following.wait(60) == 0
