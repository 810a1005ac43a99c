"""What is left of a trial's training points when it goes on from an earlier step."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from engine.domain import Point, TaskResult, TrialSpec
from engine.linear_attention.account import Account, TaskState, cut_points

TRIAL = TrialSpec("t", "p", "probe-smoke", 0, ["recall", "parity", "bytes"])
DONE = TaskResult("recall", 1.0, 1.0, "accuracy", [], 0.0, 0.0, True)


def line(task: str, step: int) -> bytes:
    return msgspec.json.encode(Point(task, step, 12, 1.5, 0.1)) + b"\n"


def test_points_beyond_the_account_are_cut(tmp_path: Path) -> None:
    points = tmp_path / "points.jsonl"
    good = [line("recall", 10), line("recall", 12), line("parity", 4)]
    points.write_bytes(b"".join([*good, line("parity", 8), b"garbage\n", b"\xff\n", line("bytes", 1)]))
    cut_points(points, Account(TRIAL, "d", tasks=[DONE], present=TaskState("parity", step=4)))
    assert points.read_bytes() == b"".join(good)
    cut_points(points, Account(TRIAL, "d"))
    assert points.read_bytes() == b""


def test_what_is_no_plain_file_is_left_alone(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(line("parity", 8))
    (tmp_path / "points.jsonl").symlink_to(outside)
    cut_points(tmp_path / "points.jsonl", Account(TRIAL, "d"))
    assert outside.read_bytes() == line("parity", 8)
    os.mkfifo(tmp_path / "pipe")
    cut_points(tmp_path / "pipe", Account(TRIAL, "d"))
    cut_points(tmp_path / "nothing", Account(TRIAL, "d"))
