"""One experiment as a state machine: propose, dedupe, vet, repair, assess, gate, train, score, analyse.

Where an experiment stands is `Experiment.step` of the folded state and nothing else. Every step ends in an event that
moves it on, so after a crash the machine goes on from the last event: a step that had not ended runs again, one that
had ended never does.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Literal

import msgspec

from engine import scoring
from engine.agents.protocol import AnalysisBrief, Fix, Member, ProposalBrief, RepairBrief
from engine.domain import GateResult, VetReport
from engine.laboratory import as_member
from engine.predictions import check_predictions
from engine.sandboxes import Ended
from engine.supervision import risk
from engine.supervision.policy import Case, decide
from engine.training import Training
from engine.trials import VettingFailed
from store import events as ev
from store.state import Experiment, Request


class Machine(Training):
    """Drives one experiment to its end."""

    async def run(self) -> None:
        """Advance until the experiment is closed."""
        steps: dict[str, Callable[[], Awaitable[None]]] = {
            "propose": self.propose,
            "dedupe": self.dedupe,
            "vet": self.vet,
            "repair": self.repair,
            "assess": self.assess,
            "gate": self.gate,
            "train": self.train,
            "score": self.score,
            "analyse": self.analyse,
        }
        while self.entry.open:
            await self.may_work()
            await steps[self.entry.step]()

    async def may_work(self) -> None:
        """Wait while the run is paused, frozen or parked."""
        await self.runtime.until(lambda state: state.phase == "running")

    # --- propose ------------------------------------------------------------------------------------------------------

    async def propose(self) -> None:
        """Have the Researcher draft a program from the sampled parent and references."""
        self.doing("writing the proposal")
        state, entry = self.runtime.state, self.entry
        parent = await self.member(state.experiments[entry.parent])
        question = state.experiments[entry.parent].summary or parent.title
        brief = ProposalBrief(
            experiment=self.id,
            seed=entry.seed,
            parent=parent,
            references=[await self.member(state.experiments[name]) for name in entry.references],
            population=await self.population(),
            lessons=await self.lab.recall(question, 6),
            contract=self.lab.domain.contract,
            tried=[e.genome for e in state.experiments.values() if e.genome and e.id != self.id],
        )
        call = await self.call("researcher", msgspec.json.encode(brief).decode())
        started = time.monotonic()
        draft = await self.lab.agent.propose(brief, self.say("researcher"))
        await self.reply(call, "researcher", msgspec.json.encode(draft).decode(), started)
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
            f"agent:{self.lab.agent.name}",
        )

    async def call(self, role: str, prompt: str) -> str:
        """Record that an agent begins to work; returns the call's id."""
        name = f"{self.id}-{role}-{secrets.token_hex(3)}"
        sha = await self.runtime.put(prompt)
        await self.runtime.commit(ev.AgentCalled(name, self.id, role, self.lab.agent.name, sha))
        return name

    async def reply(self, call: str, role: str, text: str, started: float) -> None:
        """Record what the agent answered."""
        sha = await self.runtime.put(text)
        self.runtime.emit(ev.AgentReplied(call, self.id, role, sha, round(time.monotonic() - started, 3)))

    async def member(self, entry: Experiment) -> Member:
        """An experiment as agents see it."""
        return as_member(entry, await self.runtime.text(entry.program))

    async def population(self) -> list[Member]:
        """Every scored program, best first."""
        return [await self.member(entry) for entry in self.runtime.state.ranking() if entry.id != self.id]

    # --- dedupe and vet -----------------------------------------------------------------------------------------------

    async def dedupe(self) -> None:
        """Drop a proposal whose program says the same as an earlier one; otherwise vet it."""
        self.doing("looking for duplicates")
        source = await self.runtime.text(self.entry.program)
        own = await asyncio.to_thread(self.lab.domain.syntax_hash, source)
        for other in self.earlier():
            if own == other.syntax_hash or self.entry.program == other.program:
                return await self.duplicate(other.id, "exact")
        await self.vet()

    def earlier(self) -> list[Experiment]:
        """Experiments whose programs came before this one's."""
        return [
            e
            for e in self.runtime.state.experiments.values()
            if e.id != self.id and e.program and (e.opened, e.id) < (self.entry.opened, self.id)
        ]

    async def duplicate(self, of: str, how: Literal["exact", "functional"]) -> None:
        """Close as a repetition of `of`."""
        self.runtime.emit(ev.ProposalDuplicate(self.id, of, how))
        await self.close("duplicate", f"repeats {of} ({how})")

    async def vet(self) -> None:
        """Run every vetting gate on the program in a sandbox."""
        entry = self.entry
        source = await self.runtime.text(entry.program)
        baseline = entry.origin == "baseline"
        self.doing("waits for a slot to be vetted")
        async with self.lab.slots.hold(baseline=baseline, urgent=self.id == self.lab.baseline or not baseline):
            self.doing("vetting")
            quadratic = baseline and not self.counts_as_linear()
            spec = self.lab.domain.vet_spec(self.lab.tier, quadratic)
            started = time.monotonic()
            try:
                name = f"vet-{self.id}-{entry.repairs}-{secrets.token_hex(2)}"
                report = await self.lab.runner.vet(name, source, spec)
            except VettingFailed as error:
                gates, seconds = [GateResult("load", False, str(error)[:1_000])], time.monotonic() - started
                report = VetReport(passed=False, gates=gates, seconds=seconds)
            except Ended as ended:
                return await self.wait_out(ended)
        await self.runtime.commit(
            ev.ProgramVetted(
                experiment=self.id,
                program=entry.program,
                passed=report.passed,
                gates=[ev.GateVerdict(gate.gate, gate.passed, gate.evidence[:1_000]) for gate in report.gates],
                report=await self.runtime.put(msgspec.json.encode(report).decode()),
                syntax_hash=await asyncio.to_thread(self.lab.domain.syntax_hash, source),
                functional_hash=report.functional_hash,
                parameters=report.parameters,
                state_floats=report.state_floats,
                flops_per_token=report.flops_per_token,
                cost_exponent=report.cost_exponent,
                step_seconds=report.step_seconds,
                seconds=report.seconds,
            )
        )

    def counts_as_linear(self) -> bool:
        """Whether quadratic cost is a fault in this program: for every one but the quadratic reference."""
        return self.id.removeprefix("b-") not in self.lab.domain.quadratic_baselines

    async def repair(self) -> None:
        """Send a failed program back to the Engineer with the evidence, or give up."""
        entry, config = self.entry, self.runtime.config.loop
        cheated = any(self.runtime.state.trials[name].cheat for name in entry.trials[-1:])
        if entry.origin in ("baseline", "person") or cheated or entry.repairs >= config.max_repairs:
            tried = f" after {entry.repairs} repairs" if entry.repairs else ""
            return await self.close("failed", f"{entry.failure}{tried}")
        self.doing("repairing")
        failed, _, evidence = entry.failure.partition(": ")
        source = await self.runtime.text(entry.program)
        attempt = entry.repairs + 1
        brief = RepairBrief(self.id, entry.seed + attempt, source, entry.genome, failed, evidence, attempt)
        call = await self.call("engineer", msgspec.json.encode(brief).decode())
        started = time.monotonic()
        fix: Fix = await self.lab.agent.repair(brief, self.say("engineer"))
        await self.reply(call, "engineer", msgspec.json.encode(fix).decode(), started)
        if not fix.program:
            return await self.close("failed", f"{entry.failure}; no remedy known: {fix.diagnosis}")
        await self.runtime.commit(
            ev.ProgramRepaired(
                experiment=self.id,
                old=entry.program,
                new=await self.runtime.put(fix.program),
                diagnosis=fix.diagnosis[:1_000],
                attempt=entry.repairs + 1,
                genome=fix.genome,
            ),
            f"agent:{self.lab.agent.name}",
        )

    # --- risk and gate ------------------------------------------------------------------------------------------------

    async def assess(self) -> None:
        """Drop functional duplicates; write down what could go wrong and what it would cost."""
        entry = self.entry
        if entry.origin != "baseline" and entry.functional_hash:
            for other in self.earlier():
                if other.functional_hash == entry.functional_hash and other.id != entry.duplicate_of:
                    return await self.duplicate(other.id, "functional")
        source = await self.runtime.text(entry.program)
        seen = await asyncio.to_thread(self.lab.domain.inspect, source)
        cost = self.lab.domain.predicted_cpu_seconds(self.lab.tier, entry.step_seconds)
        report = VetReport(
            passed=True,
            gates=[GateResult(gate.gate, gate.passed, gate.evidence) for gate in entry.gates],
            cost_exponent=entry.cost_exponent,
        )
        wanted = self.runtime.config.sandbox.minimum_level
        findings = risk.assess(seen, report, cost, self.lab.level, wanted)
        self.runtime.emit(ev.RiskAssessed(self.id, entry.program, self.lab.tier, findings, round(cost, 1)))

    async def gate(self) -> None:
        """Ask the policy, and a person where it says so. A decision binds to the program's hash."""
        entry, tier = self.entry, self.lab.tier
        refused = next((r for r in self.requests() if r.decision in ("reject", "expire")), None)
        if refused is not None:
            return await self.close("rejected", f"{refused.decision} by {refused.who}: {refused.reason}".rstrip(": "))
        waiting = next((r for r in self.requests() if r.decision is None), None)
        if waiting is None:
            verdict, rule = decide(
                self.lab.policy, Case(entry.origin, tier, entry.findings, entry.predicted_cpu_seconds)
            )
            if verdict != "ask":
                decision: ev.Decision = "approve" if verdict == "allow" else "reject"
                await self.runtime.commit(
                    ev.ApprovalDecided(self.id, entry.program, tier, decision, "policy", rule=rule), "policy"
                )
                if verdict == "deny":
                    await self.close("rejected", f"denied by policy rule: {rule}")
                return
            request = f"R{len(self.runtime.state.requests) + 1:04d}"
            expires = time.time() + 60 * self.runtime.config.gate.expires_minutes
            await self.runtime.commit(ev.ApprovalRequested(request, self.id, entry.program, tier, rule, expires))
            waiting = self.runtime.state.requests[request]
        self.doing("waits for approval")
        await self.await_decision(waiting.id, waiting.expires)

    def requests(self) -> list[Request]:
        """Requests about this experiment's present program."""
        return [
            r
            for r in self.runtime.state.requests.values()
            if r.experiment == self.id and r.program == self.entry.program
        ]

    async def await_decision(self, request: str, expires: float) -> None:
        """Wait for a person; at the end of its time a request is a refusal."""
        decided = self.runtime.until(lambda state: state.requests[request].decision is not None)
        try:
            await asyncio.wait_for(decided, max(0.0, expires - time.time()))
        except TimeoutError:
            entry = self.entry
            await self.runtime.commit(
                ev.ApprovalDecided(
                    self.id, entry.program, self.lab.tier, "expire", "clock", request, "nobody decided in time"
                )
            )

    # --- train, score and analyse -------------------------------------------------------------------------------------

    async def train(self) -> None:
        """Train the next seed of an approved program; a parked trial comes first."""
        entry, parked = self.entry, self.parked()
        seed = parked.seed if parked else self.wanted_seed()
        if seed is None:
            return await self.score()
        if entry.approved_program != entry.program or entry.approved_tier != self.lab.tier:
            return await self.gate()
        await self.train_seed(seed, parked)

    async def score(self) -> None:
        """Compare with the baseline on shared seeds; waits until the baseline has one."""
        if self.id != self.lab.baseline and not self.baseline_ready():
            self.doing("waits for the baseline's score")
            await self.runtime.until(lambda _: self.baseline_ready())
        scored = scoring.score_experiment(self.runtime.state, self.id, self.lab.baseline, self.lab.tier)
        if scored is None:
            return await self.close("failed", "no score: the trial shares no seed with the baseline")
        self.runtime.emit(scored)

    def baseline_ready(self) -> bool:
        """Whether the baseline has been measured on a seed of this experiment."""
        state = self.runtime.state
        reference = state.experiments.get(self.lab.baseline)
        if reference is None or (not reference.open and not reference.ranked):
            return True
        own = {trial.seed for trial in self.finished()}
        return any(trial.seed in own for trial in state.finished_trials(self.lab.baseline))

    async def analyse(self) -> None:
        """Train further seeds where that is worth it; then have the Analyst explain the result, and close."""
        if self.wanted_seed() is not None:
            return await self.train()
        entry = self.entry
        if entry.origin == "baseline":
            return await self.close("ranked")
        self.doing("analysing")
        scored = entry.scored
        assert scored is not None
        parent = self.runtime.state.experiments.get(entry.parent)
        result = await self.member(entry)
        outcomes = check_predictions(self.runtime.state, entry)
        brief = AnalysisBrief(
            experiment=self.id,
            result=result,
            parent=await self.member(parent) if parent else None,
            population=[*await self.population(), result],
            predictions=entry.predictions,
            outcomes=outcomes,
            against_parent=(
                (scored.against_parent, scored.against_parent_low or 0.0, scored.against_parent_high or 0.0)
                if scored.against_parent is not None
                else None
            ),
            noise={item.task: item.noise for item in scored.tasks},
            change=entry.change,
        )
        call = await self.call("analyst", msgspec.json.encode(brief).decode())
        started = time.monotonic()
        analysis = await self.lab.agent.analyse(brief, self.say("analyst"))
        text = msgspec.json.encode(analysis).decode()
        await self.reply(call, "analyst", text, started)
        lessons = [lesson[:400] for lesson in analysis.lessons[:8]]
        self.runtime.emit(
            ev.ExperimentAnalysed(self.id, analysis.summary[:2_000], lessons, outcomes, await self.runtime.put(text)),
            f"agent:{self.lab.agent.name}",
        )
        for number, lesson in enumerate(lessons):
            await self.lab.remember(f"{self.id}/{number}", lesson)
        await self.close("ranked")
