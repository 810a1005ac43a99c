"""Models through the real client against a server that misbehaves, and what of it is on record."""

from __future__ import annotations

import asyncio
import json
import os
import stat
from pathlib import Path

import pytest

from engine.agents.llm import calls
from engine.agents.llm.breaker import PREFIX
from engine.agents.llm.check import check_server
from engine.agents.llm.secret import KeyProblem, take_key
from engine.agents.protocol import (
    AgentFailed,
    AgentUnavailable,
    AnalysisBrief,
    Member,
    Neighbour,
    NoveltyBrief,
    RepairBrief,
)
from engine.runtime import Runtime
from store.config import Budget
from tests.engine.agents.llm.conftest import KEY, Bench, proposal, started
from tests.engine.agents.llm.server import PROGRAM, ModelServer

USABLE = ["good", "prose", "fenced", "edits", "plain", "cut", "silent_usage", "instructions", "wrong_language",
          "picky:response_format+seed+temperature+stream_options+stream+max_tokens", "busy:0"]  # fmt: skip
USELESS = {
    "bad_json": "no JSON object",
    "wrong_schema": "no JSON object",
    "nothing": "empty",
    "refusal": "refuses: I cannot help",
    "tools": "called a tool",
    "huge": "far too long",
    "cut_for_ever": "cut off at agents.max_tokens",
    "edits:no": "is not in the program",
    "bad_request": "the server refuses the request: 400",
}


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "FIRST_DELAY", 0.02)


@pytest.mark.parametrize("what", USABLE)
async def test_an_answer_that_can_be_used(bench: Bench, models: ModelServer, what: str) -> None:
    models.plan({"researcher": [what, "good"] if what.startswith("busy") else [what]})
    draft = await bench.agent.propose(proposal(), bench.say)
    assert draft.title == "idea 1"
    assert draft.program.strip()
    last = bench.replies()[-1]
    assert last.ok
    assert last.tokens_in > 0 and last.tokens_out > 0
    assert "idea" in "".join(bench.heard)
    if what != "plain":
        assert len(bench.heard) > 1
    if what == "good":
        assert "'no such task' was left out" in "".join(bench.heard)


@pytest.mark.parametrize("what", USELESS)
async def test_an_answer_that_cannot_is_asked_for_once_more_and_kept(
    bench: Bench, models: ModelServer, what: str
) -> None:
    models.plan({"researcher": [what]})
    with pytest.raises(AgentFailed, match=USELESS[what]):
        await bench.agent.propose(proposal(), bench.say)
    replies = bench.replies()
    assert replies and not any(one.ok for one in replies)
    asked = models.requests("researcher")
    assert len(asked) == {"bad_request": 1, "cut_for_ever": 6}.get(what, 2)
    if what != "bad_request":
        assert "could not be used" in json.dumps(asked[-1]["body"]["messages"])
    raw = [bench.runtime.blobs.text(one.reply) for one in replies]
    if what == "bad_json":
        assert raw[0].startswith('{"title"')
    if what == "huge":
        assert max(len(one) for one in raw) <= 400_000
        assert (models.folder / "hung-up").exists()
    assert bench.runtime.state.phase == "running"


@pytest.mark.parametrize(
    ("what", "why"), [("broken", "500"), ("html", "web page"), ("garbage", "protocol"), ("slow:3", "within")]
)
async def test_failures_of_the_server_pause_the_run_until_it_answers(
    runtime: Runtime, models: ModelServer, what: str, why: str
) -> None:
    bench = Bench(runtime, models.url, pause_after=2, timeout_seconds=0.5)
    watch = asyncio.create_task(bench.breaker.watch())
    models.plan({"researcher": [what], "models": ["down"]})
    with pytest.raises(AgentUnavailable):
        await bench.agent.propose(proposal(), bench.say)
    assert runtime.state.phase == "paused"
    assert why in runtime.state.phase_reason
    assert len(models.requests("researcher")) == 2
    models.plan({})
    await asyncio.wait_for(runtime.until(lambda state: state.phase == "running"), 15)
    assert (await bench.agent.propose(proposal(), bench.say)).title == "idea 1"
    watch.cancel()
    await bench.server.close()


async def test_what_a_person_did_meanwhile_stands(
    runtime: Runtime, models: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.agents.llm.breaker.FIRST_PROBE_SECONDS", 0.2)
    bench = Bench(runtime, models.url, pause_after=1)
    watch = asyncio.create_task(bench.breaker.watch())
    models.plan({"researcher": ["broken"]})
    with pytest.raises(AgentUnavailable):
        await bench.agent.propose(proposal(), bench.say)
    from engine.halting import Refusal

    with pytest.raises(Refusal):
        await bench.halting.pause("I want it so", "person:ann")
    await asyncio.sleep(0.6)
    assert runtime.state.phase == "paused"
    await bench.halting.resume("person:ann")
    watch.cancel()
    await bench.server.close()


async def test_one_failing_request_among_good_ones_is_its_experiments_failure(
    runtime: Runtime, models: ModelServer
) -> None:
    bench = Bench(runtime, models.url, pause_after=50)
    models.plan({"researcher": ["broken"]})
    with pytest.raises(AgentFailed, match="again and again"):
        await bench.agent.propose(proposal(), bench.say)
    assert len(models.requests()) == 3
    assert runtime.state.phase == "running"
    await bench.server.close()


@pytest.mark.parametrize(("what", "why"), [("key", "refuses the key"), ("unknown_model", "no such model")])
async def test_what_only_a_person_can_put_right_pauses_at_once(
    bench: Bench, models: ModelServer, what: str, why: str
) -> None:
    models.plan({"researcher": [what]})
    with pytest.raises(AgentUnavailable):
        await bench.agent.propose(proposal(), bench.say)
    assert bench.runtime.state.phase == "paused"
    assert why in bench.runtime.state.phase_reason
    assert bench.runtime.state.phase_reason.startswith(PREFIX)
    assert len(models.requests()) == 1


async def test_a_dead_server_is_one_clear_line(runtime: Runtime, models: ModelServer) -> None:
    models.stop()
    bench = Bench(runtime, models.url, pause_after=2, model="")
    with pytest.raises(AgentUnavailable):
        await bench.agent.propose(proposal(), bench.say)
    assert "not reachable at http://127.0.0.1" in runtime.state.phase_reason
    named = Bench(runtime, models.url, pause_after=2)
    await named.halting.resume("person:ann")
    with pytest.raises(AgentUnavailable):
        await named.agent.propose(proposal(), named.say)
    assert "2 failures in a row" in runtime.state.phase_reason
    models.start()
    await bench.server.close()
    await named.server.close()


async def test_a_context_smaller_than_said_halves_the_prompt_once(runtime: Runtime, models: ModelServer) -> None:
    lessons = [f"lesson {number}: " + "what was seen " * 60 for number in range(80)]
    bench = Bench(runtime, models.url, context_tokens=24_000, max_tokens=4_000)
    models.plan({"researcher": ["overflow:8000"]})
    await bench.agent.propose(proposal(lessons=lessons), bench.say)
    long, short = (len(json.dumps(one["body"]["messages"])) for one in models.requests())
    assert short < 0.6 * long
    assert "# The contract" in models.requests()[-1]["body"]["messages"][1]["content"]
    models.plan({"researcher": ["overflow:10"]})
    with pytest.raises(AgentUnavailable):
        await bench.agent.propose(proposal("e0002"), bench.say)
    assert "takes no prompt of 10000 tokens" in runtime.state.phase_reason
    await bench.server.close()


async def test_caps_hold_before_the_call(tmp_path: Path, models: ModelServer) -> None:
    runtime = await started(tmp_path / "capped", Budget(tokens=12_000, money=5.0))
    bench = Bench(runtime, models.url, max_tokens=4_000, context_tokens=16_000, price_in=1.0, price_out=2.0)
    await bench.agent.propose(proposal(), bench.say)
    state = runtime.state
    assert state.tokens_used == bench.replies()[0].tokens_in + bench.replies()[0].tokens_out
    assert state.money == pytest.approx((100 + 2 * (state.tokens_used - 100)) / 1e6)
    models.plan({"researcher": ["slow:1"]})
    # Two at once: the first one's upper bound is reserved, so the second finds no room.
    results = await asyncio.gather(
        bench.agent.propose(proposal("e0002"), bench.say), bench.agent.propose(proposal("e0003"), bench.say),
        return_exceptions=True,
    )  # fmt: skip
    assert sum(isinstance(one, AgentUnavailable) for one in results) == 1
    assert len(models.requests()) == 2
    assert state.phase == "paused" and "tokens" in state.phase_reason
    await bench.halting.resume("person:ann")
    await bench.agent.propose(proposal("e0004"), bench.say)
    await bench.server.close()
    await runtime.close()


async def test_every_role_is_asked_with_its_headers(bench: Bench, models: ModelServer) -> None:
    own = Member(
        "e0007", "own", PROGRAM.format(about="", constant=1.0), parent="b-x", score=1.0, low=-1, high=2, seeds=2
    )
    assert (await bench.agent.repair(RepairBrief("e0007", 1, own.source, "", "causal", "t=3", 1), bench.say)).program
    near = [Neighbour("e0001", "a", "b", 0.9)]
    models.plan({"novelty": ["repeats:e0001"]})
    assert (await bench.agent.judge(NoveltyBrief("e0007", 1, "t", "m", near), bench.say)).duplicate_of == "e0001"
    analysis = await bench.agent.analyse(AnalysisBrief("e0007", own, None, [own], [], [], None, {}), bench.say)
    assert analysis.lessons
    assert [(one["role"], one["experiment"]) for one in models.requests()] == [
        ("engineer", "e0007"), ("novelty", "e0007"), ("analyst", "e0007"),
    ]  # fmt: skip
    assert models.requests("novelty")[0]["body"]["temperature"] == 0.2


async def test_the_key_is_in_the_header_and_nowhere_else(bench: Bench, models: ModelServer) -> None:
    models.plan({"researcher": ["echo_key"], "e0002": ["key"]})
    draft = await bench.agent.propose(proposal(), bench.say)
    assert "[key]" in draft.motivation
    with pytest.raises(AgentUnavailable):
        await bench.agent.propose(proposal("e0002"), bench.say)
    assert models.requests()[0]["key"] == f"Bearer {KEY}"
    assert KEY not in "".join(bench.heard)
    await bench.runtime.flush()
    for path in bench.runtime.paths.root.rglob("*"):
        if path.is_file():
            assert KEY.encode() not in path.read_bytes(), path


def test_a_key_leaves_the_environment_and_its_file_must_be_private(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert take_key("").reveal() == KEY
    assert "OPENAI_API_KEY" not in os.environ
    assert KEY not in repr(take_key(""))
    path = tmp_path / "key"
    path.write_text(KEY + "\n")
    path.chmod(0o644)
    with pytest.raises(KeyProblem, match="chmod 600"):
        take_key(str(path))
    path.chmod(stat.S_IRUSR | stat.S_IWUSR)
    assert take_key(str(path)).reveal() == KEY
    with pytest.raises(KeyProblem, match="No such file"):
        take_key(str(tmp_path / "none"))


async def test_the_doctor_says_it_in_one_line(models: ModelServer) -> None:
    assert await check_server({}) == "offline evolver (no server is set)"
    assert "no model is named" in await check_server({"OPENAI_API_KEY": KEY})
    environment = {"OPENAI_BASE_URL": models.url, "OPENAI_API_KEY": KEY}
    assert "answers; has streaming, JSON schema, seeds, token counts, embeddings" in await check_server(environment)
    models.plan({"doctor": ["picky:response_format+seed"]})
    assert "without JSON schema, seeds" in await check_server(environment)
    models.plan({"doctor": ["key"]})
    refused = await check_server(environment)
    assert "refuses the key" in refused and KEY not in refused and "\n" not in refused
    assert "no user name" in await check_server({"OPENAI_BASE_URL": "http://u:p@localhost/v1"})
