"""Freeze, park, stop, the lease, the dead man and the caps, on real runs through the command."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.client import processes
from engine.client.kill import kill_run
from engine.client.records import read_records
from engine.client.rundir import engine_pid, list_runs, run_mark_entry
from store import events as ev
from store.journal import read
from tests.e2e.conftest import SMOKE, Shell, wait_for

pytestmark = [
    pytest.mark.skipif(shutil.which("bwrap") is None, reason="needs bubblewrap"),
    pytest.mark.timeout(600),
]


def records(root: Path) -> list[ev.Record]:
    return list(read(root / "journal")) if (root / "journal").exists() else []


def events(root: Path, kind: type) -> list:
    return [record.data for record in records(root) if isinstance(record.data, kind)]


def scores(root: Path) -> dict[tuple[str, int], list[tuple[str, float, float]]]:
    """The sealed numbers of every baseline's trials."""
    return {
        (e.experiment, e.seed): [(task.task, task.score, task.final) for task in e.tasks]
        for e in events(root, ev.TrialFinished)
        if e.experiment.startswith("b-") and not e.cached
    }


def losses(root: Path, trial: str) -> list[tuple[str, int, float]]:
    lines = (root / "trials" / trial / "work" / "points.jsonl").read_text().splitlines()
    return [(p["task"], p["step"], p["loss"]) for p in map(json.loads, lines)]


def states(root: Path) -> dict[int, str]:
    """The state of every process in the run's sandboxes; `T` also for one whose cgroup is frozen."""
    found, _ = read_records(root)
    frozen = {record.pid_namespace for record in found if record.cgroup and _is_frozen(Path(record.cgroup))}
    inodes = {record.pid_namespace for record in found}
    here = {pid: inode for pid in processes.all_pids() if (inode := processes.pid_namespace(pid)) in inodes}
    found_states = {pid: "T" if inode in frozen else processes.state(pid) for pid, inode in here.items()}
    return {pid: state for pid, state in found_states.items() if state not in ("", "Z", "X")}


def _is_frozen(cgroup: Path) -> bool:
    try:
        return "frozen 1" in (cgroup / "cgroup.events").read_text().splitlines()
    except OSError:
        return False


@pytest.fixture
def two(tmp_path: Path) -> Iterator[tuple[Shell, Shell]]:
    """Two homes: two machines that share nothing."""
    homes = [tmp_path / name for name in ("a", "b")]
    for home in homes:
        home.mkdir()
    yield Shell(homes[0]), Shell(homes[1])
    for home in homes:
        for root in list_runs(home / "data" / "asi" / "runs"):
            kill_run(root, actor="the test's end", reason="clean-up")


def test_frozen_parked_and_stopped_trials_end_as_if_nothing_had_happened(two: tuple[Shell, Shell]) -> None:
    asi, calm = two
    root = asi.run_directory("r")
    following = asi.start("run", "r", "--headless", "--experiments", "1", "--config", str(asi.config))
    wait_for(lambda: list(root.glob("trials/b-*/work/points.jsonl")))
    frozen = asi("freeze", "r")
    assert frozen.returncode == 0, frozen.stderr
    seen = states(root)
    assert seen
    assert set(seen.values()) <= {"T", "t"}
    sizes = {path: path.stat().st_size for path in root.glob("trials/*/work/points.jsonl")}
    time.sleep(3)
    assert set(states(root).values()) <= {"T", "t"}
    assert sizes == {path: path.stat().st_size for path in root.glob("trials/*/work/points.jsonl")}
    assert asi("freeze", "r").returncode == 4
    assert asi("resume", "r").returncode == 0
    parked = asi("park", "r")
    assert parked.returncode == 0, parked.stderr
    assert read_records(root)[0] == []
    assert asi("resume", "r").returncode == 0
    wait_for(lambda: events(root, ev.TrialFinished) or read_records(root)[0])
    assert asi("stop", "r").returncode == 0
    assert following.wait(60) == 0
    assert engine_pid(root) is None
    kept = [e.checkpoint for e in events(root, ev.TrialParked)]
    assert any(kept)
    wait_for(lambda: not processes.marked({run_mark_entry(root)}), 10)  # the engine's own last breath
    ended = asi("run", "r", "--headless", "--experiments", "1")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert [e for e in events(root, ev.TrialStarted) if e.resumed]
    assert asi("audit", "r", "--verify").returncode == 0

    # The same data under the same secret, on a machine that has trained nothing yet.
    shutil.copytree(asi.home / "cache", calm.home / "cache", ignore=shutil.ignore_patterns("trials"), dirs_exist_ok=True)
    undisturbed = calm("run", "r", "--headless", "--experiments", "1", "--config", str(calm.config))
    assert undisturbed.returncode == 0, undisturbed.stdout + undisturbed.stderr
    here, there = scores(root), scores(calm.run_directory("r"))
    shared = here.keys() & there.keys()
    assert len(shared) >= 3
    assert {key: here[key] for key in shared} == {key: there[key] for key in shared}
    went_on = {e.trial for e in events(root, ev.TrialStarted) if e.resumed}
    for trial in went_on & {f"{name}-s{seed}" for name, seed in shared}:
        assert losses(root, trial) == losses(calm.run_directory("r"), trial)


def test_a_silent_engine_loses_its_trials_and_they_are_not_blamed(asi: Shell) -> None:
    asi.config.write_text(SMOKE.replace('"probe-smoke"', '"probe"') + "[sandbox]\nlease_seconds = 5\n")
    root = asi.run_directory("r")
    following = asi.start("run", "r", "--headless", "--config", str(asi.config))
    wait_for(lambda: events(root, ev.TrialStarted))
    wait_for(lambda: len(states(root)) >= 3)
    pid = engine_pid(root)
    assert pid is not None
    held, _ = read_records(root)
    os.kill(pid, signal.SIGSTOP)
    wait_for(lambda: not any(processes.is_alive(record.init_pid, record.init_start) for record in held), 30)
    os.kill(pid, signal.SIGCONT)
    wait_for(lambda: events(root, ev.LeaseLost))
    assert events(root, ev.LeaseLost)[0].proved
    wait_for(lambda: any(e.who == "the lease" for e in events(root, ev.TrialKilled)))
    assert events(root, ev.ExperimentClosed) == []
    assert asi("kill", "r").returncode == 0
    assert following.wait(30) == 5


def test_a_silent_person_pauses_the_run_and_then_freezes_it(asi: Shell) -> None:
    asi.config.write_text(SMOKE + "[deadman]\npause_minutes = 0.25\nfreeze_minutes = 0.4\n")
    root = asi.run_directory("r")
    following = asi.start("run", "r", "--headless", "--config", str(asi.config))
    wait_for(lambda: events(root, ev.RunPaused), 60)
    (paused,) = [r for r in records(root) if isinstance(r.data, ev.RunPaused)]
    assert paused.actor == "deadman"
    assert "no person has acted" in paused.data.reason
    wait_for(lambda: events(root, ev.RunFrozen), 60)
    assert set(states(root).values()) <= {"T", "t"}
    assert asi("resume", "r").returncode == 0
    assert asi("kill", "r").returncode == 0
    assert following.wait(30) == 5


def test_a_held_stop_is_undone_by_a_drill_and_loses_nothing(asi: Shell) -> None:
    asi.config.write_text(SMOKE.replace('"probe-smoke"', '"probe"'))
    root = asi.run_directory("r")
    following = asi.start("run", "r", "--headless", "--config", str(asi.config))
    wait_for(lambda: list(root.glob("trials/b-*/work/points.jsonl")))
    (root / "KILLED").touch()  # anybody can pull it, with nothing but a shell
    wait_for(lambda: events(root, ev.RunFrozen), 10)
    wait_for(lambda: states(root) and set(states(root).values()) <= {"T", "t"}, 10)
    before = {record.id for record in read_records(root)[0]}
    for command in ("resume", "park"):
        refused = asi(command, "r")
        assert refused.returncode == 4
        assert "rearm" in refused.stderr
    assert asi("rearm", "r", "--reason", " ").returncode == 2
    rearmed = asi("rearm", "r", "--reason", "a false alarm")
    assert rearmed.returncode == 0, rearmed.stdout + rearmed.stderr
    assert not (root / "KILLED").exists()
    assert set(states(root).values()) <= {"T", "t"}
    assert asi("resume", "r").returncode == 0
    assert before & {record.id for record in read_records(root)[0]}
    assert events(root, ev.TrialFailed) == []
    trial = next(e.trial for e in reversed(events(root, ev.TrialStarted)))
    ended = asi("end", trial, "r")
    assert ended.returncode == 0, ended.stderr
    wait_for(lambda: any(e.trial == trial for e in events(root, ev.TrialKilled)))
    assert asi("end", "nonsense", "r").returncode == 4
    assert asi("kill", "r").returncode == 0
    assert following.wait(30) == 5


def test_a_cap_pauses_before_it_is_passed(asi: Shell) -> None:
    asi.config.write_text(SMOKE + "[budget]\ncpu_hours = 0.0005\nexperiments = 2\n")
    root = asi.run_directory("r")
    following = asi.start("run", "r", "--headless", "--config", str(asi.config))
    wait_for(lambda: any(e.hard for e in events(root, ev.BudgetExceeded)))
    wait_for(lambda: events(root, ev.RunPaused))
    assert "cap" in events(root, ev.RunPaused)[0].reason
    assert asi("resume", "r").returncode == 0
    wait_for(lambda: len(events(root, ev.BudgetExceeded)) >= 2 and len(events(root, ev.RunPaused)) >= 2, 200)
    opened = [e for e in events(root, ev.ExperimentOpened) if e.origin != "baseline"]
    assert len(opened) == 2
    assert asi("stop", "r").returncode == 0
    assert following.wait(60) == 0
