"""The scorer's own account of a trial, kept in `progress.json` while the trial is parked.

It lies beside the worker's folder, where no candidate code can write; nothing that a worker says about itself
replaces what stands here. It holds no key and no sealed data.
"""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

import msgspec

from engine.domain import Point, ScorePoint, TaskResult, TrialSpec
from engine.linear_attention.wire import Counts, Progress

MAX_POINTS_BYTES = 16 << 20


class AccountError(Exception):
    """The account on disk is not one of this trial; the message says why."""


class TaskState(msgspec.Struct, forbid_unknown_fields=True):
    """What is known of the task under way.

    step: of the checkpoint that the worker acknowledged last, 0 without one. curve: sealed metric after each measured
    step. final: the final metric where it was measured already. seconds: wall clock so far.
    """

    task: str
    step: int = 0
    curve: list[tuple[int, float]] = []
    doubts: list[str] = []
    causal_error: float = 0.0
    final: float | None = None
    seconds: float = 0.0


class Account(msgspec.Struct, forbid_unknown_fields=True):
    """A trial so far: finished tasks, the one under way, and what all incarnations together have used."""

    trial: TrialSpec
    data_hash: str
    tasks: list[TaskResult] = []
    parameters: int = 0
    mlp_hidden: int = 0
    state_floats: int = 0
    tokens: int = 0
    training_flops: float = 0.0
    worker_seconds: float = 0.0
    scorer_seconds: float = 0.0
    present: TaskState | None = None

    def finish(self, result: TaskResult, counts: Counts, progress: Progress) -> None:
        """Move the task under way to the finished ones."""
        self.tasks.append(result)
        self.parameters = max(self.parameters, counts.parameters)
        self.mlp_hidden = max(self.mlp_hidden, counts.mlp_hidden)
        self.state_floats = max(self.state_floats, counts.state_floats)
        self.tokens += progress.tokens
        self.training_flops += progress.flops
        self.present = None

    def state_of(self, task: str) -> TaskState:
        """The task under way, or `task` as one that begins."""
        if self.present is None or self.present.task != task:
            self.present = TaskState(task)
        return self.present


def open_account(path: Path, trial: TrialSpec, data_hash: str) -> Account:
    """The account that a trial goes on with: an empty one unless it resumes and `path` is there.

    Raises AccountError when the file is malformed or belongs to another trial or other data.
    """
    fresh = Account(trial, data_hash)
    if not trial.resume or not path.exists():
        return fresh
    try:
        kept = msgspec.json.decode(path.read_bytes(), type=Account)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise AccountError(f"{path.name} cannot be used: {error}") from error
    finished = [result.task for result in kept.tasks]
    known = [*finished, *([kept.present.task] if kept.present else [])]
    if _identity(kept) != _identity(fresh) or known != trial.tasks[: len(known)]:
        raise AccountError(f"{path.name} belongs to another trial or other data")
    return kept


def _identity(account: Account) -> tuple[str, str, str, int, list[str], str]:
    trial = account.trial
    return trial.trial, trial.program, trial.tier, trial.seed, trial.tasks, account.data_hash


def keep_account(path: Path, account: Account) -> None:
    """Write `progress.json`, whole or not at all."""
    temporary = path.with_suffix(".new")
    with temporary.open("wb") as file:
        file.write(msgspec.json.encode(account) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def cut_points(points: Path, account: Account) -> None:
    """Cut `points.jsonl` of a trial that goes on back to where its account stands: what follows is trained again.

    points: in the worker's folder, which candidate code could write; anything but a plain file of lines is left alone.
    """
    present = account.present
    try:
        descriptor = os.open(points, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        return
    with os.fdopen(descriptor, "r+b") as file:
        finished = {result.task for result in account.tasks}
        kept = []
        for line in file.read(MAX_POINTS_BYTES).splitlines(keepends=True):
            with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError):
                point = msgspec.json.decode(line, type=Point)
                if point.task in finished or (present and point.task == present.task and point.step <= present.step):
                    kept.append(line)
        file.seek(0)
        file.write(b"".join(kept))
        file.truncate()


def append_once(path: Path, point: ScorePoint) -> None:
    """Add a line to scores.jsonl unless there is one for this task and step; raises AccountError when it is broken."""
    with path.open("a+b") as file:
        file.seek(0)
        try:
            known = [msgspec.json.decode(line, type=ScorePoint) for line in file]
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise AccountError(f"{path.name} cannot be used: {error}") from error
        if (point.task, point.step) not in {(item.task, item.step) for item in known}:
            file.write(msgspec.json.encode(point) + b"\n")
