"""The emergency stop when disk, registry, permissions or processes are against it. The innocent are never hit."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from engine.client import freeze, kill, processes, records, strike
from engine.client.kill import format_report, freeze_run, kill_run, thaw_run
from engine.client.records import SANDBOX_MARK, Record
from engine.client.report import KillReport, Row
from engine.client.rundir import RunPaths, run_mark_entry
from engine.supervision.isolation import Isolation, SandboxSpec
from engine.supervision.sandbox import Launcher
from tests.engine.client.conftest import PROJECT, bystander, record_of

BARE = [sys.executable, "-I", "-S", str(PROJECT / "engine/client/kill.py")]
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
with_namespaces = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("unshare") is None, reason="needs root and unshare"
)


def write(root: Path, record: Record) -> None:
    """Register a sandbox, as one of this directory's unless it carries a mark of its own."""
    if record.mark == record_of(1, 1).mark:
        record = record._replace(mark=run_mark_entry(root))
    (RunPaths(root).procs / f"{record.id}.json").write_text(json.dumps(record._asdict()))


def wait_ready(root: Path, count: int) -> None:
    until = time.monotonic() + 20
    while len(list(root.glob("trials/*/ready"))) < count:
        assert time.monotonic() < until
        time.sleep(0.02)


@contextlib.contextmanager
def namespaced(*command: str) -> Iterator[tuple[subprocess.Popen, int]]:
    """A command as the init of a new pid namespace, and that init's pid."""
    outer = subprocess.Popen(["unshare", "--pid", "--fork", *command], env={"PATH": os.environ["PATH"]})
    try:
        until = time.monotonic() + 10
        while not (below := processes.descendants(outer.pid)) or not processes.pid_namespace(min(below)):
            assert time.monotonic() < until
            time.sleep(0.01)
        yield outer, min(below)
    finally:
        for pid in processes.descendants(outer.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        outer.kill()
        outer.wait()


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A run directory with its lock and records on a disk of its own, which the test may fill or make read-only."""
    lock = RunPaths(folder).lock.read_bytes()
    kept = {path.name: path.read_bytes() for path in RunPaths(folder).procs.iterdir()}
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "asi-test", str(folder)], check=True)
    try:
        RunPaths(folder).create()
        RunPaths(folder).lock.write_bytes(lock)
        for name, content in kept.items():
            (RunPaths(folder).procs / name).write_bytes(content)
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@with_namespaces
def test_the_next_owner_of_a_dead_sandboxs_namespace_number_is_never_touched(root: Path) -> None:
    """The kernel gives the inode of a dead namespace to the next one; a stale record then names an innocent."""
    with namespaced("sleep", "60") as (innocent, init):
        inode = processes.pid_namespace(init)
        write(root, record_of(2**22 + 5, processes.start_time(init) - 3, id="stale", pid_namespace=inode))
        assert freeze_run(root).pids == []
        report = kill_run(root, actor="tester", reason="test", deadline=2.0)
        assert report.proved, format_report(report)
        assert report.total_ms < 1500  # it waited for nobody else's namespace
        assert kill.survivors(report) == set()
        assert innocent.poll() is None
        assert processes.state(init) == "S"


def test_without_another_thread_everything_dies_all_the_same(
    root: Path, engine: subprocess.Popen, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    report = kill_run(root, actor="tester", reason="test")
    monkeypatch.undo()
    assert report.proved, format_report(report)
    assert report.latched
    assert len(report.rows) >= 4
    assert engine.wait(10) == -9


def test_a_latch_that_a_dying_engine_lifts_is_there_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lift(*arguments: object) -> object:
        RunPaths(root).latch.unlink(missing_ok=True)
        return prove(*arguments)

    prove = kill.prove
    monkeypatch.setattr(kill, "prove", lift)
    assert kill_run(root, actor="tester", reason="test").latched
    assert kill.read_latch(root).actor == "tester"


def test_a_damaged_record_keeps_no_other_one_from_being_read(root: Path) -> None:
    child = bystander()
    write(root, record_of(2**22 + 5, 7, id="a", cgroup="/sys/fs/cgroup/asi-\0", pid_namespace=4_026_530_001))
    write(root, record_of(child.pid, processes.start_time(child.pid), id="b", pid_namespace=4_026_530_001))

    def fail_on_c(record: Record) -> None:
        if record.id == "c":
            raise ValueError("cannot be struck")

    registry = records.read_registry(root)
    assert ([record.id for record in registry.records], registry.unread) == (["b"], ["a"])
    write(root, record_of(2**22 + 5, 7, id="c"))
    write(root, record_of(2**22 + 5, 7, id="d"))
    assert [record.id for record in records.read_registry(root, fail_on_c).records] == ["b", "d"]
    report = kill_run(root, actor="tester", reason="test", deadline=2.0)
    assert child.wait(10) == -9
    assert "procs/a.json" in str(report.unproved)


@pytest.mark.parametrize("cgroup", ["/sys/fs/cgroup/asi-\0", "/sys/fs/cgroup/asi-\ud800"])
def test_a_cgroup_that_is_no_path_keeps_nothing_from_being_killed(cgroup: str) -> None:
    child = bystander()
    record = record_of(child.pid, processes.start_time(child.pid), cgroup=cgroup, pid_namespace=4_026_530_001)
    (row,) = strike.kill_sandboxes([record])
    assert row.proved, row.proof
    assert child.wait(10) == -9


@with_namespaces
def test_namespaces_inside_a_sandboxs_namespace_die_with_it(root: Path) -> None:
    nested = "unshare --pid --fork setsid sleep 61 & unshare --pid --fork setsid sleep 62 & sleep 63"
    with namespaced("sh", "-c", nested) as (outer, init):
        until = time.monotonic() + 10
        while len(inside := processes.descendants(init)) < 5 and time.monotonic() < until:
            time.sleep(0.01)
        assert len({processes.pid_namespace(pid) for pid in inside}) == 3
        inode = processes.pid_namespace(init)
        write(root, record_of(init, processes.start_time(init), id="nested", pid_namespace=inode))
        report = kill_run(root, actor="tester", reason="test")
        assert report.proved, format_report(report)
        assert {processes.state(pid) for pid in inside} <= set(processes.DEAD)
        outer.wait(10)


@with_namespaces
def test_a_sandbox_is_found_by_its_namespace_where_its_pids_are_other_ones(root: Path) -> None:
    """As when the engine runs inside a container and the command outside."""
    with namespaced("sleep", "60") as (outer, init):
        start, inode = processes.start_time(init), processes.pid_namespace(init)
        write(root, record_of(2**22 + 5, start, id="boxed", pid_namespace=inode))
        report = kill_run(root, actor="tester", reason="test")
        assert report.proved, format_report(report)
        assert report.rows[0].pids == [init]
        outer.wait(10)


def test_the_same_trial_of_another_run_is_never_touched(root: Path) -> None:
    name = f"{SANDBOX_MARK}=t1"
    other = subprocess.Popen(["/bin/sleep", "60"], env=dict([name.split("="), ["ASI_RUN_MARK", 20 * "f"]]))
    try:
        write(root, record_of(2**22 + 5, 7, id="t1", mark=run_mark_entry(root)))
        freeze_run(root)
        kill_run(root, actor="tester", reason="test", deadline=1.0)
        assert other.poll() is None
        assert processes.state(other.pid) == "S"
    finally:
        other.kill()
        other.wait()


def test_files_that_are_no_records_are_named_and_never_waited_for(root: Path) -> None:
    procs, innocent = RunPaths(root).procs, bystander()
    marker = "HOME=/nobody/at/all"
    marked = subprocess.Popen(["/bin/sleep", "60"], env={"HOME": "/nobody/at/all"})
    try:
        os.mkfifo(procs / "pipe.json")
        (procs / "folder.json").mkdir()
        (procs / "link.json").symlink_to("/dev/zero")
        (procs / "huge.json").write_bytes(b" " * 5_000_000)
        (procs / "deep.json").write_text("[" * 16_000)
        alive = record_of(innocent.pid, processes.start_time(innocent.pid))
        for name, change in (
            ("mark", {"mark": marker}), ("group", {"cgroup": "/sys/fs/cgroup"}), ("pid", {"init_pid": 2**70}),
            ("other", {"id": "somebody-else"}),
        ):  # fmt: skip
            (procs / f"{name}.json").write_text(json.dumps(alive._replace(id=name)._asdict() | change))
        os.mkfifo(RunPaths(root).lock)
        begin = time.monotonic()
        report = kill_run(root, actor="tester", reason="test", deadline=5.0)
        assert time.monotonic() - begin < 5
        assert innocent.poll() is None
        assert marked.poll() is None
        assert not report.proved
        assert len(report.unproved) == 10
        assert "no regular file" in str(report.unproved)
        assert kill.read_latch(root) is not None
    finally:
        for process in (innocent, marked):
            process.kill()
            process.wait()


def test_a_registry_that_is_no_folder_still_kills_what_carries_the_mark(root: Path) -> None:
    RunPaths(root).procs.rmdir()
    RunPaths(root).procs.write_text("not a folder")
    worker = subprocess.Popen(["/bin/sleep", "60"], env=dict([run_mark_entry(root).split("=")]))
    report = kill_run(root, actor="tester", reason="test", deadline=5.0)
    assert worker.wait(10) == -9
    assert not report.proved
    assert "procs" in report.unproved[0]


@pytest.mark.parametrize("kind", ["folder", "pipe", "dangling link"])
def test_whatever_lies_where_the_latch_belongs_latches(root: Path, kind: str) -> None:
    latch = RunPaths(root).latch
    if kind == "folder":
        latch.mkdir()
    elif kind == "pipe":
        os.mkfifo(latch)
    else:
        latch.symlink_to(root / "nowhere")
    report = kill_run(root, actor="tester", reason="test", deadline=5.0)
    assert report.proved
    assert report.latched
    assert kill.read_latch(root) is not None


def test_a_run_registered_on_another_machine_is_not_proved_dead_here(root: Path) -> None:
    write(root, record_of(5, 6, id="there", boot_id="another machine's"))
    RunPaths(root).lock.write_text(json.dumps({"pid": 5, "start_time": 6, "boot_id": "another machine's"}))
    report = kill_run(root, actor="tester", reason="test")
    assert not report.proved
    assert len([problem for problem in report.unproved if "another machine" in problem]) == 2
    for path in (RunPaths(root).lock, RunPaths(root).procs / "there.json"):
        os.utime(path, (0, 0))  # before this boot
    report = kill_run(root, actor="tester", reason="test")
    assert report.proved
    assert [row.proof for row in report.rows] == ["from an earlier boot"]


def test_from_another_container_nothing_is_called_dead(root: Path, engine: subprocess.Popen) -> None:
    """There the engine's processes cannot be seen: not seeing them proves nothing."""
    apart = ["unshare", *([] if os.geteuid() == 0 else ["--user", "--map-root-user"]), "--pid", "--fork", "--mount-proc"]
    if subprocess.run([*apart, "/bin/true"], capture_output=True).returncode != 0:
        pytest.skip("unshare does not work here")
    command = [sys.executable, "-I", "-S", kill.__file__, str(root)]
    done = subprocess.run([*apart, *command], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "in another container" in " ".join(done.stdout.split())
    assert engine.poll() is None
    assert kill_run(root, actor="tester", reason="test").proved


def test_a_zombie_is_dead(root: Path) -> None:
    child = bystander()
    start = processes.start_time(child.pid)
    os.kill(child.pid, signal.SIGKILL)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    write(root, record_of(child.pid, start, id="zombie", pid_namespace=4_026_530_001))
    RunPaths(root).lock.write_text(
        json.dumps({"pid": child.pid, "start_time": start, "boot_id": processes.boot_id()})
    )  # fmt: skip
    report = kill_run(root, actor="tester", reason="test", deadline=5.0)
    assert report.proved, format_report(report)
    assert report.total_ms < 4000
    child.wait()


def test_without_pidfds_nothing_is_called_dead(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    innocent = bystander()
    try:
        write(root, record_of(innocent.pid, processes.start_time(innocent.pid), id="x", pid_namespace=4_026_530_001))

        def refuse(pid: int) -> int:
            raise OSError(24, "Too many open files")

        monkeypatch.setattr(os, "pidfd_open", refuse)
        report = kill_run(root, actor="tester", reason="test", deadline=1.0)
        assert not report.proved
        assert "Too many open files" in format_report(report)
    finally:
        innocent.kill()
        innocent.wait()


def test_a_disk_that_hangs_holds_up_neither_the_killing_nor_the_verdict(
    root: Path, engine: subprocess.Popen, monkeypatch: pytest.MonkeyPatch
) -> None:
    never = threading.Event()
    read = records.read_regular

    def hang_on_the_last(path: Path, limit: int = 16_384) -> tuple[bytes, float]:
        if path.name == "t2.json":
            never.wait(30)
        return read(path, limit)

    monkeypatch.setattr(records, "read_regular", hang_on_the_last)
    monkeypatch.setattr(kill, "write_latch", lambda *_: never.wait(30))
    begin = time.monotonic()
    report = kill_run(root, actor="tester", reason="test", deadline=2.0)
    assert time.monotonic() - begin < 15
    assert engine.wait(10) == -9
    assert [row.what for row in report.rows if row.proved][:2] == ["trial t0", "trial t1"]
    assert not report.proved
    assert "could be read" in str(report.unproved)
    assert not report.latched
    assert processes.marked({run_mark_entry(root)}) == {}  # t2 died with its engine
    never.set()


def test_the_shell_it_is_called_from_survives_and_is_named(root: Path) -> None:
    environment = {**os.environ, **dict([run_mark_entry(root).split("=")])}
    script = f"echo $$; {' '.join(BARE)} {root}; echo code $?; sleep 60 & {' '.join(BARE)} {root} >/dev/null; wait $!; echo $?"
    done = subprocess.run(["/bin/sh", "-c", script], env=environment, capture_output=True, text=True, timeout=60)
    assert "code 1" in done.stdout, done.stdout + done.stderr
    assert f"pid {done.stdout.split()[0]} carries" in " ".join(done.stdout.split())
    assert done.stdout.count("was spared") == 1
    assert done.stdout.endswith("137\n")  # its child is no ancestor, and died


def test_two_kills_at_once_both_end_and_both_prove(root: Path, engine: subprocess.Popen) -> None:
    both = [subprocess.Popen([*BARE, str(root)], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=60)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert engine.wait(10) == -9


@as_root
def test_a_full_disk_stops_no_kill(root: Path, engine: subprocess.Popen) -> None:
    with small_disk(root) as full:
        with contextlib.suppress(OSError), open(full / "ballast", "wb", buffering=0) as file:
            while True:
                file.write(b"x" * 4096)
        done = subprocess.run([*BARE, str(full)], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "trial t2" in done.stdout
        assert "No space left" in " ".join(done.stdout.split())
        assert engine.wait(10) == -9
        assert kill.read_latch(full) is not None  # an empty latch latches


@as_root
def test_a_read_only_disk_stops_no_kill(root: Path, engine: subprocess.Popen) -> None:
    with small_disk(root) as frozen:
        subprocess.run(["mount", "-o", "remount,ro", str(frozen)], check=True)
        for _ in range(2):
            done = subprocess.run([*BARE, str(frozen)], capture_output=True, text=True, timeout=60)
            assert done.returncode == 0, done.stdout + done.stderr
            assert "latched: NO" in done.stdout
        assert engine.wait(10) == -9


@as_root
def test_another_user_is_told_that_nothing_is_proved(root: Path, engine: subprocess.Popen) -> None:
    code = (
        f"import os, sys; sys.path.insert(0, {str(PROJECT)!r})\nfrom pathlib import Path\nfrom engine.client import kill\n"
        "os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)\n"
        "sys.exit(kill.print_report(kill.kill_run(Path(sys.argv[1]), actor='x', reason='y', deadline=1.0)))"
    )
    for mode, says in ((0o755, "cannot be signalled (Operation not permitted)"), (0o700, "Permission denied")):
        for folder in (root, RunPaths(root).procs, *root.parents):
            if folder.is_relative_to(root) or (folder.stat().st_uid == 0 and not folder.stat().st_mode & stat.S_ISVTX):
                folder.chmod(mode if folder.is_relative_to(root) else 0o755)
        for path in (RunPaths(root).lock, *RunPaths(root).procs.iterdir()):
            path.chmod(0o644)
        done = subprocess.run([sys.executable, "-c", code, str(root)], capture_output=True, text=True, timeout=60)
        assert done.returncode == 1, done.stdout + done.stderr
        assert says in " ".join(done.stdout.split())
        assert "as the user who started the run or as root" in done.stdout
        assert engine.poll() is None
    root.chmod(0o700)


@pytest.mark.parametrize("name", ["with spaces", "line\nbreak", os.fsdecode(b"not-\xff-text"), "\x1b[2J"])
def test_any_path_will_do(tmp_path: Path, name: str) -> None:
    root = tmp_path / name
    RunPaths(root).create()
    worker = subprocess.Popen(["/bin/sleep", "60"], env=dict([run_mark_entry(root).split("=")]))
    done = subprocess.run([*BARE, str(root)], capture_output=True, env={"PYTHONIOENCODING": "ascii"}, timeout=60)
    assert worker.wait(10) == -9
    assert done.returncode == 0, done.stderr
    assert b"proved" in done.stdout
    assert b"\x1b" not in done.stdout


@pytest.mark.parametrize("target", ["/dev/full", "closed"])
def test_an_output_that_takes_nothing_does_not_change_the_exit_code(root: Path, target: str) -> None:
    redirect = ">&-" if target == "closed" else f">{target}"
    done = subprocess.run(["/bin/sh", "-c", f'"$@" {redirect}', "sh", *BARE, str(root)], timeout=60)
    assert done.returncode == 0


def test_thousands_of_stale_records_do_not_hide_the_living(root: Path, engine: subprocess.Popen) -> None:
    for index in range(3000):
        write(root, record_of(2**22 + 5, 7, id=f"a{index:05}", pid_namespace=4_026_530_001))
    report = kill_run(root, actor="tester", reason="test", deadline=30.0)
    assert report.proved, report.unproved
    assert engine.wait(10) == -9
    assert len(report.rows) >= 3003
    assert len(format_report(report).splitlines()) < 25


def test_the_table_fits_a_terminal_and_ends_with_the_verdict() -> None:
    rows = [Row(f"trial e{index:04}-s0", [1, 2, 3], 10.0 + index, "init, namespace, cgroup gone", True) for index in range(64)]
    rows.append(Row("engine", [9], 1.0, "process gone", True))
    rows.insert(40, Row("trial " + "x" * 80, [7], 10_000.0, "alive in its namespace: " + "7 " * 90, False))
    problems = [f"procs/{index}.json cannot be read" for index in range(500)]
    report = KillReport("/" + "deep/" * 40, True, rows, problems, 12_345.6, frozenset(), frozenset({"ASI_RUN_MARK=1"}), 99.0)
    lines = format_report(report).splitlines()
    words = " ".join(lines)
    assert "NOT PROVED" in words and "and 53 more" in words and "488 more of this kind" in words
    assert len(lines) < 50
    assert all(len(line) <= 80 for line in lines if "deep/deep" not in line), lines
    assert "NOT everything" in "\n".join(lines[-3:])
    good = format_report(report._replace(rows=rows[:40], unproved=[])).splitlines()
    assert good[-1].strip() == "everything is dead: proved"


HOPPER = """
import os, time
def hop():
    while True:
        try:
            if os.fork():
                return
        except OSError:
            continue
if os.fork() == 0:
    hop()
    os._exit(0)
open("ready", "w").close()
time.sleep(60)
"""


@pytest.mark.parametrize("grouped", [True, False])
async def test_what_hops_from_pid_to_pid_is_frozen_in_place(root: Path, grouped: bool) -> None:
    means = Isolation.detect()
    if not means.bwrap:
        pytest.skip("bubblewrap does not work here")
    if grouped and means.cgroup is None:
        pytest.skip("no control groups here")
    launcher = Launcher(root, means if grouped else msgspec.structs.replace(means, cgroup=None))
    argv = (sys.executable, "-I", "-S", "-c", HOPPER)
    trials = [
        await launcher.start(SandboxSpec(id=f"f{index}", argv=argv, workdir=root / "trials" / f"f{index}"))
        for index in range(3)
    ]
    await asyncio.to_thread(wait_ready, root, 3)
    report = freeze_run(root)
    assert report.complete, report.errors
    await asyncio.sleep(0.1)
    assert freeze_run(root).pids == report.pids  # nobody moved on
    assert processes.state(os.getpid()) not in freeze.STOPPED
    assert thaw_run(root).complete
    os.mkfifo(RunPaths(root).procs / "f9.json")  # one that cannot be read holds up none of the others
    broken = freeze_run(root)
    assert not broken.complete
    assert "f9" in str(broken.errors)
    assert set(report.pids) & set(broken.pids)
    (RunPaths(root).procs / "f9.json").unlink()
    assert thaw_run(root).complete
    for trial in trials:
        assert (await trial.kill()).signal == 9


def test_a_sandbox_whose_record_cannot_be_read_is_frozen_by_its_marks(root: Path) -> None:
    (RunPaths(root).procs / "lost.json").write_text("{")
    mark = dict([run_mark_entry(root).split("=")])
    lost = subprocess.Popen(["/bin/sleep", "60"], env={**mark, SANDBOX_MARK: "lost"})
    engine = subprocess.Popen(["/bin/sleep", "60"], env=mark)
    try:
        report = freeze_run(root)
        assert report.pids == [lost.pid]
        assert not report.complete
        assert processes.state(lost.pid) == "T"
        assert processes.state(engine.pid) == "S"
        thaw_run(root)
        assert processes.state(lost.pid) not in freeze.STOPPED
    finally:
        for process in (lost, engine):
            process.kill()
            process.wait()


async def test_without_namespaces_a_stopped_tree_is_still_proved_dead(root: Path) -> None:
    launcher = Launcher(root, msgspec.structs.replace(Isolation.detect(), bwrap="", cgroup=None))
    code = "import os, time\nif os.fork() == 0: os.setsid()\ntime.sleep(60)"
    trial = await launcher.start(
        SandboxSpec(id="bare", argv=(sys.executable, "-I", "-S", "-c", code), workdir=root / "trials" / "bare")
    )
    assert (await trial.freeze()).complete
    os.kill(trial.init_pid, signal.SIGSTOP)
    (row,) = strike.kill_sandboxes([trial.record])
    assert row.proved, row.proof
    await trial.wait()
