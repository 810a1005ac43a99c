"""Bad input: one clear line, the right exit code, nothing lost. And what must start light."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import Shell


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["attach", "nowhere"], 2, "nowhere"),
        (["status"], 2, "no run"),
        (["pause", "nowhere"], 2, "nowhere"),
        (["run", "--experiments", "0"], 2, "1 or more"),
        (["run", "bad name!", "--headless"], 2, "bad name"),
        (["fly"], 2, "fly"),
        (["vet", "missing.py"], 2, "missing.py"),
        (["run", "x", "--config", "missing.toml"], 2, "missing.toml"),
    ],
)
def test_wrong_words(asi: Shell, arguments: list[str], code: int, says: str) -> None:
    ended = asi(*arguments)
    assert ended.returncode == code, ended.stderr
    assert says in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("[loop\n", "run.toml:1:"),
        ("name = 'x'\n[loop]\nconcurrency = 'many'\n", "run.toml:3:"),
        ("format = 99\n", "newer version"),
        ("[loop]\nconcurency = 3\n", "did you mean concurrency"),
    ],
)
def test_corrupt_configuration(asi: Shell, text: str, place: str) -> None:
    root = asi.run_directory("broken")
    root.mkdir(parents=True)
    (root / "run.toml").write_text(text)
    ended = asi("run", "broken", "--headless")
    assert ended.returncode == 2
    assert place in ended.stderr
    assert len(ended.stderr.strip().splitlines()) == 1


def test_an_engine_that_cannot_start_says_why_in_one_line(asi: Shell) -> None:
    for name, text, policy, says in (
        ("nobase", '[trials]\nbaseline = "nothing"\n', "", "no baseline"),
        ("nopolicy", "", "version = [", "policy.toml"),
    ):
        root = asi.run_directory(name)
        root.mkdir(parents=True)
        (root / "run.toml").write_text(f'name = "{name}"\n{text}')
        if policy:
            (root / "policy.toml").write_text(policy)
        ended = asi("run", name, "--headless")
        assert ended.returncode == 1
        assert says in ended.stderr
        assert len(ended.stderr.strip().splitlines()) == 1


def test_no_engine_is_exit_code_three(asi: Shell) -> None:
    root = asi.run_directory("idle")
    root.mkdir(parents=True)
    (root / "run.toml").write_text('name = "idle"\n')
    for command in ("attach", "pause", "stop", "watch"):
        assert asi(command, "idle").returncode == 3


def test_help_ps_and_kill_import_nothing_heavy(asi: Shell) -> None:
    script = (
        "import sys\nfrom asi_tui.main import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'textual', 'duckdb', 'numpy', 'msgspec'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    root = asi.run_directory("idle")
    root.mkdir(parents=True)
    (root / "run.toml").write_text('name = "idle"\n')
    for arguments in (["--help"], ["ps"], ["kill", "idle"]):
        ended = subprocess.run(
            [sys.executable, "-c", script, *arguments], env=asi.environment, capture_output=True, text=True, check=False
        )
        assert ended.returncode == 0, ended.stderr


def test_vet_says_which_gate_and_why(asi: Shell, tmp_path: Path) -> None:
    planted = Path(__file__).parents[1] / "engine" / "linear_attention" / "planted"
    leaker = next(planted.glob("*future*.py"), None) or next(planted.glob("*leak*.py"))
    good = tmp_path / "good.py"
    from engine.linear_attention import baselines

    good.write_text(baselines.source("deltanet"))
    ended = asi("vet", "--json", str(good), str(leaker))
    assert ended.returncode == 1, ended.stderr
    passed, failed = json.loads(ended.stdout)
    assert passed["passed"]
    assert not failed["passed"]
    gate = next(gate for gate in failed["report"]["gates"] if not gate["passed"])
    assert gate["evidence"]
