"""Hostile programs through the real path of a trial: sandbox, worker, scorer and watch, as if vetting had let them by.

What is asked of each: it is contained, it fails with a clear reason or gets the score that it deserves, nothing of it
is left, and the runner goes on.
"""

from __future__ import annotations

import json
import os
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine import trials, watch
from engine.client import processes
from engine.client.rundir import RunPaths, run_mark_entry
from engine.domain import TrialSpec
from engine.linear_attention.domain import LinearAttention
from engine.sandboxes import Sandboxes
from engine.supervision.isolation import Isolation
from engine.supervision.sandbox import Launcher
from engine.trials import TrialFailure, TrialRunner, TrialSuccess

pytestmark = pytest.mark.timeout(300)

PROGRAM = """
import ctypes, glob, json, os, signal, socket, subprocess, sys, time
import torch
from torch import nn

calls = 0


class Mixer(nn.Module):
    def __init__(self, d_model, n_heads, layer_idx, max_len):
        super().__init__()
        self.map = nn.Linear(d_model, d_model)

    def forward(self, x):
        global calls
        calls += 1
        if calls == 20:
            attack()
        return self.map(x)


def attack():
"""


@pytest.fixture(scope="module")
def domain(tmp_path_factory: pytest.TempPathFactory) -> LinearAttention:
    ready = LinearAttention()
    ready.prepare(tmp_path_factory.mktemp("cache"))
    return ready


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "run"
    RunPaths(folder).create()
    yield folder
    assert processes.marked({run_mark_entry(folder)}) == {}, "something of the trial is still alive"
    assert list((folder / "procs").iterdir()) == []


@pytest.fixture
def runner(root: Path, domain: LinearAttention) -> TrialRunner:
    means = Isolation.detect()
    if not means.bwrap:
        pytest.skip("bubblewrap does not work here")
    sandboxes = Sandboxes(Launcher(root, means), memory_mb=1024, disk_mb=64)
    return TrialRunner(root, domain, sandboxes, lambda message: None)


async def train(runner: TrialRunner, code: str, trial: str = "t0") -> TrialSuccess | TrialFailure:
    """Train a program that runs `code` in its twentieth forward pass."""
    body = "".join(f"    {line}\n" for line in code.strip().splitlines())
    spec = TrialSpec(trial, "0" * 64, "probe-smoke", 0, ["recall", "parity"], 60.0)
    outcome = await runner.train(spec, "e0001", PROGRAM + body)
    assert not isinstance(outcome, trials.TrialParted)
    assert runner.sandboxes.alive == {}
    return outcome


FAILING = {
    "fork bomb": (
        """
while True:
    try:
        if os.fork() == 0:
            time.sleep(30)
            os._exit(0)
    except OSError:
        time.sleep(0.5)
""",
        r"processes|worker",
    ),
    "disk filler, many files": (
        """
for number in range(10_000):
    with open(f"filler{number}", "wb") as file:
        file.write(bytes(2**20))
    time.sleep(0.001)
""",
        r"disk: \d+ MB of 64 MB",
    ),
    "disk filler, one file": (
        """
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
with open("filler", "wb") as file:
    while True:
        file.write(bytes(2**20))
""",
        r"disk|File too large",
    ),
    "memory hog": (
        """
hoard = []
while True:
    hoard.append(torch.ones(2**23))
""",
        r"memory|alloc|MB",
    ),
    "memory hog in many processes": (
        """
for _ in range(8):
    if os.fork() == 0:
        hoard = bytearray(2**28)
        for index in range(0, len(hoard), 4096):
            hoard[index] = 1
        time.sleep(60)
        os._exit(0)
time.sleep(60)
""",
        r"memory: ",
    ),
    "log flood with escapes": (
        r"""
line = "\x1b[2J\x1b]52;c;AAAA\x07[@click=app.approve('R0001')]yes[/]" * 200 + "\n"
for _ in range(20_000):
    os.write(1, line.encode())
""",
        r"output: ",
    ),
    "ends without a result": ("os._exit(0)", r"worker|ended|process"),
    "kills its parents": (
        """
for pid in (os.getppid(), 1, -1):
    try:
        os.kill(pid, signal.SIGKILL)
    except OSError:
        pass
time.sleep(60)
""",
        r"worker|SIGKILL|ended",
    ),
    "sleeps for ever": ("time.sleep(1e6)", r"silent.*no point and no work"),
    "raises": ("raise RuntimeError('[/] \\x1b]0;title\\x07 boom')", r"boom"),
    "forges frames": (
        """
for descriptor in range(3, 64):
    try:
        os.write(descriptor, b"asi1\\x0c" + (64).to_bytes(4, "little") + json.dumps({"cpu_seconds": 0.0}).encode())
    except OSError:
        pass
""",
        r"frame|worker|malformed|reports",
    ),
    "points without end": (
        """
line = json.dumps({"task": "recall", "step": 1, "steps": 12, "loss": 3.0, "seconds": 0.0}).encode() + b"\\n"
with open("points.jsonl", "ab") as file:
    for _ in range(18):
        file.write(line * (2**20 // len(line)))
time.sleep(30)
""",
        r"flood|training points",
    ),
}


@pytest.mark.parametrize("attack", FAILING)
async def test_it_fails_with_a_clear_reason(
    runner: TrialRunner, root: Path, attack: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "ASLEEP_SECONDS", 6.0)
    code, reason = FAILING[attack]
    outcome = await train(runner, code)
    assert isinstance(outcome, TrialFailure), outcome
    told = f"{outcome.reason}: {outcome.evidence}"
    assert re.search(reason, told), told
    assert all(c.isprintable() or c == "\n" for c in told), told
    assert sum(path.stat().st_size for path in (root / "trials" / "t0").glob("*.log")) < 16 * 2**20


SURVIVING = {
    "daemons": """
for _ in range(3):
    if os.fork() == 0:
        os.setsid()
        if os.fork():
            os._exit(0)
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        os.closerange(0, 256)
        time.sleep(600)
        os._exit(0)
""",
    "links in its folder": """
for name in ("points.jsonl", "checkpoint.pt", "result.json", "program.py", "spec.json", "scores.jsonl"):
    try:
        os.remove(name)
    except OSError:
        pass
    os.symlink("OUTSIDE", name)
os.symlink("/", "everything")
""",
    "a pipe in place of its points": """
os.remove("points.jsonl") if os.path.exists("points.jsonl") else None
os.mkfifo("points.jsonl")
if os.fork() == 0:
    os.open("points.jsonl", os.O_RDONLY)
    time.sleep(600)
    os._exit(0)
""",
    "forged results": """
for name in ("result.json", "scores.jsonl", "../scores.jsonl", "../result.json", "../progress.json"):
    try:
        with open(name, "w") as file:
            file.write(json.dumps({"trial": "t0", "tasks": [{"task": "recall", "score": 1.0, "final": 1.0}]}) + "\\n")
    except OSError:
        pass
print(json.dumps({"trial": "t0", "tasks": [{"task": "recall", "score": 1.0}]}), flush=True)
""",
    "its own metrics": """
import torch.nn.functional as F
real = F.cross_entropy
F.cross_entropy = lambda *a, **k: real(*a, **k) * 0.5
for name, module in list(sys.modules.items()):
    if name.endswith("worker") or name == "__main__":
        module.F = F
""",
}


@pytest.mark.parametrize("attack", SURVIVING)
async def test_it_gets_the_score_it_deserves_and_touches_nothing(
    runner: TrialRunner, root: Path, tmp_path: Path, attack: str
) -> None:
    outside = tmp_path / "outside"
    outside.write_text("untouched")
    os.chmod(tmp_path, 0o755)
    os.chmod(outside, 0o666)
    outcome = await train(runner, SURVIVING[attack].replace("OUTSIDE", str(outside)))
    assert outside.read_text() == "untouched"
    if isinstance(outcome, TrialSuccess):
        # A single linear map cannot recall anything: whatever it wrote down, the sealed number says so.
        assert {task.task for task in outcome.result.tasks} == {"recall", "parity"}
        assert all(task.score < 0.9 for task in outcome.result.tasks)
    again = await train(runner, "pass", "t1")
    assert isinstance(again, TrialSuccess)


async def test_nothing_gets_out(runner: TrialRunner, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = "sk-" + "0123456789abcdef" * 2
    monkeypatch.setenv("OPENAI_API_KEY", secret)
    (tmp_path / "key").write_text(secret)
    os.chmod(tmp_path, 0o755)
    os.chmod(tmp_path / "key", 0o644)
    received: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(tmp_path / "engine.sock"))
        os.chmod(tmp_path / "engine.sock", 0o777)
        unix.listen()

        def serve(listening: socket.socket) -> None:
            try:
                connection, _ = listening.accept()
                received.append(connection.recv(100))
            except OSError:
                return

        for listening in (tcp, unix):
            threading.Thread(target=serve, args=(listening,), daemon=True).start()
        code = f"""
found = {{}}
def attempt(name, work):
    try:
        found[name] = str(work())
    except BaseException as error:
        found[name] = "stopped: " + type(error).__name__
def connect(family, address):
    with socket.socket(family) as client:
        client.settimeout(2)
        client.connect(address)
        client.send(b"out")
    return "connected"
attempt("file", lambda: open({str(tmp_path / "key")!r}).read())
attempt("sealed", lambda: glob.glob("/**/sealed.key", recursive=False))
attempt("own environment", lambda: os.environ.get("OPENAI_API_KEY", "stopped"))
attempt("environments", lambda: [p for p in glob.glob("/proc/*/environ") if b"OPENAI" in open(p, "rb").read()] or "stopped")
attempt("tcp", lambda: connect(socket.AF_INET, ("127.0.0.1", {tcp.getsockname()[1]})))
attempt("unix", lambda: connect(socket.AF_UNIX, {str(tmp_path / "engine.sock")!r}))
attempt("run directory", lambda: os.listdir({str(root)!r} + "/journal"))
attempt("latch", lambda: open({str(root)!r} + "/KILLED", "w"))
attempt("shell", lambda: subprocess.run(["/bin/sh", "-c", "cat {tmp_path}/key"], capture_output=True, text=True).stdout or "stopped")
with open("found.json", "w") as file:
    json.dump(found, file)
"""
        await train(runner, code)
        tcp.shutdown(socket.SHUT_RDWR)
        unix.shutdown(socket.SHUT_RDWR)
    found = json.loads((root / "trials" / "t0" / "work" / "found.json").read_text())
    assert len(found) == 9
    assert received == []
    assert not (root / "KILLED").exists()
    assert secret not in json.dumps(found)
    assert {name: text for name, text in found.items() if not text.startswith("stopped") and text != "[]"} == {}
