"""What a sandboxed program can and cannot do, in real sandboxes."""

from __future__ import annotations

import asyncio
import json
import marshal
import os
import shutil
import socket
import threading
import time
from pathlib import Path

import msgspec
import pytest

from engine.client import kill, processes
from engine.client.records import read_records
from engine.client.rundir import RunPaths
from engine.supervision import cgroup, folders, registry, sandbox, usage
from engine.supervision.isolation import Isolation
from engine.supervision.sandbox import Latched, Launcher, LaunchFailed
from engine.supervision.watching import LimitWatch

from .conftest import Run, python


async def test_it_writes_its_folder_and_nothing_else(run: Run, launcher: Launcher, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("secret")
    outside.chmod(0o666)
    code = f"""
import os
open("mine", "w").write("x")
try:
    print("READ", open({str(outside)!r}).read())
except OSError:
    pass
try:
    open({str(outside)!r}, "w").write("changed")  # in a /tmp of its own, it may well be able to
except OSError:
    pass
for path, mode in (("/etc/passwd", "r"), ("/x", "w"), ("/dev/x", "w"),
                   (os.__file__, "a"), ("/proc/sys/kernel/core_pattern", "w")):
    try:
        open(path, mode)
    except OSError as error:
        continue
    print("OPENED", path, mode)
print("done")
"""
    ended, output = await run(code)
    assert (ended.ok, output) == (True, "done\n")
    assert (launcher.run_root / "trials/t/mine").read_text() == "x"
    assert outside.read_text() == "secret"


async def test_it_has_no_network_but_unix_sockets(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        code = f"""
import socket
pair = socket.socketpair()
pair[0].send(b"x")
socket.socket(socket.AF_UNIX)
for family in (socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK, 40):
    try:
        socket.socket(family, socket.SOCK_DGRAM)
    except OSError:
        continue
    print("OPENED", family)
try:
    socket.create_connection(("127.0.0.1", {server.getsockname()[1]}), 2)
    print("CONNECTED")
except OSError:
    print("refused")
"""
        assert (await run(code))[1] == "refused\n"


async def test_its_environment_is_built_from_nothing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    code = """
import os, json
fds = sorted(int(fd) for fd in os.listdir("/proc/self/fd"))
everything = b""
for pid in filter(str.isdigit, os.listdir("/proc")):
    try:
        everything += open(f"/proc/{pid}/environ", "rb").read()
    except OSError:
        continue
print(json.dumps([dict(os.environ), b"sk-secret" in everything, fds[:3], len(fds), os.getcwd()]))
"""
    _, output = await run(code, environment={"EXTRA": "1"})
    environment, leaked, first, count, folder = json.loads(output)
    assert "OPENAI_API_KEY" not in environment
    assert not leaked
    assert (environment["EXTRA"], environment["ASI_SANDBOX"], environment["HOME"]) == ("1", "t", folder)
    assert first == [0, 1, 2]
    assert count == 4  # and the one that lists the folder


async def test_a_file_descriptor_can_be_handed_in(launcher: Launcher) -> None:
    ours, theirs = os.pipe()
    spec = python(f"import os; os.write({theirs}, b'hello')", "fd", launcher.run_root, pass_fds=[theirs])
    process = await launcher.start(spec)
    os.close(theirs)
    await process.wait()
    assert os.read(ours, 100) == b"hello"
    os.close(ours)


async def test_a_process_bomb_stays_inside_its_limit(run: Run) -> None:
    code = """
import os, time
count = 0
try:
    while count < 200:
        if os.fork() == 0:
            time.sleep(30)
            os._exit(0)
        count += 1
except OSError:
    pass
print(count, flush=True)
"""
    _, output = await run(code, processes=20)
    if os.geteuid() == 0 and output == "200\n":
        pytest.skip("this root cannot leave its user id")
    assert 5 < int(output) <= 20


@pytest.mark.parametrize(
    ("code", "limits", "why"),
    [
        ("import time\nx = []\nfor _ in range(40):\n open(str(_), 'wb').write(bytes(4 << 20)); time.sleep(.1)",
         {"disk_mb": 20}, "disk"),
        ("import os, time\nfds = []\nfor _ in range(40):\n f = os.memfd_create('x'); os.write(f, bytes(4 << 20))"
         "\n fds.append(f); time.sleep(.05)", {"memory_mb": 80}, "memory"),
        ("import os, time\nfds = []\nfor _ in range(40):\n f = open('x', 'wb', 0); f.write(bytes(4 << 20)); os.unlink('x')"
         "\n fds.append(f); time.sleep(.05)", {"disk_mb": 20}, "deleted"),
        ("import os, time\nfor _ in range(20):\n os.mkdir('x' * 250); os.chdir('x' * 250)"
         "\nopen('hidden', 'w'); time.sleep(60)", {}, "cannot be read"),
        ("import mmap, time\nm = mmap.mmap(-1, 300 << 20)\n[m.write(bytes(1 << 20)) for _ in range(300)]"
         "\ntime.sleep(30)",
         {"memory_mb": 200}, "memory"),
        ("import os\nos.fork(); os.fork()\nwhile True: pass", {"cpu_seconds": 2}, "CPU"),
        ("import os, time\nfor _ in range(24):\n  if os.fork() == 0: time.sleep(60)\ntime.sleep(60)",
         {"processes": 30}, "processes: 2"),
        ("import time\nwhile True:\n print('\\x1b[2J' * 20_000, flush=True); time.sleep(.01)", {"log_mb": 2}, "output: "),
    ],
)  # fmt: skip
async def test_the_watch_kills_what_the_kernel_does_not_limit(run: Run, code: str, limits: dict, why: str) -> None:
    ended, _ = await run(code, **limits)
    assert why in ended.reason
    assert ended.signal == 9


async def test_exit_codes_and_signals_come_through(run: Run) -> None:
    assert (await run("raise SystemExit(3)", "a"))[0] == sandbox.Exit(3, None)
    assert (await run("import os; os.abort()", "b"))[0].signal == 6
    assert (await run("pass", "c"))[0].ok


async def test_the_record_is_on_disk_before_the_program_runs_and_gone_after(
    launcher: Launcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker = launcher.run_root / "trials/t/ran"
    real = registry.register
    seen = []

    def slow(root: Path, record: kill.Record) -> None:
        time.sleep(0.5)
        seen.append(marker.exists())
        real(root, record)

    monkeypatch.setattr(registry, "register", slow)
    process = await launcher.start(python("open('ran', 'w'); import time; time.sleep(30)", "t", launcher.run_root))
    (record,), problems = read_records(launcher.run_root)
    assert (seen, problems) == ([False], [])
    assert record == process.record
    assert processes.pid_namespace(record.init_pid) == record.pid_namespace != processes.pid_namespace("self")
    ended = await process.kill("enough")
    assert (ended.signal, ended.reason, process.proved) == (9, "enough", True)
    assert read_records(launcher.run_root) == ([], [])


async def test_nothing_runs_when_the_record_cannot_be_written(
    launcher: Launcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(root: Path, record: kill.Record) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(registry, "register", full)
    with pytest.raises(LaunchFailed, match="No space left"):
        await launcher.start(python("open('ran', 'w')", "t", launcher.run_root))
    assert not (launcher.run_root / "trials/t/ran").exists()


async def test_the_latch_blocks_a_launch(launcher: Launcher) -> None:
    kill.write_latch(launcher.run_root, "me", "test")
    with pytest.raises(Latched, match="me: test"):
        await launcher.start(python("open('ran', 'w')", "t", launcher.run_root))
    kill.clear_latch(launcher.run_root)
    assert (await (await launcher.start(python("pass", "t", launcher.run_root))).wait()).ok


async def test_a_launch_that_races_the_latch_loses(launcher: Launcher, monkeypatch: pytest.MonkeyPatch) -> None:
    real = registry.register

    def latch_first(root: Path, record: kill.Record) -> None:
        real(root, record)
        kill.write_latch(root, "me", "race")

    monkeypatch.setattr(registry, "register", latch_first)
    with pytest.raises(Latched):
        await launcher.start(python("open('ran', 'w')", "t", launcher.run_root))
    assert not (launcher.run_root / "trials/t/ran").exists()
    assert read_records(launcher.run_root) == ([], [])


async def test_sandboxes_start_on_the_main_thread_only(launcher: Launcher) -> None:
    failures = []

    def elsewhere() -> None:
        try:
            asyncio.run(launcher.start(python("pass", "t", launcher.run_root)))
        except LaunchFailed as error:
            failures.append(str(error))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    await asyncio.to_thread(thread.join)
    assert "main thread" in failures[0]


async def test_bad_specifications_are_refused(launcher: Launcher) -> None:
    for bad in ("../x", "", "a/b", ".hidden"):
        with pytest.raises(LaunchFailed, match="id"):
            await launcher.start(python("pass", bad, launcher.run_root))


@pytest.mark.parametrize("kind", ["launcher", "unshare_launcher", "bare_launcher"])
async def test_freeze_and_thaw(kind: str, request: pytest.FixtureRequest) -> None:
    launcher: Launcher = request.getfixturevalue(kind)
    code = """
import os, time
os.fork()
name = f"beat{os.getpid()}"
while True:
    open(name, "a").write("x")
    time.sleep(.005)
"""
    process = await launcher.start(python(code, "t", launcher.run_root))
    folder = launcher.run_root / "trials/t"

    def beats() -> int:
        return sum(path.stat().st_size for path in folder.glob("beat*"))

    async def beating(previous: int) -> None:
        async with asyncio.timeout(30):
            while beats() <= previous + 4 or len(list(folder.glob("beat*"))) < 2:
                await asyncio.sleep(0.02)

    await beating(0)
    report = await process.freeze()
    assert report.complete
    assert len(report.pids) >= 2
    at_freeze = beats()
    await asyncio.sleep(0.3)
    assert beats() == at_freeze
    assert (await process.thaw()).complete
    await beating(at_freeze)
    await process.freeze()
    await process.kill()  # a frozen tree dies like any other
    assert process.proved


async def test_without_namespaces_the_shim_reaps_the_whole_tree(bare_launcher: Launcher) -> None:
    code = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        open("daemon", "w").write(str(os.getpid()))
        time.sleep(60)
    os._exit(0)
time.sleep(60)
"""
    process = await bare_launcher.start(python(code, "t", bare_launcher.run_root))
    marker = bare_launcher.run_root / "trials/t/daemon"
    async with asyncio.timeout(30):
        while not (marker.exists() and marker.read_text()):
            await asyncio.sleep(0.02)
    daemon = int(marker.read_text())
    assert processes.state(daemon) == "S"
    await process.kill()
    assert process.proved
    assert processes.state(daemon) in processes.DEAD


@pytest.mark.parametrize("kind", ["launcher", "unshare_launcher"])
async def test_a_sandbox_dies_with_the_engine(kind: str, request: pytest.FixtureRequest) -> None:
    """The engine is killed by SIGKILL in the middle of a trial."""
    launcher: Launcher = request.getfixturevalue(kind)
    root = launcher.run_root
    child = os.fork()
    if child == 0:

        async def engine() -> None:
            await launcher.start(python("import time; time.sleep(120)", "t", root))
            await asyncio.sleep(120)

        try:
            asyncio.set_event_loop(None)
            asyncio._set_running_loop(None)
            asyncio.run(engine())
        finally:
            os._exit(1)
    async with asyncio.timeout(60):
        while not (RunPaths(root).procs / "t.json").exists():
            await asyncio.sleep(0.02)
    (record,), _ = read_records(root)
    os.kill(child, 9)
    await asyncio.to_thread(os.waitpid, child, 0)
    async with asyncio.timeout(20):
        while processes.is_alive(record.init_pid, record.init_start):
            await asyncio.sleep(0.01)
    assert kill.kill_sandboxes([record])[0].proved


async def test_a_flooded_log_keeps_its_beginning_and_its_end(launcher: Launcher) -> None:
    code = "import os\nprint('first', flush=True)\nos.write(1, b'x' * (3 << 20))\nprint('\\nlast', flush=True)"
    process = await launcher.start(python(code, "t", launcher.run_root, log_mb=1))
    await process.wait()
    log = (launcher.run_root / "t.log").read_bytes()
    assert len(log) < (1 << 20) + 100
    assert log.startswith(b"first")
    assert log.endswith(b"last\n")
    assert b"left out" in log


MEMORY_BY_MANY = """
import os, time
for _ in range(6):
    if os.fork() == 0:
        block = bytearray(64 << 20)
        for place in range(0, len(block), 4096):
            block[place] = 1
        time.sleep(60)
        os._exit(0)
time.sleep(60)
"""


async def test_the_kernel_limits_the_memory_of_the_whole_tree(
    launcher: Launcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    if launcher.isolation.ceiling < 3:
        pytest.skip("no cgroup with a memory controller can be made here")
    monkeypatch.setattr(LimitWatch, "_memory", lambda self, now: "")  # the kernel alone
    process = await launcher.start(python(MEMORY_BY_MANY, "t", launcher.run_root, memory_mb=200))
    group = process._group
    assert group is not None
    async with asyncio.timeout(60):
        while not group.out_of_memory():
            await asyncio.sleep(0.02)
    ended = await process.kill()
    assert ended.reason == "memory: the kernel's limit of 200 MB was reached"
    assert not any(folder.exists() for folder in group.folders)


async def test_groups_that_a_dead_engine_left_are_swept(launcher: Launcher) -> None:
    parent = launcher.isolation.cgroup
    if parent is None:
        pytest.skip("no cgroups can be made here")
    running = await launcher.start(python("import time; time.sleep(60)", "t", launcher.run_root))
    left = cgroup.create(parent, f"{launcher._group_prefix}left", 100, 10)
    other = cgroup.create(parent, "asi-00000000-other", 100, 10)
    assert left is not None
    assert other is not None
    launcher.sweep_groups()
    assert not any(folder.exists() for folder in left.folders)
    assert all(folder.exists() for folder in other.folders)
    assert running._group is not None
    assert all(folder.exists() for folder in running._group.folders)
    other.remove()
    await running.kill()


PRIVILEGES = """
fields = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(*(fields[name].split()[0] for name in ("NoNewPrivs", "Seccomp", "CapEff", "CapPrm")))
print(*fields["Uid"].split())
"""


@pytest.mark.parametrize("kind", ["launcher", "unshare_launcher", "bare_launcher"])
async def test_every_protection_is_really_on(kind: str, request: pytest.FixtureRequest) -> None:
    launcher: Launcher = request.getfixturevalue(kind)
    process = await launcher.start(python(PRIVILEGES, "t", launcher.run_root))
    assert (await process.wait()).ok
    first, second = (launcher.run_root / "t.log").read_text().splitlines()
    assert first.split() == ["1", "2", "0" * 16, "0" * 16]
    if launcher.isolation.guest("t") is not None:
        assert "0" not in second.split()


async def test_with_unshare_the_death_is_proved_by_the_namespace(unshare_launcher: Launcher) -> None:
    code = """
import os, signal, time
for number in (signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
if os.fork() == 0:
    os.setsid()
    if os.fork():
        os._exit(0)
    open("daemon", "w").write("up")
    time.sleep(60)
    os._exit(0)
time.sleep(60)
"""
    process = await unshare_launcher.start(python(code, "t", unshare_launcher.run_root))
    assert process.record.pid_namespace
    async with asyncio.timeout(30):
        while not (unshare_launcher.run_root / "trials/t/daemon").exists():
            await asyncio.sleep(0.02)
    await process.kill()
    assert process.proved
    assert processes.namespace_members([(process.record.pid_namespace, process.record.init_start)]) == {}


def test_without_bubblewrap_it_says_so_and_takes_the_next_best(monkeypatch: pytest.MonkeyPatch) -> None:
    real = shutil.which
    monkeypatch.setattr(shutil, "which", lambda name, *args, **more: None if name == "bwrap" else real(name, *args, **more))
    found = Isolation.detect()
    assert not found.bwrap
    assert found.ceiling <= 1
    assert "bubblewrap (bwrap) is not installed" in found.trouble
    monkeypatch.setattr(shutil, "which", lambda *args, **more: None)
    nothing = Isolation.detect()
    assert not nothing.unshare
    assert any("unshare" in line for line in nothing.trouble)


def test_only_the_granted_gpu_is_bound_in(means: Isolation, tmp_path: Path) -> None:
    with_bwrap = msgspec.structs.replace(means, bwrap="/usr/bin/bwrap")
    spec = python("pass", "t", tmp_path, gpus=(1,))
    command = with_bwrap.command(spec, {}, 3, 4, 5)
    devices = [command[index + 1] for index, word in enumerate(command) if word == "--dev-bind-try"]
    assert "/dev/nvidia1" in devices
    assert "/dev/nvidia0" not in devices
    assert "/dev/nvidiactl" in devices
    wrapper = marshal.loads(bytes.fromhex(command[-1]))
    assert "/dev/nvidia1" in wrapper["landlock"]["write"] if wrapper["landlock"] else True
    assert "DATA" not in wrapper["limits"]
    none = with_bwrap.command(python("pass", "t", tmp_path), {}, 3, 4, 5)
    assert not any("nvidia" in word for word in none)


async def test_a_protection_that_cannot_be_applied_keeps_the_program_from_running(launcher: Launcher) -> None:
    broken = msgspec.structs.replace(launcher.isolation, filter="ff" * 8)
    process = await Launcher(launcher.run_root, broken).start(python("open('ran', 'w')", "t", launcher.run_root))
    ended = await process.wait()
    assert (ended.code, ended.reason) == (98, sandbox.OWN_NUMBERS[98])
    assert "seccomp" in (launcher.run_root / "t.log").read_text()
    assert not (launcher.run_root / "trials/t/ran").exists()


async def test_what_was_written_in_the_last_moment_counts(run: Run) -> None:
    ended, _ = await run("open('a', 'wb').write(bytes(9 << 20)); open('b', 'wb').write(bytes(9 << 20))", disk_mb=10)
    assert ended.reason.startswith("disk: ") and ended.reason.endswith(" of 10 MB")
    assert not ended.ok


async def test_a_full_disk_is_left_to_others(launcher: Launcher, monkeypatch: pytest.MonkeyPatch) -> None:
    process = await launcher.start(python("import time; time.sleep(60)", "t", launcher.run_root))
    monkeypatch.setattr(usage, "KEPT_FREE", 2**60)
    ended = await asyncio.wait_for(process.wait(), 30)
    assert "left on the whole disk" in ended.reason
    with pytest.raises(LaunchFailed, match="MB left"):
        await launcher.start(python("pass", "u", launcher.run_root))


async def test_files_in_memory_are_counted_once(launcher: Launcher) -> None:
    """A mapped file of /dev/shm is no more than its size, a file nobody maps is no less."""
    code = """
import mmap, os, time
with open("/dev/shm/mapped", "wb+") as file:
    file.truncate(100 << 20)
    mapping = mmap.mmap(file.fileno(), 0)
    for place in range(0, len(mapping), 4096):
        mapping[place] = 1
print("up", flush=True)
time.sleep(1)
open("/tmp/unmapped", "wb").write(bytes(80 << 20))
time.sleep(60)
"""
    without = msgspec.structs.replace(launcher.isolation, cgroup=None)
    process = await Launcher(launcher.run_root, without).start(
        python(code, "t", launcher.run_root, memory_mb=400, environment={})
    )
    process._limits._allowance = msgspec.structs.replace(process._limits._allowance, memory_mb=150)
    async with asyncio.timeout(30):
        while "up" not in (launcher.run_root / "t.log").read_text():
            await asyncio.sleep(0.02)
    await asyncio.sleep(0.5)
    assert process.usage().processes
    ended = await asyncio.wait_for(process.wait(), 30)
    assert ended.reason.startswith("memory: ")
    assert "files in memory" in ended.reason


async def test_shared_memory_of_its_own_without_bubblewrap(unshare_launcher: Launcher) -> None:
    mark = Path("/dev/shm") / f"asi-test-{os.getpid()}"
    code = f"""
import os
open({str(mark)!r}, "w")
status = os.statvfs("/dev/shm")
print(status.f_blocks * status.f_frsize >> 20)
if os.fork() == 0:
    os.abort()
print(os.waitstatus_to_exitcode(os.wait()[1]), os.getpid() > 1)
"""
    process = await unshare_launcher.start(python(code, "t", unshare_launcher.run_root, memory_mb=256))
    assert (await process.wait()).ok
    assert (unshare_launcher.run_root / "t.log").read_text() == "64\n-6 True\n"
    assert not mark.exists()


def test_an_unreadable_folder_is_noticed(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root can read every folder")
    folder = tmp_path / "x"
    folder.mkdir()
    (folder / "hidden").write_bytes(bytes(100_000))
    folder.chmod(0o300)
    assert usage.folder_size(tmp_path).unreadable
    folders.remove(folder)
    assert not folder.exists()


def test_a_hostile_folder_is_removed_and_nothing_else(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("stays")
    hostile = tmp_path / "hostile"
    hostile.mkdir()
    (hostile / "link").symlink_to(outside)
    os.mkfifo(hostile / "pipe")
    before = os.getcwd()
    os.chdir(hostile)
    try:
        for _ in range(1500):
            os.mkdir("deep")
            os.chdir("deep")
        os.symlink(outside, "link")
    finally:
        os.chdir(before)
    folders.remove(hostile)
    assert not hostile.exists()
    assert (outside / "file").read_text() == "stays"
    folders.remove(hostile)


def test_handing_over_follows_no_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = []
    monkeypatch.setattr(os, "chown", lambda path, *ids, follow_symlinks: given.append((os.fspath(path), follow_symlinks)))
    (tmp_path / "work/folder").mkdir(parents=True)
    (tmp_path / "work/link").symlink_to("/etc")
    folders.hand_over(tmp_path / "work", 1234)
    assert {path for path, _ in given} == {str(tmp_path / name) for name in ("work", "work/folder", "work/link")}
    assert not any(follow for _, follow in given)
