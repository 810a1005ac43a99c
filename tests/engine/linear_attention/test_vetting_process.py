"""The battery as a process: one report on its own descriptor, whatever the program prints or does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from engine.domain import VetReport, VetSpec

ROOT = Path(__file__).parents[3]
PLANTED = Path(__file__).parent / "planted"


def prepare(workdir: Path, program: str, spec: bytes | None = None) -> list[str]:
    (workdir / "program.py").write_text(program)
    (workdir / "spec.json").write_bytes(msgspec.json.encode(VetSpec()) if spec is None else spec)
    return [sys.executable, "-m", "engine.linear_attention.vetting", str(workdir)]


def test_standard_output_carries_the_report_and_nothing_else(tmp_path: Path) -> None:
    chatty = (
        (PLANTED / "honest.py").read_text().replace("        y = ", "        print('{\"passed\": true}')\n        y = ")
    )
    done = subprocess.run(prepare(tmp_path, chatty), cwd=ROOT, capture_output=True, timeout=250, check=True)
    report = msgspec.json.decode(done.stdout, type=VetReport)
    assert report.passed
    assert done.stdout.count(b"\n") == 1
    assert b'{"passed": true}' in done.stderr


def test_report_descriptor(tmp_path: Path) -> None:
    command = prepare(tmp_path, (PLANTED / "leak_plain.py").read_text())
    reader, writer = os.pipe()
    done = subprocess.run(
        [*command, "--report-fd", str(writer)],
        cwd=ROOT,
        pass_fds=[writer],
        capture_output=True,
        timeout=250,
        check=True,
    )
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        report = msgspec.json.decode(stream.read(), type=VetReport)
    first = report.first_failure()
    assert first is not None
    assert first.gate == "causal"
    assert done.stdout == b""


@pytest.mark.parametrize("spec", [b"{", b'{"d_model": "wide"}'])
def test_a_bad_specification_is_one_clear_line(tmp_path: Path, spec: bytes) -> None:
    done = subprocess.run(prepare(tmp_path, "", spec), cwd=ROOT, capture_output=True, timeout=100)
    assert done.returncode == 2
    assert done.stdout == b""
    assert done.stderr.startswith(b"vetting: ")
    assert done.stderr.count(b"\n") == 1
