"""The gate: what the policy lets through, what it denies, and what it asks people about."""

from __future__ import annotations

import time

from engine import attention
from engine.approving import allowance, case_of, next_request
from engine.assessing import Assessing
from store import events as ev
from store.event import FORK
from store.policy import Ruling, decide
from store.state import Request


class Gating(Assessing):
    """The steps of an experiment between its risks and its first trial."""

    async def gate(self) -> None:
        """Ask the policy, and people where it says so. A decision binds to the program's hash."""
        if await attention.intercept(self.lab, self.entry):
            return
        refused = next((r for r in self.requests() if r.decision in ("reject", "expire")), None)
        if refused is not None:
            return await self.refused(refused)
        waiting = next((r for r in self.requests() if r.decision is None), None)
        if waiting is None:
            ruling = decide(self.lab.policy, case_of(self.entry, self.lab.tier), self.runtime.state.autonomy)
            if ruling.verdict != "ask":
                return await self.ruled(ruling)
            waiting = await self.request(ruling)
        self.doing("waits for approval")
        await self.runtime.until(lambda state: state.requests[waiting.id].decision is not None or not self.entry.open)

    async def ruled(self, ruling: Ruling) -> None:
        """The policy allows or denies by itself."""
        entry, gate = self.entry, self.runtime.config.gate
        allowed = ruling.verdict == "allow"
        await self.runtime.commit(
            ev.ApprovalDecided(
                self.id, entry.program, self.lab.tier, "approve" if allowed else "reject", "policy", rule=ruling.rule,
                until=round(time.time() + 3600 * gate.approval_hours, 3) if allowed else 0.0,
                cpu_seconds=self.covered() if allowed else 0.0,
            ),
            "policy",
        )  # fmt: skip
        if not allowed:
            await self.close("rejected", f"denied by policy rule: {ruling.rule}")

    async def request(self, ruling: Ruling) -> Request:
        """Ask people."""
        entry, config = self.entry, self.runtime.config
        request = next_request(self.runtime.state)
        expires = time.time() + 60 * (ruling.expires_minutes or config.gate.expires_minutes)
        await self.runtime.commit(
            ev.ApprovalRequested(
                request, self.id, entry.program, self.lab.tier, ruling.rule, round(expires, 3), ruling.people,
                ruling.of, risk=ruling.risk, cpu_seconds=self.covered(), approved=entry.approved_before,
            )
        )  # fmt: skip
        return self.runtime.state.requests[request]

    def covered(self) -> float:
        """What an approval that is given now lets this experiment use in all, in CPU seconds."""
        config = self.runtime.config
        return allowance(self.entry, config.trials.max_seeds, config.gate.budget_factor)

    def requests(self) -> list[Request]:
        """Requests about this experiment's present program, without those that a fork has left behind."""
        return [
            r
            for r in self.runtime.state.requests.values()
            if r.experiment == self.id and r.program == self.entry.program and r.who != FORK
        ]

    async def refused(self, request: Request) -> None:
        """People said no, or nobody said anything in time."""
        await self.close("rejected", f"{request.decision} by {request.who}: {request.reason}".rstrip(": "))
