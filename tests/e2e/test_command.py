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
        (["end", "e0001-s0", "nowhere"], 2, "nowhere"),
        (["drill", "nowhere"], 2, "nowhere"),
        (["rearm", "nowhere"], 2, "--reason"),
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


HEAVY = {"torch", "textual", "rich", "duckdb", "numpy", "msgspec"}
SLOW = {"argparse", "asyncio", "subprocess", "getpass", "gettext", "store", "asi_tui.arguments", "asi_tui.commands.control"}
IMPORTS = """
import sys
known = set(sys.modules)
from asi_tui.main import main
try:
    main(sys.argv[2:])
except SystemExit:
    pass
loaded = set(sys.argv[1].split(",")) & (set(sys.modules) - known)
assert not loaded, loaded
"""


@pytest.mark.parametrize(
    ("arguments", "forbidden"),
    [
        (["--help"], HEAVY | {"asyncio"}),
        (["ps"], HEAVY | {"asyncio"}),
        (["kill", "idle"], HEAVY | SLOW),
        (["kill", "idle", "--reason", "smoke"], HEAVY | SLOW),
        (["kill", "--help"], HEAVY | {"asyncio"}),
    ],
)
def test_help_ps_and_kill_import_nothing_heavy(asi: Shell, arguments: list[str], forbidden: set[str]) -> None:
    an_idle_run(asi)
    ended = subprocess.run(
        [sys.executable, "-c", IMPORTS, ",".join(forbidden), *arguments],
        env=asi.environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr


def an_idle_run(asi: Shell) -> Path:
    root = asi.run_directory("idle")
    root.mkdir(parents=True)
    (root / "run.toml").write_text('name = "idle"\n')
    return root


def test_kill_records_who_from_where_and_why(asi: Shell) -> None:
    root = an_idle_run(asi)
    asi.environment |= {"LOGNAME": "ada", "SSH_CONNECTION": "192.0.2.7 51000 192.0.2.1 22"}
    ended = asi("kill", "--reason", "smoke in the lab")
    assert ended.returncode == 0
    assert "everything is dead: proved" in ended.stdout
    latch = json.loads((root / "KILLED").read_text())
    assert (latch["actor"], latch["reason"]) == ("ada@192.0.2.7", "smoke in the lab")


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["kill", "--help"], 0, "usage: asi kill"),
        (["kill", "-h"], 0, "goes into the latch"),
        (["kill", "idle", "other"], 2, "unrecognized arguments: other"),
        (["kill", "--hard"], 2, "--hard"),
        (["kill", "idle", "--reason"], 2, "expected one argument"),
        (["kill", "nowhere"], 2, "nowhere"),
    ],
)
def test_wrong_words_kill_nothing(asi: Shell, arguments: list[str], code: int, says: str) -> None:
    root = an_idle_run(asi)
    ended = asi(*arguments)
    assert ended.returncode == code
    assert says in ended.stdout + ended.stderr
    assert not (root / "KILLED").exists()


def test_a_latched_run_says_who_and_what_to_do(asi: Shell) -> None:
    root = an_idle_run(asi)
    (root / "KILLED").write_text(json.dumps({"actor": "ada\x1b[2J", "reason": "smoke", "time": 1.0}))
    for command in ("ps", "status"):
        ended = asi(command)
        assert ended.returncode == 0
        assert "killed, latched by ada\ufffd[2J; asi rearm idle --reason …, then asi run idle" in ended.stdout
    refused = asi("run", "idle")
    assert refused.returncode == 5
    assert "killed, latched by ada\ufffd[2J (smoke); asi rearm idle --reason …, then asi run idle" in refused.stderr
    told = json.loads(asi("status", "--json").stdout)
    assert told["latched_because"] == "smoke"


def test_ending_a_trial_needs_a_run_that_runs(asi: Shell) -> None:
    an_idle_run(asi)
    assert asi("end", "e0001-s0").returncode == 3
    assert asi("end").returncode == 2


def test_drill_kills_a_stubborn_tree_and_proves_it(asi: Shell) -> None:
    root = an_idle_run(asi)
    ended = asi("drill", "idle", "--json")
    assert ended.returncode == 0, ended.stderr
    figures = json.loads(ended.stdout)
    assert figures["proved"]
    assert figures["processes"] >= 4
    assert sorted(path.name for path in root.iterdir()) == ["run.toml"]
    said = asi("drill")
    assert said.returncode == 0
    assert "proved" in said.stdout


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
