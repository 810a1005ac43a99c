"""Whole runs with language models from a server that also misbehaves; played again without it; shared with the evolver."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.client.rundir import RunPaths, engine_pid
from store import events as ev
from store.folding import fold
from store.journal import read
from store.state import RunState
from tests.e2e.conftest import SMOKE, Shell, wait_for
from tests.engine.agents.llm.server import ModelServer

pytestmark = [
    pytest.mark.skipif(shutil.which("bwrap") is None, reason="needs bubblewrap"),
    pytest.mark.timeout(900),
]

KEY = "sk-test-do-not-write-me-down-0123456789"
PLAN = {
    "e0001/researcher": ["alike"],
    "e0002/researcher": ["busy:0", "edits"],
    "e0003/researcher": ["broken_program"],
    "e0003/analyst": ["wrong_schema"],
    "e0004/researcher": ["bad_json", "refusal"],
    "e0005/researcher": ["same"],
    "e0006/researcher": ["same"],
    "e0007/researcher": ["network"],
    "e0007/engineer": ["wrong_language"],
    "e0008/researcher": ["alike"],
    "novelty": ["repeats:e0001"],
}


@pytest.fixture
def models(tmp_path: Path) -> Iterator[ModelServer]:
    server = ModelServer(tmp_path / "server")
    yield server
    server.stop()


def with_server(asi: Shell, models: ModelServer) -> None:
    asi.environment |= {"OPENAI_BASE_URL": models.url, "OPENAI_API_KEY": KEY}


def state_of(asi: Shell, run: str) -> RunState:
    state = RunState()
    for record in read(asi.run_directory(run) / "journal"):
        state = fold(state, record)
    return state


def children_with_key(root: Path) -> list[str]:
    """Processes of the run, but for the engine itself, that have the key in their environment."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            command = (entry / "cmdline").read_bytes() if entry.name.isdigit() else b""
            if (
                b"engine." in command
                and b"engine.daemon" not in command
                and KEY.encode() in (entry / "environ").read_bytes()
            ):
                found.append(command.decode())
    return found


def proposals(state: RunState) -> list[tuple[str, str, str, str, str]]:
    return [(e.id, e.title, e.program, e.parent, e.outcome) for e in state.proposals]


def test_every_answer_ends_in_the_journal_and_the_run_can_be_played_again(asi: Shell, models: ModelServer) -> None:
    with_server(asi, models)
    models.plan(PLAN)
    following = asi.start("run", "told", "--headless", "--experiments", "8", "--config", str(asi.config), "--policy", "trusting")
    leaked: list[str] = []

    def over() -> bool:
        leaked.extend(children_with_key(asi.run_directory("told")))
        return following.poll() is not None

    wait_for(over, 500)
    assert following.returncode == 0, following.stdout.read() if following.stdout else ""
    assert not leaked
    state = state_of(asi, "told")
    assert state.agents == "models"
    assert 'kind = "models"' in (asi.run_directory("told") / "run.toml").read_text()
    ended = {e.id: (e.outcome, e.reason) for e in state.proposals}
    assert all(e.origin == "model" for e in state.proposals)
    assert {event.agent for event in events(asi, "told", ev.AgentCalled)} == {"tiny"}  # the server's first
    assert {one["body"]["model"] for one in models.requests()} == {"tiny"}
    ranked = {name for name, (outcome, _) in ended.items() if outcome == "ranked"}
    assert ranked == {"e0001", "e0002", "e0003", "e0005"}
    assert state.experiments["e0003"].repairs == 1
    why = "the researcher gave no usable proposal: the model refuses: I cannot help with that."
    assert ended["e0004"] == ("failed", why)
    assert ended["e0006"] == ("duplicate", "repeats e0005 (exact)")
    assert ended["e0007"][0] == "failed" and "static" in ended["e0007"][1]
    assert ended["e0008"] == ("duplicate", "repeats e0001 (motivation)")
    assert state.experiments["e0003"].summary.startswith("No analysis: ")
    assert state.experiments["e0001"].outcomes[0].task == "recall"
    assert state.experiments["e0001"].lessons
    assert state.tokens_used > 0 and not state.open_calls
    assert all(reason for name, (outcome, reason) in ended.items() if outcome != "ranked")
    assert asi("audit", "told", "--verify").returncode == 0
    for path in asi.run_directory("told").rglob("*"):
        if path.is_file():
            assert KEY.encode() not in path.read_bytes(), path

    models.stop()
    again = asi("run", "--replay", "told", "again", "--headless")
    assert again.returncode == 0, again.stdout + again.stderr
    assert proposals(state_of(asi, "again")) == proposals(state)
    assert state_of(asi, "again").tokens_used == 0
    assert asi("audit", "again", "--verify").returncode == 0


def test_a_request_that_is_not_in_the_record_pauses_with_one_clear_line(asi: Shell, models: ModelServer) -> None:
    with_server(asi, models)
    argv = ["--headless", "--experiments", "1", "--config", str(asi.config), "--policy", "trusting"]
    assert asi("run", "short", *argv).returncode == 0
    index = asi.run_directory("short") / "calls" / "index.jsonl"
    lines = [line for line in index.read_text().splitlines() if json.loads(line)["role"] != "analyst"]
    index.write_text("\n".join(lines) + "\n")
    following = asi.start("run", "--replay", "short", "--headless")
    root = asi.run_directory("short-replay")
    wait_for(lambda: RunPaths(root).journal.exists() and state_of(asi, "short-replay").phase == "paused")
    assert "replay: short has no call" in state_of(asi, "short-replay").phase_reason
    assert asi("stop", "short-replay").returncode == 0
    following.wait(60)


def test_models_and_evolver_share_the_compute(asi: Shell, models: ModelServer) -> None:
    with_server(asi, models)
    asi.config.write_text(f'{SMOKE}\n[agents]\nkind = "mixed"\nmodel = "tiny"\n')
    done = asi("run", "both", "--headless", "--experiments", "4", "--config", str(asi.config), "--policy", "trusting")
    assert done.returncode == 0, done.stdout + done.stderr
    state = state_of(asi, "both")
    assert state.agents == "tiny + evolver"
    origins = [entry.origin for entry in state.proposals]
    assert origins.count("model") == 2 and origins.count("evolver") == 2
    used = {origin: sum(e.cpu_seconds for e in state.proposals if e.origin == origin) for origin in origins}
    assert all(seconds > 0 for seconds in used.values())
    board = json.loads(asi("leaderboard", "both", "--json").stdout)
    assert {row["origin"] for row in board} >= {"model", "evolver", "baseline"}
    agents = {event.agent for event in events(asi, "both", ev.AgentCalled)}
    assert agents == {"tiny", "evolver"}


def events(asi: Shell, run: str, kind: type) -> list:
    return [record.data for record in read(asi.run_directory(run) / "journal") if isinstance(record.data, kind)]


def test_a_cap_on_money_without_prices_is_refused(asi: Shell, models: ModelServer) -> None:
    with_server(asi, models)
    asi.config.write_text(f"{SMOKE}\n[budget]\nmoney = 5.0\n")
    refused = asi("run", "dear", "--headless", "--config", str(asi.config), "--policy", "trusting")
    assert refused.returncode == 2
    assert "agents.price_in" in refused.stderr and len(refused.stderr.splitlines()) == 1
    assert not os.path.exists(asi.run_directory("dear") / "run.toml")


def test_a_crash_in_mid_call_is_paid_at_its_most_and_asked_again(asi: Shell, models: ModelServer) -> None:
    with_server(asi, models)
    models.plan({"e0001/researcher": ["slow:60", "good"]})
    argv = ["run", "cut", "--headless", "--experiments", "1"]
    following = asi.start(*argv, "--config", str(asi.config), "--policy", "trusting")
    wait_for(lambda: models.requests("researcher"))  # the call is on record and has reached the server
    pid = engine_pid(asi.run_directory("cut"))
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    following.wait(30)
    (reserved,) = events(asi, "cut", ev.AgentCalled)
    assert reserved.tokens > 8_192
    assert asi(*argv).returncode == 0
    (lost, *rest) = events(asi, "cut", ev.AgentReplied)
    assert (lost.ok, lost.tokens_in) == (False, reserved.tokens)
    assert rest and state_of(asi, "cut").experiments["e0001"].outcome == "ranked"
