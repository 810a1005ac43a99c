"""The guard when it cannot read the records: it ends the sandboxes all the same, and nothing else of the run."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.client import guard, processes, records
from engine.client.records import SANDBOX_MARK
from engine.client.rundir import RunPaths, run_mark_entry
from tests.engine.client.conftest import record_of

Pair = tuple[subprocess.Popen, subprocess.Popen]


@pytest.fixture
def pair(root: Path) -> Iterator[Pair]:
    """Something of a sandbox, and something of the engine, which carries the run's mark alone."""
    mark = dict([run_mark_entry(root).split("=")])
    both = tuple(subprocess.Popen(["/bin/sleep", "60"], env={**mark, **more}) for more in ({SANDBOX_MARK: "x"}, {}))
    yield both
    for process in both:
        process.kill()
        process.wait()


def register(root: Path, process: subprocess.Popen) -> None:
    record = record_of(process.pid, processes.start_time(process.pid))
    record = record._replace(mark=run_mark_entry(root), pid_namespace=4_026_530_001)
    (RunPaths(root).procs / "x.json").write_text(json.dumps(record._asdict()))


def assert_only_the_sandbox_dies(root: Path, pair: Pair) -> dict:
    mark = run_mark_entry(root)
    told = json.loads(guard.end_all(root, mark, 1.0))
    assert pair[0].wait(10) == -9
    assert pair[1].poll() is None
    return told


def test_a_disk_that_hangs_does_not_hang_the_guard(root: Path, pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    register(root, pair[0])
    never, late = threading.Event(), threading.Event()
    read = records.read_regular

    def hang(path: Path, limit: int = 16_384) -> tuple[bytes, float]:
        never.wait(30)
        try:
            return read(path, limit)
        finally:
            late.set()

    monkeypatch.setattr(records, "read_regular", hang)
    monkeypatch.setattr(guard, "READ_SECONDS", 0.3)
    begin = time.monotonic()
    told = assert_only_the_sandbox_dies(root, pair)
    assert time.monotonic() - begin < 10
    assert (told["sandboxes"], told["proved"]) == (1, False)
    # The disk answers when the engine is well again: what runs then is not hit.
    second = subprocess.Popen(["/bin/sleep", "60"])
    register(root, second)
    never.set()
    assert late.wait(10)
    time.sleep(0.2)
    assert second.poll() is None
    second.kill()
    second.wait()


def test_a_record_that_cannot_be_read_hides_no_sandbox(root: Path, pair: Pair) -> None:
    (RunPaths(root).procs / "x.json").write_text("{")
    assert assert_only_the_sandbox_dies(root, pair)["proved"] is False


def test_a_directory_that_is_gone_hides_no_sandbox(root: Path, pair: Pair) -> None:
    shutil.rmtree(RunPaths(root).procs)
    assert assert_only_the_sandbox_dies(root, pair)["proved"] is False


def test_whatever_fails_the_guard_goes_on(root: Path, pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("anything")

    register(root, pair[0])
    monkeypatch.setattr(guard, "prove", fail)
    heart, beat = os.pipe()
    heard, report = os.pipe()
    watching = threading.Thread(target=guard.watch, args=(root, 0.2, heart, report), daemon=True)
    watching.start()
    assert pair[0].wait(10) == -9
    assert json.loads(os.read(heard, 4096))["proved"] is False
    assert watching.is_alive()
    os.write(beat, guard.LEAVE)
    watching.join(10)
    assert not watching.is_alive()
    for descriptor in (heart, beat, heard, report):
        os.close(descriptor)
