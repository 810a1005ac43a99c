"""A run directory that was copied names another run's processes; one that was renamed names its own."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.client import processes
from engine.client.kill import freeze_run, kill_run
from engine.client.records import Record, read_engine, read_records
from engine.client.rundir import RunPaths, run_mark_entry
from tests.engine.client.conftest import record_of


class Original:
    """A run with an engine and a sandbox's process, both with its mark, and a worker that no record names."""

    def __init__(self, root: Path) -> None:
        self.root = root
        environment = dict([run_mark_entry(root).split("=")])
        self.processes = [subprocess.Popen(["/bin/sleep", "60"], env=environment) for _ in range(3)]
        self.engine, self.sandbox, self.worker = (process.pid for process in self.processes)
        self.write(record_of(self.sandbox, processes.start_time(self.sandbox)))
        lock = {"pid": self.engine, "start_time": processes.start_time(self.engine), "boot_id": processes.boot_id()}
        RunPaths(root).lock.write_text(json.dumps(lock))

    def write(self, record: Record) -> None:
        home = processes.pid_namespace("self")
        record = record._replace(mark=run_mark_entry(self.root), pid_namespace=4_026_530_001, home=home)
        (RunPaths(self.root).procs / f"{record.id}.json").write_text(json.dumps(record._asdict()))

    @property
    def untouched(self) -> bool:
        return all(process.poll() is None and processes.state(process.pid) == "S" for process in self.processes)


@pytest.fixture
def original(root: Path) -> Iterator[Original]:
    run = Original(root)
    yield run
    for process in run.processes:
        process.kill()
        process.wait()


def test_killing_the_copy_of_a_live_run_touches_nothing_of_it(original: Original, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(original.root, copy)
    assert not freeze_run(copy).complete
    report = kill_run(copy, actor="tester", reason="test", deadline=2.0)
    assert original.untouched
    assert not report.proved
    assert len([line for line in report.unproved if "belongs to another directory" in line]) == 2
    assert report.marks == {run_mark_entry(copy)}
    assert read_records(copy)[0] == []
    assert kill_run(original.root, actor="tester", reason="test").proved
    assert not original.untouched


def test_an_engine_that_was_started_in_the_copy_dies_alone(original: Original, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(original.root, copy)
    engine = subprocess.Popen(["/bin/sleep", "60"], env=dict([run_mark_entry(copy).split("=")]))
    with RunPaths(copy).lock.open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        content = {"pid": engine.pid, "start_time": processes.start_time(engine.pid), "boot_id": processes.boot_id()}
        lock.write(json.dumps(content).ljust(200))
        lock.flush()
        report = kill_run(copy, actor="tester", reason="test", deadline=2.0)
    assert engine.wait(10) == -9
    assert original.untouched
    assert len(report.unproved) == 1


def test_a_live_run_that_was_renamed_is_killed_whole(original: Original, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    with RunPaths(original.root).lock.open() as lock:  # its engine keeps this open
        fcntl.flock(lock, fcntl.LOCK_EX)
        original.root.rename(moved)
        report = kill_run(moved, actor="tester", reason="test", deadline=5.0)
    assert report.proved, report.unproved
    assert [process.wait(10) for process in original.processes] == [-9, -9, -9]


def test_what_a_copy_says_about_the_dead_proves_them_dead_and_hits_no_successor(
    original: Original, tmp_path: Path
) -> None:
    """The original may run another sandbox in a cgroup of the same name by now."""
    group = tmp_path / "asi-group"
    group.mkdir()
    (group / "cgroup.kill").touch()
    original.write(record_of(2**22 + 5, 7, cgroup=str(group)))
    copy = tmp_path / "copy"
    shutil.copytree(original.root, copy)
    RunPaths(copy).lock.unlink()
    report = kill_run(copy, actor="tester", reason="test", deadline=2.0)
    assert report.proved, report.unproved
    assert (group / "cgroup.kill").read_bytes() == b""
    assert original.untouched


def test_an_engine_without_a_mark_is_struck_wherever_its_directory_is(root: Path) -> None:
    engine = subprocess.Popen(["/bin/sleep", "60"], env={})
    content = {"pid": engine.pid, "start_time": processes.start_time(engine.pid), "boot_id": processes.boot_id()}
    RunPaths(root).lock.write_text(json.dumps(content))
    assert read_engine(root)[0] is not None
    assert kill_run(root, actor="tester", reason="test").proved
    assert engine.wait(10) == -9
    assert os.path.lexists(RunPaths(root).latch)
