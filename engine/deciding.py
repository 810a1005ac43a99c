"""What people decide: their answers to requests, when an answer takes effect, and what it is then good for.

An answer is a vote on record. With enough different people, and once the time in which it can be taken back is over,
the votes become the decision. A rejection needs neither: it ends the request at once. A request that nobody decides in
time is a refusal. The first decision is the decision; whoever comes later is told of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time

from engine.approving import next_request
from engine.client.protocol import Command
from engine.halting import Refusal
from engine.laboratory import Laboratory
from engine.persons import NOBODY, Person, Persons
from store import events as ev
from store.signatures import said
from store.state import Request

TICK_SECONDS = 5.0
MAX_REASON = 1_000
MAX_SECONDS = 86_400.0


class Deciding:
    """The requests of one run."""

    def __init__(self, laboratory: Laboratory) -> None:
        self.lab, self.runtime = laboratory, laboratory.runtime
        self.persons = Persons(self.runtime)
        decided = [one for one in self.runtime.state.requests.values() if one.decision == "approve"]
        # By vote, and an engine may have died before it was done.
        self._to_cancel = {one.id for one in decided if one.subject == "cancel"}

    # --- answers ------------------------------------------------------------------------------------------------------

    async def answer(self, command: Command) -> str:
        """Approve, reject or defer a request, named by its id or its experiment's."""
        request = self._pending(command.target)
        if command.program and not request.program.startswith(command.program):
            raise Refusal(f"{request.id} is about program {request.program[:12]}, not {command.program[:12]}")
        person = await self.persons.identify(command, request.id, request.program, request.tier)
        request = await self._still_pending(request)
        decision: ev.Decision = command.name  # type: ignore[assignment]
        if decision == "approve":
            self._may_approve(request, person, command)
        now = time.time()
        effect = self._takes_effect(request, now) if decision == "approve" else now
        vote = ev.ApprovalVoted(
            request.id, decision, person.name, request.program, said(command.reason), round(effect, 3),
            min(MAX_SECONDS, max(0.0, round(command.seconds, 1))), min(1.0, max(0.0, command.seen)), person.signed,
        )  # fmt: skip
        await self.runtime.commit(vote, person.actor)
        await self._settle(request)
        return self._told(request, decision, effect - now)

    def _may_approve(self, request: Request, person: Person, command: Command) -> None:
        """Raise `Refusal` where this person cannot approve this now."""
        if person.name == NOBODY:
            raise Refusal("an approval needs the name of whoever gives it")
        own = next((vote for vote in request.approvals if vote.who == person.name), None)
        if own is not None:
            raise Refusal(
                f"{request.id} has your approval already; another person has to decide"
                if request.people > 1
                else f"{request.id} has your approval already, which takes effect in a moment"
            )
        if request.takes_effect:
            names = ", ".join(vote.who for vote in request.approvals)
            raise Refusal(f"{request.id} is approved by {names} already")
        if request.subject != "program":
            return
        if self.runtime.state.autonomy == "A0":
            raise Refusal("autonomy is A0, propose only: nothing trains until a person raises it (asi autonomy A1)")
        if request.risk == "R4":
            raise Refusal(f"{request.id} touches what supervises it: that can only be rejected")
        if request.risk in ("R2", "R3") and len(command.program) < 4:
            raise Refusal(f"{request.id} is of risk {request.risk}: say the first letters of its hash (--code)")
        if request.risk == "R3" and not command.reason.strip():
            raise Refusal(f"{request.id} is of risk R3: an approval needs a reason")

    def _takes_effect(self, request: Request, now: float) -> float:
        """When an approval that is given now counts.

        The time to undo it ends before the request expires; the wait of the gravest risk is never made shorter.
        """
        gate = self.runtime.config.gate
        wait = {"R1": gate.undo_seconds, "R3": 60 * gate.cool_off_minutes}.get(request.risk, 0.0)
        if request.subject != "program":
            wait = 0.0
        if request.risk == "R3":
            return now + wait
        return min(now + wait, max(now, request.expires - 1.0))

    def _told(self, request: Request, decision: ev.Decision, wait: float) -> str:
        now = self.runtime.state.requests[request.id]
        about = f"{request.experiment}, program {request.program[:12]}" if request.program else request.question
        words = {"approve": "approved", "reject": "rejected", "defer": "deferred"}[decision]
        if decision == "approve" and now.decision is None:
            if not now.takes_effect:
                about += f"; {request.people} people have to agree"
            elif wait > 0:
                about += f"; takes effect in {wait:.0f} s, until then: asi undo {request.id}"
        return f"{request.id} {words}: {about}"

    async def undo(self, command: Command) -> str:
        """Take one's own answer back, before it takes effect."""
        request = self._pending(command.target)
        person = await self.persons.identify(command, request.id, request.program, request.tier)
        request = await self._still_pending(request)
        if all(vote.who != person.name for vote in request.votes):
            raise Refusal(f"{request.id} has no answer of yours to take back")
        await self.runtime.commit(ev.ApprovalWithdrawn(request.id, person.name), person.actor)
        return f"{request.id} waits again"

    def _pending(self, target: str) -> Request:
        state = self.runtime.state
        found = state.requests.get(target) or next(
            (r for r in state.pending if target and r.experiment == target), None
        )
        if found is None:
            raise Refusal(f"no pending request {target[:40]!r}; `asi approvals` lists them")
        if found.decision is not None:
            raise Refusal(f"{found.id} was decided already: {found.decision} by {found.who}")
        return found

    async def _still_pending(self, request: Request) -> Request:
        """The request as it stands: while a signature was checked somebody may have been faster, or its time be up."""
        await self._settle(request)
        return self._pending(request.id)

    # --- votes --------------------------------------------------------------------------------------------------------

    async def open_vote(self, command: Command) -> str:
        """Ask the listed supervisors whether the run shall pause, or an experiment end."""
        state, gate = self.runtime.state, self.runtime.config.gate
        listed = list(dict.fromkeys(gate.supervisors or state.people))
        if len(listed) < 2:
            raise Refusal("a vote needs two or more supervisors ([gate] supervisors); without: asi pause, asi cancel")
        if command.target == "pause":
            subject: ev.Subject = "pause"
            experiment = ""
        else:
            subject, experiment = "cancel", command.target
            if experiment not in state.experiments or not state.experiments[experiment].open:
                raise Refusal(f"no open experiment {experiment[:40]!r}; a vote is on `pause` or on an open experiment")
        if any(one.subject == subject and one.experiment == experiment for one in state.pending):
            raise Refusal("that is being voted on already; `asi approvals` lists it")
        person = await self.persons.identify(command, command.target)
        request = next_request(state)
        expires = time.time() + 60 * gate.expires_minutes
        await self.runtime.commit(
            ev.ApprovalRequested(
                request, experiment, "", "", "a vote", expires, len(listed) // 2 + 1, len(listed), subject, "R1",
                reason=f"{person.name} asks: {said(command.reason)}".rstrip(": "),
            ),
            person.actor,
        )  # fmt: skip
        return f"{request}: {len(listed) // 2 + 1} of {len(listed)} have to agree; asi approve {request}"

    # --- from votes to decisions --------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Let answers take effect and requests expire; to be cancelled."""
        while True:
            changed = asyncio.ensure_future(self.runtime.changed())
            for request in self.runtime.state.pending:
                await self._settle(request)
            for name in list(self._to_cancel):
                await self._cancel(self.runtime.state.requests[name])
            now = time.time()
            moments = [request.takes_effect or request.expires for request in self.runtime.state.pending]
            wait = min([TICK_SECONDS, *(max(0.01, moment - now) for moment in moments)])
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await changed

    async def _settle(self, request: Request) -> None:
        """Turn the votes on a request into its decision, where they are one by now."""
        now, request = time.time(), self.runtime.state.requests[request.id]
        if request.decision is not None:
            return
        against = [vote for vote in request.votes if vote.decision == "reject"]
        owner = self.runtime.state.experiments.get(request.experiment)
        if against and len(against) > (request.of - request.people if request.subject != "program" else 0):
            await self._decide(request, "reject", against[-1].who, against[-1].reason)
        elif owner is not None and not owner.open:
            await self._decide(request, "expire", "engine", "its experiment is over")
        elif request.takes_effect and now >= request.takes_effect:
            names = ", ".join(vote.who for vote in request.approvals)
            reasons = "; ".join(vote.reason for vote in request.approvals if vote.reason)
            await self._decide(request, "approve", names, reasons)
        elif now >= request.expires and not request.takes_effect:
            await self._decide(request, "expire", "clock", "nobody decided in time")

    async def _decide(self, request: Request, decision: ev.Decision, who: str, reason: str) -> None:
        until = 0.0
        if decision == "approve" and request.subject == "program":
            until = round(time.time() + 3600 * self.runtime.config.gate.approval_hours, 3)
        decided = ev.ApprovalDecided(
            request.experiment, request.program, request.tier, decision, who, request.id, reason[:MAX_REASON],
            request.rule, until, request.cpu_seconds,
        )  # fmt: skip
        actor = f"person:{who}" if decision in ("approve", "reject") else "engine"
        if decision == "approve" and request.subject == "pause":
            self.runtime.emit(decided, actor)  # to disk with the pause itself: no crash comes between them
            with contextlib.suppress(Refusal):  # it stands still already
                await self.lab.halting.pause(f"by vote {request.id}: {who}", f"person:{who}")
            return
        await self.runtime.commit(decided, actor)
        if decision == "approve" and request.subject == "cancel":
            self._to_cancel.add(request.id)
            await self._cancel(self.runtime.state.requests[request.id])

    async def _cancel(self, request: Request) -> None:
        """End an experiment by vote; where the loop has not begun yet, `run` tries it again."""
        entry = self.runtime.state.experiments.get(request.experiment)
        with contextlib.suppress(Refusal):
            if entry is not None and entry.open:
                await self.lab.cancel(request.experiment, request.who, f"by vote {request.id}")
            self._to_cancel.discard(request.id)
