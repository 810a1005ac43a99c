"""Who proposes: what the environment settles, the shares of a mixed run, the record and its replay."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.agents.llm.mixed import next_proposer
from engine.agents.llm.record import Answers, Entry, Record
from engine.agents.llm.team import name_of
from engine.client.proposer import hint, prepare_replay, settle
from engine.novelty import Neighbours
from engine.replaying import ReplayError
from store.blobs import Blobs
from store.config import Agents, Budget, ConfigError, RunConfig, dump, parse
from store.state import Experiment, RunState


@pytest.mark.parametrize(
    ("environment", "kind", "url", "model"),
    [
        ({}, "evolver", "", ""),
        ({"OPENAI_API_KEY": "sk-x"}, "evolver", "", ""),
        ({"OPENAI_API_KEY": "sk-x", "OPENAI_MODEL": "m"}, "models", "https://api.openai.com/v1", "m"),
        ({"OPENAI_BASE_URL": "http://127.0.0.1:1/v1/"}, "models", "http://127.0.0.1:1/v1", ""),
    ],
)
def test_the_environment_settles_what_is_open(environment: dict[str, str], kind: str, url: str, model: str) -> None:
    config = settle(RunConfig(), environment)
    assert (config.agents.kind, config.agents.base_url, config.agents.model) == (kind, url, model)
    assert parse(dump(config)) == config
    assert settle(config, {}) == config  # frozen: a later shell without the variables changes nothing
    assert "sk-x" not in dump(config)
    assert bool(hint(config, environment)) == ("OPENAI_API_KEY" in environment and kind == "evolver")


def test_what_cannot_be_is_refused_without_quoting_secrets() -> None:
    for url in (
        "http://user:hunter2@host/v1",
        "http://host/v1?key=hunter2",
        "ftp://host",
        "http://",
        "http://h:99999999",
    ):
        with pytest.raises(ConfigError) as refused:
            settle(RunConfig(), {"OPENAI_BASE_URL": url})
        assert "hunter2" not in str(refused.value)
    capped = RunConfig(budget=Budget(money=1.0))
    with pytest.raises(ConfigError, match="price_in"):
        settle(capped, {"OPENAI_BASE_URL": "http://host/v1"})
    assert settle(capped, {}).agents.kind == "evolver"
    with pytest.raises(ConfigError, match=r"run.toml:3:1: budget.money needs agents.price_in"):
        parse('agents.kind = "models"\n[budget]\nmoney = 1.0\n')
    with pytest.raises(ConfigError, match="unknown key 'agents.api_key'"):
        parse('[agents]\napi_key = "hunter2"\n')
    with pytest.raises(ConfigError, match="context_tokens leaves less"):
        parse("[agents]\nmax_tokens = 8000\ncontext_tokens = 8500\n")


def test_names_for_the_header() -> None:
    assert name_of(Agents(kind="evolver")) == "evolver"
    assert name_of(Agents(kind="models", model="m")) == "m"
    assert name_of(Agents(kind="mixed", model="m", replay="/x")) == "m + evolver (replay)"


def state_with(*entries: tuple[str, float, bool]) -> RunState:
    state = RunState()
    for number, (origin, seconds, is_open) in enumerate(entries):
        entry = Experiment(f"e{number}", origin, cpu_seconds=seconds)  # type: ignore[arg-type]
        entry.step = "train" if is_open else "closed"
        state.experiments[entry.id] = entry
    return state


def test_the_share_is_one_of_compute_not_of_proposals() -> None:
    assert next_proposer(state_with(), 0.5) == "model"
    assert next_proposer(state_with(), 0.2) == "evolver"
    assert next_proposer(state_with(("model", 0.0, True)), 0.5) == "evolver"
    one_dear = [("model", 90.0, False), *[("evolver", 10.0, False)] * 8]
    assert next_proposer(state_with(*one_dear), 0.5) == "evolver"
    assert next_proposer(state_with(*one_dear, ("evolver", 20.0, False)), 0.5) == "model"
    assert next_proposer(state_with(*one_dear, ("evolver", 0.0, True), ("evolver", 0.0, True)), 0.5) == "model"
    assert next_proposer(state_with(("model", 5.0, False)), 0.0) == "evolver"
    assert next_proposer(state_with(("evolver", 5.0, False)), 1.0) == "model"


async def test_a_record_is_read_back_and_a_damaged_one_is_refused(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path / "blobs")
    asked, other, reply = blobs.put("asked"), blobs.put("other"), blobs.put("reply")
    record = Record(tmp_path / "calls")
    await record.append(Entry(asked, "e0001", "researcher", "m", "reply", reply, "stop"))
    with (tmp_path / "calls" / "index.jsonl").open("ab") as file:
        file.write(b'{"asked": "torn')
    await record.append(Entry(other, "e0002", "researcher", "m", "overflow", message="too long"))
    answers = Answers(tmp_path)
    assert answers.find(asked, "e0001")[1] == "reply"
    assert answers.find(other, "e0002")[0].outcome == "overflow"
    with pytest.raises(ReplayError, match="has no call 000000000000"):
        answers.find("0" * 64, "e0001")
    (tmp_path / "blobs" / reply).write_text("changed")
    with pytest.raises(ReplayError, match="damaged"):
        answers.find(asked, "e0001")
    await record.append(Entry("../../etc/passwd", "e0001", "researcher", "m", "reply", reply))
    with pytest.raises(ReplayError, match="line 4 names no blob"):
        Answers(tmp_path)
    with pytest.raises(ReplayError, match="no record of calls"):
        Answers(tmp_path / "elsewhere")


def test_a_replay_gets_the_configuration_of_its_original(tmp_path: Path) -> None:
    other, fresh = tmp_path / "other", tmp_path / "fresh"
    other.mkdir()
    (other / "run.toml").write_text(dump(RunConfig(name="other", agents=Agents(kind="models", base_url="http://h/v1"))))
    (other / "policy.toml").write_text("# mine")
    prepare_replay(other, fresh)
    config = parse((fresh / "run.toml").read_text())
    assert (config.name, config.agents.replay, config.agents.kind) == ("fresh", str(other), "models")
    assert (fresh / "policy.toml").read_text() == "# mine"
    prepare_replay(other, fresh)
    with pytest.raises(ConfigError, match="no replay of fresh"):
        prepare_replay(fresh, other)


async def test_neighbours_are_only_those_that_are_alike() -> None:
    def entry(name: str, motivation: str) -> Experiment:
        return Experiment(name, "model", title=name, motivation=motivation)

    others = [
        entry(
            "a",
            "The decay is the same for every channel, so recall forgets keys that it needs; give each channel its own.",
        ),
        entry("b", "Parity needs a state that can change its sign: allow negative eigenvalues in the transition."),
        entry("c", ""),
    ]
    new = entry(
        "n", "One decay for all channels makes recall forget needed keys, so each channel gets a decay of its own."
    )
    near = await Neighbours().near(new, others, 0.3)
    assert [one.id for one in near] == ["a"]
