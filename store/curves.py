"""Reading `points.jsonl` and `scores.jsonl` of a trial: bounded, strict, and never following a link.

A training process wrote (or could have written) these files, so a line that is too long, not JSON or of another shape
is counted and skipped, and a file has a largest size. A last line without an end is still being written.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import Annotated, Generic, NamedTuple, TypeVar

import msgspec

MAX_LINE = 4096
MAX_LINES = 200_000
MAX_BYTES = 64 * 1024 * 1024
_TRIAL = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")

Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_ .:+/-]{1,64}\Z")]
Count = Annotated[int, msgspec.Meta(ge=0, le=1_000_000_000_000)]


class Point(msgspec.Struct, frozen=True):
    """One training step as the training process told it; loss in nats, None where it was not finite."""

    task: Name
    step: Count
    steps: Count
    loss: float | None
    seconds: float
    gradient_norm: float | None = None


class Score(msgspec.Struct, frozen=True):
    """The scorer's metric on sealed data after `step` steps; loss in nats."""

    task: Name
    step: Count
    value: float
    loss: float


Line = TypeVar("Line", Point, Score)


class Curve(NamedTuple, Generic[Line]):
    """What a file holds: its good lines in order, how many were refused, and whether it was longer than allowed."""

    lines: list[Line]
    refused: int
    cut: bool


def is_trial_id(trial: str) -> bool:
    """Whether a text can name a trial's folder and nothing outside it."""
    return _TRIAL.fullmatch(trial) is not None


def read_points(trials: Path, trial: str) -> Curve[Point]:
    """The training curve of a trial; empty where there is none."""
    return _read(trials, (trial, "work"), "points.jsonl", Point)


def read_scores(trials: Path, trial: str) -> Curve[Score]:
    """The scorer's curve of a trial; empty where there is none."""
    return _read(trials, (trial,), "scores.jsonl", Score)


def _read(trials: Path, folders: tuple[str, ...], name: str, kind: type[Line]) -> Curve[Line]:
    if not is_trial_id(folders[0]):
        return Curve([], 0, False)
    try:
        descriptor = _open(trials, folders, name)
    except OSError:
        return Curve([], 0, False)
    lines: list[Line] = []
    refused = 0
    decoder = msgspec.json.Decoder(kind)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return Curve([], 0, False)
        for _ in range(MAX_LINES):
            line = file.readline(MAX_LINE)
            if file.tell() > MAX_BYTES:
                return Curve(lines, refused, True)
            if not line.endswith(b"\n"):
                if len(line) < MAX_LINE:
                    return Curve(lines, refused, False)
                while line and not line.endswith(b"\n") and file.tell() <= MAX_BYTES:
                    line = file.readline(MAX_LINE)
                refused += 1
                continue
            try:
                lines.append(decoder.decode(line))
            except (msgspec.MsgspecError, UnicodeDecodeError):
                refused += 1
        return Curve(lines, refused, bool(file.read(1)))


def _open(trials: Path, folders: tuple[str, ...], name: str) -> int:
    """Open step by step, so that no component can be a link out of the trial's folder."""
    folder = os.open(trials, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in folders:
            inner = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
            os.close(folder)
            folder = inner
        return os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    finally:
        os.close(folder)
