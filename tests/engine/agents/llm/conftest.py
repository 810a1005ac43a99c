"""A server process of the tests' own, a run directory to record in, and briefs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import cast

import pytest

from engine.agents.llm.breaker import Breaker
from engine.agents.llm.calls import Caller
from engine.agents.llm.client import Server
from engine.agents.llm.record import Record
from engine.agents.llm.roles import Models
from engine.agents.llm.secret import Secret
from engine.agents.llm.team import ROLES
from engine.agents.protocol import Member, ProposalBrief
from engine.client.rundir import RunPaths
from engine.domain import TaskInfo
from engine.halting import Halting
from engine.linear_attention.domain import LinearAttention
from engine.runtime import Runtime
from engine.sandboxes import Sandboxes
from engine.slots import Slots
from engine.supervision.sandbox import Launcher
from store import events as ev
from store.config import Agents, Budget, RunConfig
from tests.engine.agents.llm.server import ModelServer

KEY = "sk-test-0123456789abcdef"


@pytest.fixture
def models(tmp_path: Path) -> Iterator[ModelServer]:
    server = ModelServer(tmp_path / "server")
    yield server
    server.stop()


class Bench:
    """Models on a runtime, without a loop around them."""

    def __init__(self, runtime: Runtime, url: str, **settings: object) -> None:
        base = {"kind": "models", "base_url": url, "model": "tiny", "timeout_seconds": 20.0, "retries": 2}
        self.config = Agents(**(base | settings))  # type: ignore[arg-type]
        self.runtime = runtime
        sandboxes = Sandboxes(cast(Launcher, None), memory_mb=1, disk_mb=1)
        self.halting = Halting(runtime, sandboxes, Slots(1), lambda ground: cast(Launcher, None))
        self.server = Server(url, Secret(KEY), self.config.timeout_seconds)
        self.breaker = Breaker(self.halting, self.server, self.config.pause_after)
        record = Record(runtime.paths.root / "calls")
        caller = Caller(runtime, self.halting, self.config, self.server, self.breaker, record)
        self.agent = Models(runtime, caller, self.config, dict.fromkeys(ROLES, self.config.model))
        self.heard: list[str] = []

    def say(self, text: str) -> None:
        self.heard.append(text)

    def replies(self) -> list[ev.AgentReplied]:
        from store.journal import read

        self.runtime.journal.wait(self.runtime.state.seq, 5)
        records = read(self.runtime.paths.journal)
        return [record.data for record in records if isinstance(record.data, ev.AgentReplied)]


async def started(root: Path, budget: Budget | None = None) -> Runtime:
    """A runtime of a run that is running."""
    RunPaths(root).create()
    runtime = Runtime(root, RunConfig(budget=budget or Budget()))
    await runtime.commit(ev.RunCreated("r", ev.FORMAT, "0", ""))
    await runtime.commit(ev.RunArmed("L2", 4, 1.0, 26, 26))
    await runtime.commit(ev.RunResumed())
    return runtime


@pytest.fixture
async def runtime(tmp_path: Path) -> AsyncIterator[Runtime]:
    made = await started(tmp_path / "run")
    yield made
    await made.close()


@pytest.fixture
async def bench(runtime: Runtime, models: ModelServer) -> AsyncIterator[Bench]:
    made = Bench(runtime, models.url)
    yield made
    await made.server.close()


def proposal(experiment: str = "e0001", **changed: object) -> ProposalBrief:
    domain = LinearAttention()
    source = domain.baseline_source("linear_attention")
    parent = Member("b-linear_attention", "linear attention", source, origin="baseline")
    base = {
        "experiment": experiment, "seed": 1, "parent": parent, "references": [], "population": [], "lessons": [],
        "contract": domain.contract, "tasks": [TaskInfo("recall", "recall", "accuracy", 0.1, 12)],
    }  # fmt: skip
    return ProposalBrief(**(base | changed))  # type: ignore[arg-type]
