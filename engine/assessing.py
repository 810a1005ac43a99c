"""What could go wrong with a vetted program, and whether it is a new one: the step before the gate."""

from __future__ import annotations

import asyncio
from typing import Literal

from engine import costs
from engine.consulting import Consulting
from engine.domain import SourceChange
from engine.resemblance import Nearest
from engine.supervision import risk
from engine.supervision.ledger import accounts
from store import events as ev
from store.blobs import BlobError
from store.state import Experiment


class Assessing(Consulting):
    """The steps of an experiment that look at its program from outside."""

    def earlier(self) -> list[Experiment]:
        """Experiments whose programs came before this one's."""
        return [
            e
            for e in self.lab.decoys.without(self.runtime.state).experiments.values()
            if e.id != self.id and e.program and (e.opened, e.id) < (self.entry.opened, self.id)
        ]

    async def duplicate(self, of: str, how: Literal["exact", "functional", "motivation"]) -> None:
        """Close as a repetition of `of`."""
        self.runtime.emit(ev.ProposalDuplicate(self.id, of, how))
        await self.close("duplicate", f"repeats {of} ({how})")

    async def assess(self) -> None:
        """Drop functional duplicates; write down what could go wrong and what it would cost."""
        entry = self.entry
        if entry.origin != "baseline" and entry.functional_hash:
            for other in self.earlier():
                if other.functional_hash == entry.functional_hash and other.id != entry.duplicate_of:
                    return await self.duplicate(other.id, "functional")
        self.doing("looking for risks")
        known = await self.circumstances()
        cost = known.cost
        self.runtime.emit(
            ev.RiskAssessed(
                self.id, entry.program, self.lab.tier, risk.assess(known), round(cost.cpu_seconds, 1),
                novelty=round(1.0 - known.nearest.likeness, 4),
                cpu_seconds_low=round(cost.low, 1), cpu_seconds_high=round(cost.high, 1),
            )
        )  # fmt: skip

    async def circumstances(self) -> risk.Circumstances:
        """Everything that the risk of the present program is judged by."""
        entry, state, config = self.entry, self.runtime.state, self.runtime.config
        domain, tier = self.lab.domain, self.lab.tier
        source = await self.runtime.text(entry.program)
        nearest = await self.nearest()
        kin = state.experiments[nearest.experiment].trials if nearest.experiment else []
        over = max(1, sum(not one.open for one in state.proposals))
        return risk.Circumstances(
            source=await asyncio.to_thread(domain.inspect, source),
            gates=list(entry.gates),
            tier=tier,
            level=self.lab.level,
            wanted_level=config.sandbox.minimum_level,
            cost=await self.cost(),
            cost_exponent=entry.cost_exponent,
            state_floats=entry.state_floats,
            seeds=config.trials.first_seeds,
            memory_mb=config.sandbox.memory_mb,
            least_memory_mb=domain.least_memory_mb(tier, entry.state_floats),
            accounts=accounts(state, config.budget, 0.0, 0.0),
            tokens_each=state.tokens_used / over,
            money_each=state.money / over,
            failures=[state.trials[name].reason for name in entry.trials if state.trials[name].status == "failed"],
            nearest=nearest,
            nearest_cheated=any(state.trials[name].cheat for name in kin),
            drift=await self.drift(source),
            by_person=any(
                request.decision == "approve" and request.program == entry.approved_before
                for request in state.requests.values()
                if request.experiment == self.id
            ),
        )

    async def cost(self) -> costs.CostPrediction:
        """What one trial will use, learned from the trials of this run so far."""
        domain, tier = self.lab.domain, self.lab.tier

        def measure(step_seconds: float) -> float:
            return domain.predicted_cpu_seconds(tier, step_seconds)

        ratios = costs.ratios(self.runtime.state, tier, measure)
        return await asyncio.to_thread(costs.predict, measure(self.entry.step_seconds), ratios)

    async def nearest(self) -> Nearest:
        """The earlier program that this one is most like; none for a baseline, which is known as it is."""
        if self.entry.origin == "baseline":
            return Nearest()

        def take_apart(program: str) -> frozenset[int]:
            try:
                return self.lab.domain.fingerprint(self.runtime.blobs.text(program))
            except BlobError:
                return frozenset()

        others = [(one.id, one.program) for one in sorted(self.earlier(), key=lambda one: (one.opened, one.id))]
        return await self.lab.resemblance.nearest(self.entry.program, others, take_apart)

    async def drift(self, source: str) -> SourceChange | None:
        """How the program differs from the one of this experiment that was approved before; None without one."""
        before = self.entry.approved_before
        if not before or before == self.entry.program:
            return None
        try:
            approved = await self.runtime.text(before)
        except BlobError:
            return SourceChange(1.0, ["a program that can no longer be read"])
        return await asyncio.to_thread(self.lab.domain.changed, approved, source)
