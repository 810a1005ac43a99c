"""A trial that is frozen, or parked and resumed, ends as if nothing had happened; its checkpoint is never trusted."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import psutil
import pytest

from engine.domain import Point, ScorePoint, TaskResult, TrialResult, TrialSpec
from engine.linear_attention import baselines
from engine.linear_attention.account import Account, AccountError, TaskState, open_account
from engine.linear_attention.checkpoint import CHECKPOINT
from engine.linear_attention.corpus import CorpusInfo, build_corpus
from engine.linear_attention.tiers import TIERS, ScorerSpec, WorkerSpec, scorer_argv, worker_argv

TIER = TIERS["probe-smoke"]
TASKS = ["recall", "bytes"]

RESTLESS = '''
import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Mixer(nn.Module):
    """Dropout, weights drawn at will, and buffers: a constant one, one filled on first use, one that a step changes."""

    def __init__(self, d_model: int, n_heads: int, layer_idx: int, max_len: int) -> None:
        super().__init__()
        self.map = nn.Linear(d_model, d_model)
        self.drop = nn.Dropout(0.2)
        self.scale = nn.Parameter(torch.rand(d_model))
        self.register_buffer("decay", torch.rand(d_model), persistent=False)
        self.register_buffer("window", None, persistent=False)
        self.register_buffer("largest", torch.zeros(d_model), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.window is None:
            self.window = torch.rand(d := x.shape[-1]) / d
        if torch.is_grad_enabled() and self.training:
            self.largest = torch.maximum(self.largest, x.detach().abs().amax((0, 1)))
        return self.drop(self.map(x)) * self.scale * self.decay + x * self.window + self.largest * 1e-3
'''
# A scorer that asks itself to leave at its n-th request of a kind, and that finishes no evaluation then.
LEAVES = """
import os, signal, sys
from engine.linear_attention import leaving
leaving.ABANDON_SECONDS = 0.0
from engine.linear_attention import scorer, session, wire
kind, left = wire.Kind[sys.argv.pop(1)], int(sys.argv.pop(1))
send = session.Session._send
def counting(self, request, payload):
    global left
    left -= request == kind
    if left == 0 and request == kind:
        os.kill(os.getpid(), signal.SIGTERM)
    send(self, request, payload)
session.Session._send = counting
sys.exit(scorer.main())
"""
Moment = tuple[str, int]
SOURCES = {"restless": RESTLESS, "deltanet": baselines.source("deltanet")}
KEY = b"k" * 32


class Running:
    """One incarnation of a trial: worker and scorer as processes."""

    def __init__(self, folder: Path, moment: Moment | None) -> None:
        self.folder = folder
        to_worker, to_scorer = os.pipe(), os.pipe()
        fds = (to_worker[0], to_scorer[1])
        with (folder / "worker.log").open("ab") as log:
            argv = worker_argv(str(folder / "work"), *fds)
            self.worker = subprocess.Popen(argv, pass_fds=fds, stdout=log, stderr=log, cwd=folder / "work")
        fds = (to_scorer[0], to_worker[1])
        argv = scorer_argv(str(folder / "scorer.json"), *fds)
        if moment is not None:
            argv = [argv[0], "-c", LEAVES, moment[0], str(moment[1]), *argv[3:]]
        self.scorer = subprocess.Popen(argv, pass_fds=fds, stdout=subprocess.PIPE)
        for descriptor in (*to_worker, *to_scorer):
            os.close(descriptor)

    def result(self) -> TrialResult:
        output, _ = self.scorer.communicate(timeout=120)
        assert self.scorer.returncode == 0
        return msgspec.json.decode(output, type=TrialResult)

    def park(self) -> tuple[TrialResult, float]:
        """The answer to SIGTERM, and the seconds until it came."""
        started = time.monotonic()
        self.scorer.send_signal(signal.SIGTERM)
        return self.result(), time.monotonic() - started

    def processes(self) -> list[psutil.Process]:
        worker = psutil.Process(self.worker.pid)
        return [psutil.Process(self.scorer.pid), worker, *worker.children(recursive=True)]

    def wait_until(self, reached: Callable[[], bool]) -> None:
        until = time.monotonic() + 60
        while not reached():
            assert time.monotonic() < until
            assert self.scorer.poll() is None, "the trial was over too soon"
            time.sleep(0.002)

    def points(self) -> list[Point]:
        return read_lines(self.folder / "work" / "points.jsonl", Point)

    def scores(self) -> list[ScorePoint]:
        return read_lines(self.folder / "scores.jsonl", ScorePoint)

    def close(self) -> None:
        for process in (self.scorer, self.worker):
            with contextlib.suppress(psutil.NoSuchProcess):
                for item in [*psutil.Process(process.pid).children(recursive=True), process]:
                    item.kill()
            process.wait()
        assert self.scorer.stdout is not None
        self.scorer.stdout.close()


def read_lines(path: Path, kind: type) -> list:
    if not path.exists():
        return []
    return [msgspec.json.decode(line, type=kind) for line in path.read_bytes().splitlines()]


class Laboratory:
    """Starts incarnations of trials in folders of their own."""

    def __init__(self, home: Path, corpus: CorpusInfo) -> None:
        self.home, self.corpus = home, corpus
        (home / "key").write_bytes(KEY)

    @contextlib.contextmanager
    def run(
        self, source: str, name: str, resume: bool = False, moment: Moment | None = None, **limits: float
    ) -> Iterator[Running]:
        folder = self.home / name
        (folder / "work").mkdir(parents=True, exist_ok=True)
        trial = TrialSpec("trial", "0" * 64, TIER.name, 0, TASKS, limits.get("cpu_seconds", 600.0), resume)
        worker = WorkerSpec(trial, TIER, str(self.corpus.train_path))
        validation, key, scores = str(self.corpus.validation_path), str(self.home / "key"), str(folder / "scores.jsonl")
        silence = limits.get("silence_seconds", 60.0)
        scorer = ScorerSpec(trial, TIER, validation, self.corpus.hash, key, scores, silence)
        (folder / "work" / "program.py").write_text(source, encoding="utf-8")
        (folder / "work" / "spec.json").write_bytes(msgspec.json.encode(worker))
        (folder / "scorer.json").write_bytes(msgspec.json.encode(scorer))
        running = Running(folder, moment)
        try:
            yield running
        finally:
            running.close()

    def account(self, name: str) -> Account:
        return msgspec.json.decode((self.home / name / "progress.json").read_bytes(), type=Account)

    def whole(self, source: str) -> tuple[list[TaskResult], list[tuple[str, int, float | None]]]:
        """Results and training losses of a trial that nobody disturbs."""
        with self.run(source, "whole") as running:
            return timeless(running.result()), losses(running)


def timeless(result: TrialResult) -> list[TaskResult]:
    assert not result.failure
    return [msgspec.structs.replace(task, seconds=0.0) for task in result.tasks]


def losses(running: Running) -> list[tuple[str, int, float | None]]:
    found = [(point.task, point.step, point.loss) for point in running.points()]
    assert len({(task, step) for task, step, _ in found}) == len(found), "a training point stands there twice"
    scores = [(point.task, point.step) for point in running.scores()]
    assert len(set(scores)) == len(scores), "a score stands there twice"
    return found


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> CorpusInfo:
    return build_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture
def laboratory(tmp_path: Path, corpus: CorpusInfo) -> Laboratory:
    return Laboratory(tmp_path, corpus)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, corpus: CorpusInfo) -> Callable[[str], tuple]:
    """What the program of a name gives when nobody disturbs it."""

    @functools.cache
    def of(name: str) -> tuple:
        home = tmp_path_factory.mktemp(name)
        return Laboratory(home, corpus).whole(SOURCES[name])

    return of


@pytest.mark.parametrize(
    ("name", "moments"),
    [
        ("restless", [("TRAIN", 2), ("LOGITS", 2)]),
        ("restless", [("EVALUATE", 5), ("TASK", 1)]),
        ("deltanet", [("FINISH", 1), ("EVALUATE", 2)]),
    ],
    ids=["in a task, then as its curve is measured", "in the final checks, then at the start", "between, in the second"],
)
def test_a_trial_that_is_parked_and_resumed_twice_ends_as_if_nothing_had_happened(
    name: str, moments: list[Moment], laboratory: Laboratory, undisturbed: Callable[[str], tuple]
) -> None:
    results, expected_losses = undisturbed(name)
    used = 0.0
    for incarnation, moment in enumerate(moments):
        with laboratory.run(SOURCES[name], "parked", incarnation > 0, moment) as running:
            parked = running.result()
        assert parked.parked
        assert not parked.failure
        assert parked.cpu_seconds > used
        used = parked.cpu_seconds
        assert laboratory.account("parked").present is not None
        assert (running.folder / "work" / CHECKPOINT).exists()
    if name == "deltanet":  # a checkpoint that is lost costs time, never the result
        (running.folder / "work" / CHECKPOINT).unlink()
    with laboratory.run(SOURCES[name], "parked", True) as running:
        last = running.result()
        assert not last.parked
        assert timeless(last) == results
        assert losses(running) == expected_losses
    assert last.cpu_seconds > used


def test_parking_at_the_start_leaves_nothing_to_go_on_from(laboratory: Laboratory) -> None:
    with laboratory.run(SOURCES["deltanet"], "early") as running:
        running.wait_until(lambda: catches_sigterm(running.scorer.pid))
        parked, seconds = running.park()
    assert parked.parked
    assert not parked.tasks
    assert laboratory.account("early").present == msgspec.structs.replace(
        TaskState("recall"), seconds=laboratory.account("early").present.seconds
    )
    assert seconds < 30


def test_parking_from_outside_is_quick_and_keeps_no_secret(laboratory: Laboratory) -> None:
    with laboratory.run(SOURCES["deltanet"], "quick") as running:
        running.wait_until(lambda: len(running.scores()) >= 4)
        parked, seconds = running.park()
    assert parked.parked
    assert [task.task for task in parked.tasks] == ["recall"]
    assert seconds < 10
    kept = (running.folder / "progress.json").read_bytes()
    assert KEY not in kept
    assert KEY.hex().encode() not in kept
    # Of a checkpoint that is no longer the worker's own, one line is said.
    path = running.folder / "work" / CHECKPOINT
    path.unlink()
    os.mkfifo(path)
    with laboratory.run(SOURCES["deltanet"], "quick", True) as running:
        result = running.result()
    assert "checkpoint.pt cannot be read: it is no plain file" in result.failure
    assert "\n" not in result.failure
    assert [task.task for task in result.tasks] == ["recall"]


def test_a_freeze_longer_than_the_longest_silence_changes_nothing(
    laboratory: Laboratory, undisturbed: Callable[[str], tuple]
) -> None:
    silence = 3.0
    with laboratory.run(SOURCES["restless"], "frozen", silence_seconds=silence) as running:
        # The worker starts at its leisure: only the scorer is stopped, and that time does not count either.
        running.wait_until(lambda: catches_sigterm(running.scorer.pid))
        os.kill(running.scorer.pid, signal.SIGSTOP)
        running.wait_until(lambda: is_idle(psutil.Process(running.worker.pid)))
        os.kill(running.scorer.pid, signal.SIGCONT)
        running.wait_until(lambda: len(running.points()) >= 1)
        processes = running.processes()
        for process in processes:
            process.suspend()
        time.sleep(silence + 1.0)
        for process in reversed(processes):
            process.resume()
        result = running.result()
        assert (timeless(result), losses(running)) == undisturbed("restless")


def test_cpu_seconds_are_limited_over_all_incarnations(laboratory: Laboratory) -> None:
    with laboratory.run(SOURCES["deltanet"], "spent", moment=("TRAIN", 2)) as running:
        running.result()
    account = laboratory.account("spent")
    limit = account.worker_seconds / 2
    with laboratory.run(SOURCES["deltanet"], "spent", True, cpu_seconds=limit) as running:
        result = running.result()
    assert "CPU seconds used of" in result.failure
    assert not result.tasks


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"rubbish", "progress.json cannot be used"),
        (b'{"trial": 1}', "progress.json cannot be used"),
        (b"[" * 100_000, "progress.json cannot be used"),
        ("another seed", "belongs to another trial"),
        ("other data", "belongs to another trial"),
        ("tasks out of order", "belongs to another trial"),
    ],
)
def test_an_account_that_is_not_of_this_trial_is_one_clear_line(
    content: bytes | str, reason: str, tmp_path: Path
) -> None:
    trial = TrialSpec("trial", "program", TIER.name, 0, TASKS, resume=True)
    path = tmp_path / "progress.json"
    accounts = {
        "another seed": Account(msgspec.structs.replace(trial, seed=1), "hash"),
        "other data": Account(trial, "other"),
        "tasks out of order": Account(trial, "hash", present=TaskState("bytes", step=4)),
    }
    path.write_bytes(content if isinstance(content, bytes) else msgspec.json.encode(accounts[content]))
    with pytest.raises(AccountError, match=reason) as error:
        open_account(path, trial, "hash")
    assert "\n" not in str(error.value)
    path.unlink()
    assert open_account(path, trial, "hash") == Account(trial, "hash")


def is_idle(process: psutil.Process) -> bool:
    before = sum(process.cpu_times()[:2])
    time.sleep(0.5)
    return 0.5 < before == sum(process.cpu_times()[:2])


def catches_sigterm(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt:"))
    return bool(int(caught.split()[1], 16) >> (signal.SIGTERM - 1) & 1)
