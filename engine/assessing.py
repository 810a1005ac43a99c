"""What could go wrong with a vetted program, and whether it is a new one: the step before the gate."""

from __future__ import annotations

import asyncio
from typing import Literal

from engine.consulting import Consulting
from engine.domain import GateResult, VetReport
from engine.supervision import risk
from store import events as ev
from store.state import Experiment


class Assessing(Consulting):
    """The steps of an experiment that look at its program from outside."""

    def earlier(self) -> list[Experiment]:
        """Experiments whose programs came before this one's."""
        return [
            e
            for e in self.runtime.state.experiments.values()
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
