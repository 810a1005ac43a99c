"""What people decide about a real run, through the command: approvals that bind, holds, policies, autonomy, questions."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import pytest

from store import events as ev
from store.journal import read
from tests.e2e.conftest import SMOKE, Shell, wait_for

pytestmark = [
    pytest.mark.skipif(shutil.which("bwrap") is None, reason="needs bubblewrap"),
    pytest.mark.timeout(600),
]
UNDO = 3.0
RUN = "governed"


def events(asi: Shell, kind: type) -> list:
    journal = asi.run_directory(RUN) / "journal"
    return [r.data for r in read(journal) if isinstance(r.data, kind)] if journal.exists() else []


def launched(asi: Shell, experiment: str) -> bool:
    return any(event.experiment == experiment for event in events(asi, ev.TrialStarted))


def closed(asi: Shell, experiment: str) -> ev.ExperimentClosed | None:
    return next((event for event in events(asi, ev.ExperimentClosed) if event.experiment == experiment), None)


def pending(asi: Shell) -> list[dict]:
    return json.loads(asi("approvals", RUN, "--json").stdout)


def said(asi: Shell, *words: str, code: int = 0) -> str:
    ended = asi(*words)
    assert ended.returncode == code, ended.stdout + ended.stderr
    return ended.stdout + ended.stderr


def test_a_run_is_governed_from_the_shell(asi: Shell, tmp_path: Path) -> None:
    asi.config.write_text(f"{SMOKE}\n[gate]\nundo_seconds = {UNDO}\n[loop]\nconcurrency = 5\n")
    assert "policy file" in said(asi, "run", RUN, "--headless", "--config", str(asi.config), "--policy", "no", code=2)
    following = asi.start("run", RUN, "--headless", "--config", str(asi.config), "--policy", "cautious")
    root = asi.run_directory(RUN)
    wait_for(lambda: len(events(asi, ev.ApprovalRequested)) >= 4, 240)
    first, second, third, fourth = pending(asi)[:4]

    # What was approved can be taken back, and then nothing runs.
    assert f"asi undo {first['id']}" in said(asi, "approve", first["id"], "--run", RUN)
    said(asi, "undo", first["id"], "--run", RUN)
    time.sleep(UNDO + 1.0)
    assert not launched(asi, first["experiment"])
    said(asi, "approve", first["id"], "--run", RUN)
    wait_for(lambda: launched(asi, first["experiment"]))
    start = next(event for event in events(asi, ev.TrialStarted) if event.experiment == first["experiment"])
    assert start.program == first["program"]
    assert "decided already" in said(asi, "reject", first["id"], "--run", RUN, "--reason", "late", code=4)

    # A program that is swapped after its approval does not run.
    said(asi, "approve", second["id"], "--run", RUN)
    blob = root / "blobs" / second["program"]
    kept = blob.read_bytes()
    blob.chmod(0o600)
    blob.write_bytes(b"import os\n" + kept)
    wait_for(lambda: closed(asi, second["experiment"]))
    assert not launched(asi, second["experiment"])
    assert second["program"][:8] in said(asi, "audit", RUN, "--verify", code=1)
    blob.write_bytes(kept)

    # One experiment is held, or ends, while the others go on.
    said(asi, "hold", third["experiment"], RUN, "--reason", "wait")
    said(asi, "approve", third["id"], "--run", RUN)
    said(asi, "cancel", fourth["experiment"], RUN, "--reason", "no use")
    found = closed(asi, fourth["experiment"])
    assert found is not None
    assert "no use" in found.reason
    wait_for(lambda: any(e.request == fourth["id"] for e in events(asi, ev.ApprovalDecided)))
    time.sleep(UNDO + 2.0)
    assert not launched(asi, third["experiment"])
    said(asi, "release", third["experiment"], RUN)
    wait_for(lambda: launched(asi, third["experiment"]))

    # A question is answered, and both are in the transcript.
    answer = said(asi, "ask", first["experiment"], "what", "did", "you", "change?", "--run", RUN)
    assert len(answer.splitlines()) > 1
    assert answer.splitlines()[-1] in said(asi, "transcript", first["experiment"], RUN)

    # A policy is taken as a whole or not at all; autonomy has the last word before it.
    bad = tmp_path / "bad.toml"
    bad.write_text('version = 1\nname = "bad"\n[[rule]]\nname = "x"\nthen = "alow"\n')
    assert "bad.toml:5" in said(asi, "policy", "set", str(bad), RUN, code=2)
    said(asi, "policy", "set", "trusting", RUN, "--reason", "seen enough")
    assert [event.name for event in events(asi, ev.PolicyAdopted)] == ["cautious", "trusting"]
    before = len(events(asi, ev.ApprovalRequested))
    said(asi, "autonomy", "A1", RUN)
    assert said(asi, "autonomy", RUN).strip() == "A1"
    for request in pending(asi):
        said(asi, "reject", request["id"], "--run", RUN, "--reason", "make room")
    wait_for(lambda: len(events(asi, ev.ApprovalRequested)) > before, 240)
    assert events(asi, ev.ApprovalRequested)[-1].rule.startswith("A1")
    said(asi, "autonomy", "A2", RUN, "--reason", "enough")
    for request in pending(asi):
        said(asi, "reject", request["id"], "--run", RUN, "--reason", "make room")
    free = {event.experiment for event in events(asi, ev.ApprovalDecided) if event.who == "policy"}
    wait_for(lambda: {e.experiment for e in events(asi, ev.ApprovalDecided) if e.rule == "cheap and harmless"} - free, 240)

    said(asi, "stop", RUN)
    assert following.wait(60) == 0
    assert "all good" in said(asi, "audit", RUN, "--verify")
    assert "asked" in said(asi, "stats", "oversight", RUN)
