"""What every experiment of a run shares, and how experiments look to agents."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec

from engine import scoring
from engine.agents.protocol import Agent, Member
from engine.decoys import Decoys
from engine.domain import Domain
from engine.halting import Halting, Refusal
from engine.novelty import Neighbours
from engine.replaying import Recording
from engine.resemblance import Resemblance
from engine.runtime import Runtime
from engine.slots import Slots
from engine.supervision.deadman import DeadMan
from engine.trials import TrialRunner
from store.events import Origin
from store.policy import Policy
from store.state import Experiment, RunState

Cancel = Callable[[str, str, str], Awaitable[None]]


async def _no_loop(experiment: str, who: str, reason: str) -> None:
    raise Refusal("the loop has not begun yet")


class Laboratory(msgspec.Struct):
    """What every experiment of a run shares.

    agents: by an experiment's origin, where another one than `agent` speaks for it. proposer: the origin of the next
    proposal. recording: the run that this one replays. cancel: ends an experiment, given its id, who wants it and why.
    """

    runtime: Runtime
    domain: Domain
    runner: TrialRunner
    slots: Slots
    halting: Halting
    deadman: DeadMan
    agent: Agent
    policy: Policy
    level: str
    data_hash: str
    recall: Callable[[str, int], Awaitable[list[str]]]
    remember: Callable[[str, str], Awaitable[None]]
    agents: dict[str, Agent] = {}
    proposer: Callable[[RunState], Origin] = lambda state: "evolver"
    recording: Recording | None = None
    cancel: Cancel = _no_loop
    neighbours: Neighbours = msgspec.field(default_factory=Neighbours)
    resemblance: Resemblance = msgspec.field(default_factory=Resemblance)
    decoys: Decoys = msgspec.field(default_factory=Decoys)

    def agent_of(self, origin: Origin) -> Agent:
        """Who speaks for experiments of this origin."""
        return self.agents.get(origin, self.agent)

    @property
    def tier(self) -> str:
        """The tier proposals are trained at."""
        return self.runtime.config.trials.tier

    @property
    def baseline(self) -> str:
        """Experiment id of the baseline that scores are relative to."""
        return baseline_id(self.runtime.config.trials.baseline)


def as_member(entry: Experiment, source: str) -> Member:
    """An experiment and its program as agents see them."""
    scored = entry.scored
    return Member(
        id=entry.id,
        title=entry.title,
        source=source,
        genome=entry.genome,
        parent=entry.parent,
        score=scored.score if scored else 0.0,
        low=scored.low if scored else -scoring.UNKNOWN,
        high=scored.high if scored else scoring.UNKNOWN,
        seeds=scored.seeds if scored else 0,
        tasks={item.task: item.difference for item in scored.tasks} if scored else {},
        origin=entry.origin,
    )


def baseline_id(name: str) -> str:
    """The experiment id of a baseline."""
    return f"b-{name}"
