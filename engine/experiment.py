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

import msgspec

from engine import attention, scoring
from engine.domain import GateResult, VetReport
from engine.gating import Gating
from engine.sandboxes import Ended
from engine.trials import VettingFailed
from store import events as ev


class Machine(Gating):
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
        """Wait while the run is paused, frozen or parked, or this experiment is held."""
        await self.runtime.until(lambda state: state.phase == "running" and not self.entry.held)

    # --- dedupe and vet -----------------------------------------------------------------------------------------------

    async def dedupe(self) -> None:
        """Drop a proposal whose program, or whose idea, is an earlier one; otherwise vet it."""
        self.doing("looking for duplicates")
        source = await self.runtime.text(self.entry.program)
        own = await asyncio.to_thread(self.lab.domain.syntax_hash, source)
        for other in self.earlier():
            if own == other.syntax_hash or self.entry.program == other.program:
                return await self.duplicate(other.id, "exact")
        of = await self.repeats(self.earlier())
        if of:
            return await self.duplicate(of, "motivation")
        if of is not None:
            await self.vet()

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

    # --- train, score and analyse -------------------------------------------------------------------------------------

    async def train(self) -> None:
        """Train the next seed of an approved program; a parked trial comes first."""
        if await attention.intercept(self.lab, self.entry):
            return
        parked = self.parked()
        seed = parked.seed if parked else self.wanted_seed()
        if seed is None:
            return await self.score()
        if self.barred():
            self.doing("autonomy is A0: nothing trains")
            return await self.runtime.until(lambda _: not self.barred() or not self.entry.open)
        if not self.approved():
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
        if self.entry.origin == "baseline":
            return await self.close("ranked")
        await self.explain()
