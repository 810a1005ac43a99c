"""The agents' side of an experiment: what they are given, what becomes of their answers, and of their silence."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec

from engine import lessons
from engine.agents.protocol import (
    Agent,
    AgentFailed,
    AgentUnavailable,
    Analysis,
    AnalysisBrief,
    Member,
    NoveltyBrief,
    ProposalBrief,
    RepairBrief,
    Say,
)
from engine.halting import Refusal
from engine.laboratory import as_member
from engine.predictions import check_predictions
from engine.replaying import ReplayError
from engine.training import Training
from store import events as ev
from store.state import Experiment, RunState

LESSONS, FAILURES = 6, 12
PEOPLE = 40
"""So many of the best, and as many siblings, are told to agents that keep their own record."""
UNAVAILABLE_SECONDS = 1.0

B = TypeVar("B")
T = TypeVar("T")


class Consulting(Training):
    """The steps of an experiment in which an agent is asked."""

    @property
    def agent(self) -> Agent:
        """Who speaks for this experiment."""
        return self.lab.agent_of(self.entry.origin)

    async def consult(
        self,
        role: str,
        kind: type[B],
        make: Callable[[], Awaitable[B]],
        ask: Callable[[B, Say], Awaitable[T]],
        attempt: int = 0,
    ) -> T | None:
        """What the agent answers; None when it cannot answer at present, and the step has to run again.

        Raises:
            AgentFailed: there is no usable answer, for good.
        """
        try:
            brief = await self._question(role, kind, make, attempt)
            if self.agent.keeps_record:
                return await ask(brief, self.say(role))
            call = await self.call(role, msgspec.json.encode(brief).decode())
            started = time.monotonic()
            answer = await ask(brief, self.say(role))
            await self.reply(call, role, msgspec.json.encode(answer).decode(), started)
            return answer
        except ReplayError as error:
            with contextlib.suppress(Refusal):
                await self.lab.halting.pause(f"replay: {error}", "engine")
        except AgentUnavailable:
            pass
        await asyncio.sleep(UNAVAILABLE_SECONDS)
        return None

    async def _question(self, role: str, kind: type[B], make: Callable[[], Awaitable[B]], attempt: int) -> B:
        """What the agent is given: in a replay what it was given then, whatever is measured now."""
        if self.lab.recording is None:
            return await make()
        return await asyncio.to_thread(self.lab.recording.brief, self.id, role, attempt, kind)

    async def call(self, role: str, prompt: str) -> str:
        """Record that an agent begins to work; returns the call's id."""
        name = f"{self.id}-{role}-{secrets.token_hex(3)}"
        sha = await self.runtime.put(prompt)
        await self.runtime.commit(ev.AgentCalled(name, self.id, role, self.agent.name, sha))
        return name

    async def reply(self, call: str, role: str, text: str, started: float) -> None:
        """Record what the agent answered."""
        sha = await self.runtime.put(text)
        self.runtime.emit(ev.AgentReplied(call, self.id, role, sha, round(time.monotonic() - started, 3)))

    # --- what agents are told -----------------------------------------------------------------------------------------

    @property
    def real(self) -> RunState:
        """The state without tests of attention: what agents may learn from."""
        return self.lab.decoys.without(self.runtime.state)

    async def member(self, entry: Experiment) -> Member:
        """An experiment as agents see it."""
        return as_member(entry, await self.runtime.text(entry.program))

    async def population(self) -> list[Member]:
        """Every scored program, best first; without the programs where the agent asks for none."""
        ranked = [entry for entry in self.runtime.state.ranking() if entry.id != self.id]
        if not self.agent.keeps_record:
            return [await self.member(entry) for entry in ranked]
        near = [e for e in ranked[PEOPLE:] if e.origin == "baseline" or e.parent == self.entry.parent]
        return [as_member(entry, "") for entry in [*ranked[:PEOPLE], *near[:PEOPLE]]]

    def failures(self) -> list[str]:
        """What came to nothing, and why: siblings first, then the newest."""
        over = [e for e in self.real.proposals if e.outcome not in ("", "ranked") and e.title]
        over.sort(key=lambda e: (e.parent != self.entry.parent, -e.opened, e.id))
        return [f"{e.id} “{e.title}” (child of {e.parent}): {e.outcome}: {e.reason}"[:400] for e in over[:FAILURES]]

    # --- propose ------------------------------------------------------------------------------------------------------

    async def propose(self) -> None:
        """Have the Researcher draft a program from the sampled parent and references."""
        self.doing("writing the proposal")
        agent = self.agent
        try:
            draft = await self.consult("researcher", ProposalBrief, self._proposal_brief, agent.propose)
        except AgentFailed as failed:
            return await self.close("failed", f"the researcher gave no usable proposal: {failed}")
        if draft is None:
            return
        await self.runtime.commit(
            ev.ProposalDrafted(
                experiment=self.id,
                title=draft.title[:200],
                motivation=draft.motivation[:4_000],
                hypothesis=draft.hypothesis[:2_000],
                program=await self.runtime.put(draft.program),
                predictions=draft.predictions[:8],
                genome=draft.genome,
                change=draft.change[:300],
            ),
            f"agent:{agent.name}",
        )

    async def _proposal_brief(self) -> ProposalBrief:
        state, entry = self.real, self.entry
        parent = await self.member(state.experiments[entry.parent])
        question = state.experiments[entry.parent].summary or parent.title
        return ProposalBrief(
            experiment=self.id,
            seed=entry.seed,
            parent=parent,
            references=[await self.member(state.experiments[name]) for name in entry.references],
            population=await self.population(),
            lessons=await self.lab.recall(question, LESSONS),
            contract=self.lab.domain.contract,
            tried=[e.genome for e in state.experiments.values() if e.genome and e.id != self.id],
            tasks=self.lab.domain.tasks(self.lab.tier) if self.agent.keeps_record else [],
            failures=self.failures() if self.agent.keeps_record else [],
            rejections=lessons.rejections(state) if self.agent.keeps_record else [],
            judged=[] if self.agent.keeps_record else lessons.judged(state),
        )

    # --- novelty ------------------------------------------------------------------------------------------------------

    async def repeats(self, earlier: list[Experiment]) -> str | None:
        """The earlier proposal that this one repeats in the judgement of the novelty role, empty for none.

        None when it cannot be judged at present. Likeness of words only fetches those that are compared.
        """
        entry, agent = self.entry, self.agent
        if not agent.judges or entry.origin in ("person", "baseline"):
            return ""
        recording = self.lab.recording
        brief: NoveltyBrief | None = None
        if recording is None:
            proposals = [one for one in earlier if one.origin != "baseline"]
            above = self.runtime.config.agents.novelty_above
            near = await self.lab.neighbours.near(entry, proposals, above)
            brief = NoveltyBrief(self.id, entry.seed, entry.title, entry.motivation, near) if near else None
        if brief is None and (recording is None or not recording.has(self.id, "novelty")):
            return ""

        async def make() -> NoveltyBrief:
            assert brief is not None
            return brief

        self.doing("comparing with earlier ideas")
        try:
            found = await self.consult("novelty", NoveltyBrief, make, agent.judge)
        except AgentFailed as failed:
            self.runtime.note(f"{self.id}: its novelty could not be judged ({failed}); it is taken as new", "warning")
            return ""
        return None if found is None else found.duplicate_of

    # --- repair -------------------------------------------------------------------------------------------------------

    async def repair(self) -> None:
        """Send a failed program back to the Engineer with the evidence, or give up."""
        entry, config = self.entry, self.runtime.config.loop
        cheated = any(self.runtime.state.trials[name].cheat for name in entry.trials[-1:])
        if entry.origin in ("baseline", "person") or cheated or entry.repairs >= config.max_repairs:
            tried = f" after {entry.repairs} repairs" if entry.repairs else ""
            return await self.close("failed", f"{entry.failure}{tried}")
        self.doing("repairing")
        agent, attempt = self.agent, entry.repairs + 1
        try:
            fix = await self.consult("engineer", RepairBrief, self._repair_brief, agent.repair, attempt)
        except AgentFailed as failed:
            return await self.close("failed", f"{entry.failure}; no usable repair: {failed}")
        if fix is None:
            return
        if not fix.program:
            return await self.close("failed", f"{entry.failure}; no remedy known: {fix.diagnosis}")
        await self.runtime.commit(
            ev.ProgramRepaired(
                experiment=self.id,
                old=entry.program,
                new=await self.runtime.put(fix.program),
                diagnosis=fix.diagnosis[:1_000],
                attempt=attempt,
                genome=fix.genome,
            ),
            f"agent:{agent.name}",
        )

    async def _repair_brief(self) -> RepairBrief:
        entry = self.entry
        failed, _, evidence = entry.failure.partition(": ")
        source, attempt = await self.runtime.text(entry.program), entry.repairs + 1
        brief = RepairBrief(self.id, entry.seed + attempt, source, entry.genome, failed, evidence, attempt)
        if not self.agent.keeps_record:
            return brief
        return msgspec.structs.replace(
            brief, title=entry.title, contract=self.lab.domain.contract, history=list(entry.diagnoses)
        )

    # --- analyse ------------------------------------------------------------------------------------------------------

    async def explain(self) -> None:
        """Have the Analyst explain the result, and close. Whether predictions held is computed here, never asked."""
        self.doing("analysing")
        agent, outcomes = self.agent, check_predictions(self.runtime.state, self.entry)
        try:
            analysis = await self.consult("analyst", AnalysisBrief, self._analysis_brief, agent.analyse)
        except AgentFailed as failed:
            analysis = Analysis(f"No analysis: {failed}", [], [], [])
        if analysis is None:
            return
        learned = [lesson[:400] for lesson in analysis.lessons[:8]]
        report = await self.runtime.put(msgspec.json.encode(analysis).decode())
        self.runtime.emit(
            ev.ExperimentAnalysed(self.id, analysis.summary[:2_000], learned, outcomes, report), f"agent:{agent.name}"
        )
        for number, lesson in enumerate(learned):
            await self.lab.remember(f"{self.id}/{number}", lesson)
        await self.close("ranked")

    async def _analysis_brief(self) -> AnalysisBrief:
        entry = self.entry
        scored = entry.scored
        assert scored is not None
        parent = self.runtime.state.experiments.get(entry.parent)
        result = await self.member(entry)
        words: dict[str, Any] = {}
        if self.agent.keeps_record:
            words = {"motivation": entry.motivation, "hypothesis": entry.hypothesis}
        return AnalysisBrief(
            experiment=self.id,
            result=result,
            parent=await self.member(parent) if parent else None,
            population=[*await self.population(), result],
            predictions=entry.predictions,
            outcomes=check_predictions(self.runtime.state, entry),
            against_parent=(
                (scored.against_parent, scored.against_parent_low or 0.0, scored.against_parent_high or 0.0)
                if scored.against_parent is not None
                else None
            ),
            noise={item.task: item.noise for item in scored.tasks},
            change=entry.change,
            **words,
        )
