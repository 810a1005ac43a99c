"""The emergency stop against real processes, in every state the engine can be in."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from engine.client import kill, processes, rundir
from engine.client.kill import kill_run
from engine.client.records import Kill, parse_record, read_kills, read_records
from engine.client.rundir import RunPaths, run_mark_entry
from engine.supervision.isolation import Isolation, SandboxSpec
from engine.supervision.sandbox import Launcher
from tests.engine.client.conftest import PROJECT, bystander, record_of


@pytest.mark.parametrize("condition", ["blocked", "stopped", "dead"])
def test_everything_dies_whatever_state_the_engine_is_in(root: Path, engine: subprocess.Popen, condition: str) -> None:
    records, _ = read_records(root)
    assert len(records) == 3
    if condition == "stopped":
        engine.send_signal(signal.SIGSTOP)
    if condition == "dead":
        engine.kill()
        engine.wait()
    report = kill_run(root, actor="tester", reason="test")
    assert report.proved, kill.format_report(report)
    assert report.latched
    assert [row.what for row in report.rows][:3] == ["trial t0", "trial t1", "trial t2"]
    assert any(row.what == "engine" for row in report.rows) == (condition != "dead")
    assert processes.namespace_members({(record.pid_namespace, record.init_start) for record in records}) == {}
    assert kill.survivors(report) == set()
    assert kill.read_latch(root).actor == "tester"
    (kept,) = read_kills(root)
    assert (kept.actor, kept.proved) == ("tester", True)
    assert condition == "dead" or kept.processes >= 12
    assert read_records(root) == ([], [])
    assert engine.wait(10) == -9
    assert "proved" in kill.format_report(report)


def test_the_bare_command_kills_without_our_packages(root: Path, engine: subprocess.Popen) -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(PROJECT / "engine/client/kill.py"), str(root)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "trial t2" in done.stdout
    assert "everything is dead: proved" in done.stdout
    again = subprocess.run([sys.executable, "-m", "engine.client.kill", str(root)], capture_output=True, text=True,
                           cwd=PROJECT)  # fmt: skip
    assert again.returncode == 0
    assert "nothing of this run was alive" in again.stdout


def test_a_latch_that_cannot_be_written_does_not_prevent_the_kill(root: Path, engine: subprocess.Popen) -> None:
    (root / "KILLED").symlink_to("/nonexistent/latch")  # cannot be created through, whoever we are
    procs = root / "procs"
    procs.chmod(0o500)
    root.chmod(0o500)
    report = kill_run(root, actor="tester", reason="test")
    root.chmod(0o700)
    procs.chmod(0o700)
    assert all(row.proved for row in report.rows)
    assert len(report.rows) >= 4
    (root / "KILLED").unlink()


def test_a_full_disk_is_reported_and_kills_all_the_same(
    root: Path, engine: subprocess.Popen, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.open

    def full(path, flags, *rest, **more):
        if str(path).endswith("KILLED") and flags & os.O_CREAT:
            raise OSError(28, "No space left on device")
        return real(path, flags, *rest, **more)

    monkeypatch.setattr(os, "open", full)
    report = kill_run(root, actor="tester", reason="test")
    monkeypatch.undo()
    assert all(row.proved for row in report.rows)
    assert not report.latched
    assert report.proved  # the exit code is about deaths; that nothing latches is said beside it
    assert "latched: NO" in kill.format_report(report)
    assert "No space left" in " ".join(kill.format_report(report).split())


def test_a_reused_pid_is_never_touched(root: Path) -> None:
    innocent = bystander()
    try:
        start = processes.start_time(innocent.pid)
        own = processes.pid_namespace("self")
        hostile = [
            record_of(innocent.pid, start - 1, pid_namespace=4026530000),
            record_of(innocent.pid, start, boot_id="another boot", pid_namespace=own),
            record_of(innocent.pid, start - 1, pid_namespace=own),  # our own namespace: it must not be emptied
            record_of(innocent.pid, start - 1),
            record_of(0, 0),
            record_of(1, processes.start_time(1) + 1),
        ]
        for index, record in enumerate(hostile):
            content = json.dumps(record._replace(id=f"r{index}", mark=run_mark_entry(root))._asdict())
            (RunPaths(root).procs / f"r{index}.json").write_text(content)
        lock = {"pid": innocent.pid, "start_time": start + 1, "boot_id": processes.boot_id()}
        RunPaths(root).lock.write_text(json.dumps(lock))
        kill_run(root, actor="tester", reason="test", deadline=0.5)
        time.sleep(0.1)
        assert innocent.poll() is None
        assert rundir.engine_pid(root) is None
    finally:
        innocent.kill()
        innocent.wait()


def test_workers_outside_any_sandbox_are_found_by_their_mark(root: Path) -> None:
    name, value = run_mark_entry(root).split("=")
    code = (
        "import os,time\nif os.fork()==0:\n os.setsid()\n if os.fork(): os._exit(0)\nos.closerange(0,3)\ntime.sleep(90)"
    )
    worker = subprocess.Popen([sys.executable, "-I", "-S", "-c", code], env={name: value}, start_new_session=True)
    until = time.monotonic() + 20
    while len(processes.marked({f"{name}={value}"})) < 2 and time.monotonic() < until:
        time.sleep(0.02)
    report = kill_run(root, actor="tester", reason="test")
    assert worker.wait(10) == -9
    (row,) = report.rows
    assert (row.what, row.proved, len(row.pids) >= 2) == ("workers", True, True)


def test_a_corrupt_record_is_reported_and_proves_nothing(root: Path) -> None:
    (RunPaths(root).procs / "bad.json").write_text('{"id": "\x1b[2J')
    (RunPaths(root).procs / "worse.json").write_text("[" * 10_000)
    report = kill_run(root, actor="tester", reason="test", deadline=1.0)
    assert not report.proved
    assert len(report.unproved) == 2
    assert "\x1b" not in kill.format_report(report)


def test_records_are_parsed_strictly() -> None:
    good = record_of(5, 6)._asdict()
    assert parse_record(json.dumps(good).encode()) == record_of(5, 6)
    for change in ({"init_pid": "5"}, {"init_pid": -1}, {"init_pid": True}, {"boot_id": 1}, {"extra": 1},
                   {"mark": ""}, {"mark": "HOME=/root"}, {"cgroup": "/sys/fs/cgroup/system.slice"},
                   {"cgroup": "/sys/fs/cgroup/asi-\0"}, {"cgroup": "/sys/fs/cgroup/asi-\ud800"}, {"kind": "\ud800"},
                   {"boot_id": "\0"}):  # fmt: skip
        with pytest.raises(ValueError, match=r".+"):
            parse_record(json.dumps({**good, **change}).encode())


def test_every_latch_that_exists_latches(root: Path) -> None:
    assert kill.read_latch(root) is None
    for content in (b"", b"\xff", b"[]", b'{"time": "x"}', b'{"time": null}', b'{"time": 1%s}' % (b"0" * 400), b"[" * 9000):
        RunPaths(root).latch.write_bytes(content)
        assert kill.read_latch(root) is not None
    for content in (b"", b"{}", b"[]", b'{"time": true}', b'{"time": "1"}'):
        RunPaths(root).latch.write_bytes(content)
        os.utime(RunPaths(root).latch, (1e9, 1e9))
        assert kill.read_latch(root).time == 1e9
    RunPaths(root).latch.write_text('{"time": 5, "actor": "\\ud800"}')
    latch = kill.read_latch(root)
    assert (latch.time, latch.actor.encode()) == (5.0, b"?")
    kill.clear_latch(root)
    RunPaths(root).latch.symlink_to("nowhere")
    assert abs(kill.read_latch(root).time - time.time()) < 60
    kill.clear_latch(root)
    assert kill.write_latch(root, "first", "a") == kill.write_latch(root, "second", "b") == ""
    assert kill.read_latch(root).actor == "first"
    kill.clear_latch(root)


def test_kills_that_were_kept_are_read_strictly(root: Path) -> None:
    good = Kill("tester", "test", 5.0, 3, 1.5, True)._asdict()
    bad = [{"time": "5"}, {"time": True}, {"time": -1}, {"time": float("nan")}, {"processes": 1.5}, {"processes": True},
           {"death_ms": "1"}, {"death_ms": None}, {"proved": 1}, {"actor": 7}, {"reason": None}]  # fmt: skip
    lines = [json.dumps({**good, **change}) for change in [*bad, {}]]
    RunPaths(root).kills.write_text("\n".join(lines))
    assert read_kills(root) == [Kill(**good)]


def test_the_kill_imports_almost_nothing() -> None:
    code = "import sys; import engine.client.kill; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PROJECT, check=True)
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert loaded.isdisjoint({"torch", "textual", "msgspec", "asyncio", "duckdb", "numpy", "rich", "subprocess"})


def test_runs_are_found_by_name_path_and_recency(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    with pytest.raises(rundir.UnknownRun, match="no run yet"):
        rundir.resolve(None)
    for age, name in ((100, "alpha"), (0, "beta")):
        RunPaths(rundir.runs_home() / name).create()
        os.utime(rundir.runs_home() / name / "journal", (time.time() - age,) * 2)
    assert rundir.resolve(None).name == "beta"
    assert rundir.resolve("alpha") == rundir.resolve(str(rundir.runs_home() / "alpha"))
    with pytest.raises(rundir.UnknownRun, match="did you mean alpha"):
        rundir.resolve("alpah")
    with pytest.raises(rundir.UnknownRun, match="not a run directory"):
        rundir.resolve(str(tmp_path / "nowhere"))


def test_a_long_path_still_gets_a_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    deep = tmp_path / ("x" * 100) / "run"
    path = RunPaths(deep).socket
    assert len(os.fsencode(path)) < 100
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert RunPaths(Path("/r")).socket == Path("/r/engine.sock")


async def test_freeze_run_stops_everything_in_place(root: Path) -> None:
    means = Isolation.detect()
    if not means.bwrap:
        pytest.skip("bubblewrap does not work here")
    launcher = Launcher(root, means)
    argv = (sys.executable, "-I", "-S", "-c", "import os, time\nos.fork()\nwhile True: time.sleep(.01)")
    trials = [
        await launcher.start(SandboxSpec(id=f"f{index}", argv=argv, workdir=root / "trials" / f"f{index}"))
        for index in range(3)
    ]
    await asyncio.sleep(0.3)
    report = kill.freeze_run(root)
    assert report.complete
    assert len(report.pids) >= 6
    assert kill.thaw_run(root).complete
    assert all(processes.state(pid) not in "Tt" for pid in report.pids)
    kill.freeze_run(root)
    assert (await asyncio.to_thread(kill_run, root, actor="tester", reason="test")).proved
    assert all([(await trial.wait()).signal == 9 for trial in trials])
