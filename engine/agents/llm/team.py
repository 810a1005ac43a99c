"""Puts the agents of a run together, as `[agents]` says: the evolver, models, or both; live, or from a record."""

from __future__ import annotations

import asyncio
import functools
from pathlib import Path

from cognition.backends import LocalEmbedding, ServerEmbedding
from cognition.embedding import Embedding
from engine.agents.evolver.agent import Evolver
from engine.agents.llm.breaker import Breaker
from engine.agents.llm.calls import Caller
from engine.agents.llm.client import Server
from engine.agents.llm.mixed import next_proposer
from engine.agents.llm.record import Answers, Record
from engine.agents.llm.roles import Models
from engine.agents.llm.secret import Secret
from engine.cache import cache_home
from engine.laboratory import Laboratory
from engine.replaying import Recording
from store.config import Agents, RunConfig
from store.events import Origin
from store.state import RunState

ROLES = ("researcher", "novelty", "engineer", "analyst")


def name_of(config: Agents) -> str:
    """Who proposes, in a few words for people."""
    if config.kind == "evolver":
        return "evolver"
    models = config.researcher_model or config.model or "models"
    name = f"{models} + evolver" if config.kind == "mixed" else models
    return f"{name} (replay)" if config.replay else name


class Team:
    """The agents' side of a laboratory; `watch` has to run while the engine does."""

    def __init__(self) -> None:
        self.server: Server | None = None
        self._breaker: Breaker | None = None
        self._librarian: Server | None = None
        self._local: LocalEmbedding | None = None

    def embedding(self, config: RunConfig, key: Secret) -> Embedding | None:
        """What recalls are found by beside words; None for the one that needs no model."""
        wanted = config.cognition
        if wanted.embedding == "local":
            self._local = LocalEmbedding()
            return self._local
        if wanted.embedding == "lexical" or config.agents.replay:
            return None
        self._librarian = server = Server(config.agents.base_url, key, config.agents.timeout_seconds)
        loop, call = asyncio.get_running_loop(), functools.partial(server.embed, wanted.model)
        return ServerEmbedding(call, loop, wanted.model, wanted.dimensions, cache_home() / "embeddings")

    async def join(self, lab: Laboratory, config: Agents, key: Secret) -> None:
        """Give a laboratory its agents. Raises `ReplayError`."""
        if config.replay:
            lab.recording = await asyncio.to_thread(Recording, Path(config.replay))
        if config.kind == "evolver":
            return
        runtime = lab.runtime
        answers = await asyncio.to_thread(Answers, Path(config.replay)) if config.replay else None
        if answers is None:
            self.server = Server(config.base_url, key, config.timeout_seconds)
        self._breaker = Breaker(lab.halting, self.server, config.pause_after)
        record = Record(runtime.paths.root / "calls")
        caller = Caller(runtime, lab.halting, config, self.server, self._breaker, record, answers)
        models = Models(runtime, caller, config, _models(config, lab.recording))
        lab.agents = {"model": models, "evolver": Evolver()}
        if config.kind == "models":
            lab.agent = models
            lab.proposer = _always_model
        else:
            lab.agent, lab.agents["person"] = Evolver(), models
            lab.proposer = functools.partial(_by_share, config.share)

    async def watch(self) -> None:
        """Probe the server whenever it has paused the run; to be cancelled."""
        if self._breaker is not None:
            await self._breaker.watch()

    async def close(self) -> None:
        """Let go of the connections."""
        for server in (self.server, self._librarian):
            if server is not None:
                await server.close()
        if self._local is not None:
            await asyncio.to_thread(self._local.close)


def _models(config: Agents, recording: Recording | None) -> dict[str, str]:
    found = {role: getattr(config, f"{role}_model") or config.model for role in ROLES}
    known = recording.models if recording is not None else {}
    return {role: name or known.get(role, "") for role, name in found.items()}


def _always_model(state: RunState) -> Origin:
    return "model"


def _by_share(share: float, state: RunState) -> Origin:
    return next_proposer(state, share)
