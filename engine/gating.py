"""The gate: what the policy lets through, what people decide, and what an approval is good for."""

from __future__ import annotations

import asyncio
import time

from engine.assessing import Assessing
from store import events as ev
from store.policy import Case, decide
from store.state import Request


class Gating(Assessing):
    """The steps of an experiment between its risks and its first trial."""

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
            async with asyncio.timeout(max(0.0, expires - time.time())):
                await decided
        except TimeoutError:
            entry = self.entry
            await self.runtime.commit(
                ev.ApprovalDecided(
                    self.id, entry.program, self.lab.tier, "expire", "clock", request, "nobody decided in time"
                )
            )
