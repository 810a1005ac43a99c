"""A model's call as part of a run: on record before and after, within the budget, tried again, or from a record.

What keeps a call from being answered is the server's trouble, and pauses the run; what makes an answer useless is the
experiment's, and is its recorded failure.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
import time
from collections.abc import Callable
from typing import NoReturn

import msgspec

from engine.agents.llm import budget
from engine.agents.llm.breaker import Breaker
from engine.agents.llm.client import RETRIED, Request, Server, ServerTrouble
from engine.agents.llm.reading import Completion
from engine.agents.llm.record import Answers, Entry, Outcome, Record
from engine.agents.protocol import AgentFailed, AgentUnavailable, Say
from engine.halting import Halting
from engine.replaying import ReplayError
from engine.runtime import Runtime
from engine.supervision.ledger import lacking_words
from store import events as ev
from store.config import Agents

TOO_LONG = "too long"
"""`Completion.finish` of an answer that was cut off by us."""
STAND_IN = "default"
"""The model's name for a server that lists none: those that serve a single one do not look at it."""
FIRST_DELAY, LAST_DELAY = 1.0, 60.0
MOST_WAIT = 120.0
"""What a server's Retry-After is honoured up to."""

Check = Callable[[Completion], str]
"""Looks at an answer: empty when it can be used, otherwise what is wrong with it."""


class Overflow(Exception):
    """The prompt is longer than the model's context."""


class Purpose(msgspec.Struct, frozen=True):
    """What a call is for; `brief` is the blob of what the agent was given.

    aside: a person waits for the answer, not the loop: it is asked even while the run is paused, and what goes wrong
    with it is told to that person and never pauses the run.
    """

    experiment: str
    role: str
    brief: str
    aside: bool = False


class Caller:
    """Makes the calls of a run's models. `server` is None and `answers` are there in a replay."""

    def __init__(
        self, runtime: Runtime, halting: Halting, config: Agents, server: Server | None, breaker: Breaker,
        record: Record, answers: Answers | None = None,
    ) -> None:  # fmt: skip
        self._runtime, self._halting, self._config = runtime, halting, config
        self._server, self._breaker, self._record, self._answers = server, breaker, record, answers
        self._room = asyncio.Semaphore(config.concurrency)
        self._jitter = random.Random()
        self._first = ""

    async def ask(self, purpose: Purpose, request: Request, say: Say, check: Check) -> Completion:
        """One answer, usable or not as `check` has it on record.

        Raises:
            Overflow: the prompt is too long for the model.
            AgentFailed: this request gets no answer.
            AgentUnavailable: the run was paused, for want of a server, a key or money; or this call is none of the
                loop's, and there is no answer.
        """
        if purpose.aside and self._answers is not None:
            raise AgentUnavailable("this run replays another one: no model is asked")
        prompt = "\n\n".join(f"## {one.role}\n\n{one.content}" for one in request.messages)
        shown, asked = await self._runtime.put(prompt), await self._runtime.put(ev.encode(request).decode())
        async with contextlib.nullcontext() if purpose.aside else self._room:
            await self._running(purpose)
            call = await self._begin(purpose, request, shown, asked)
            begun = time.monotonic()
            spent = budget.Usage()
            try:
                entry, completion = await self._answer(purpose, request, asked, say, spent)
            except ServerTrouble as trouble:
                partial = trouble.partial.text if trouble.partial else ""
                await self._end(call, purpose, partial, begun, spent, str(trouble))
                await self._stop(purpose, trouble)
            except ReplayError as error:
                await self._end(call, purpose, "", begun, spent, str(error))
                await self._breaker.trip(f"replay: {error}", alone=False)
                raise AgentUnavailable(str(error)) from None
            except asyncio.CancelledError:
                spent.add(budget.Usage(budget.most(request).read))
                self._emit_end(call, purpose, "", begun, spent, "interrupted")
                raise
            problem = entry.message if entry.outcome != "reply" else await asyncio.to_thread(check, completion)
            reply = await self._end(call, purpose, completion.text, begun, spent, problem)
            await self._record.append(msgspec.structs.replace(entry, reply=reply if entry.outcome == "reply" else ""))
        return self._conclude(entry, completion)

    async def first_model(self, purpose: Purpose | None = None) -> str:
        """The server's first model, for roles that name none. Raises `AgentUnavailable` where it cannot be asked."""
        if self._server is None:
            return STAND_IN
        if not self._first:
            names = await self._server.models()
            if not names and not await self._server.probe():
                if purpose is None or not purpose.aside:
                    await self._breaker.trip(f"not reachable at {self._server.base_url}", alone=True)
                raise AgentUnavailable("the server is not reachable")
            self._first = names[0] if names else STAND_IN
        return self._first

    async def unavailable(self, reason: str) -> NoReturn:
        """Pause the run for a reason that only a person can put right."""
        await self._breaker.trip(reason, alone=False)
        raise AgentUnavailable(reason)

    async def _running(self, purpose: Purpose) -> None:
        if not purpose.aside:
            await self._runtime.until(lambda state: state.phase == "running")

    async def _begin(self, purpose: Purpose, request: Request, shown: str, asked: str) -> str:
        """Put the call on record with the most that it can use; refuse it where that is beyond a cap."""
        most = budget.Usage() if self._answers else budget.most(request)
        tokens, cost = most.read + most.written, budget.cost(most, self._config)
        lack = lacking_words(self._runtime.state, self._runtime.config.budget, tokens, cost)
        if lack is not None:
            if not purpose.aside:
                await self._halting.cap(lack)
            raise AgentUnavailable(f"the cap on {lack.currency} leaves no room for a call")
        call = f"{purpose.experiment}-{purpose.role}-{secrets.token_hex(3)}"
        await self._runtime.commit(
            ev.AgentCalled(
                call, purpose.experiment, purpose.role, request.model, shown, purpose.brief, asked, tokens, cost
            )
        )
        return call

    async def _answer(
        self, purpose: Purpose, request: Request, asked: str, say: Say, spent: budget.Usage
    ) -> tuple[Entry, Completion]:
        """From the record or from the server, as something that can be put on record."""
        entry = Entry(asked, purpose.experiment, purpose.role, request.model, "reply")
        if self._answers is not None:
            found, text = await asyncio.to_thread(self._answers.find, asked, purpose.experiment)
            say(text)
            entry = msgspec.structs.replace(found, experiment=purpose.experiment)
            return entry, Completion(text, found.finish, found.refusal, found.tools)
        try:
            completion = await self._attempts(purpose, request, say, spent)
        except ServerTrouble as trouble:
            outcome = self._settled(trouble)
            if outcome is None:
                raise
            return msgspec.structs.replace(entry, outcome=outcome, message=str(trouble)), Completion("")
        details = {"finish": completion.finish, "refusal": completion.refusal, "tools": completion.tools}
        return msgspec.structs.replace(entry, **details), completion

    def _settled(self, trouble: ServerTrouble) -> Outcome | None:
        """What is final for this request; None for what pauses the run."""
        if trouble.kind in ("overflow", "refused"):
            return "overflow" if trouble.kind == "overflow" else "refused"
        return "failed" if trouble.kind in RETRIED and not self._breaker.open else None

    async def _attempts(self, purpose: Purpose, request: Request, say: Say, spent: budget.Usage) -> Completion:
        """Ask until there is an answer, no hope, or no attempt left. Raises `ServerTrouble`."""
        assert self._server is not None
        headers = {"X-ASI-Role": purpose.role, "X-ASI-Experiment": purpose.experiment}
        for attempt in range(self._config.retries + 1):
            try:
                completion = await self._server.complete(request, headers, say)
            except ServerTrouble as trouble:
                partial = trouble.partial or Completion("")
                if trouble.sent:
                    spent.add(budget.used(request, partial))
                if trouble.kind == "long":
                    self._breaker.succeeded()
                    return msgspec.structs.replace(partial, finish=TOO_LONG)
                tripped = not purpose.aside and trouble.kind in RETRIED and self._breaker.failed()
                if trouble.kind not in RETRIED or tripped or attempt == self._config.retries:
                    raise
                delay = self._delay(attempt, trouble.wait)
                say(f"\n[the server: {trouble}; once more in {delay:.1f} s]\n")
                await asyncio.sleep(delay)
                await self._running(purpose)
                continue
            self._breaker.succeeded()
            spent.add(budget.used(request, completion))
            return completion
        raise AssertionError("the last attempt returns or raises")

    def _delay(self, attempt: int, wanted: float) -> float:
        """Exponential, with jitter so that many experiments do not come back at once; longer where the server says."""
        own = min(LAST_DELAY, FIRST_DELAY * 2.0**attempt) * self._jitter.uniform(0.5, 1.0)
        return max(own, min(wanted, MOST_WAIT))

    async def _stop(self, purpose: Purpose, trouble: ServerTrouble) -> NoReturn:
        """Pause the run: the server is out of reach, or only a person can help."""
        if purpose.aside:
            raise AgentUnavailable(str(trouble))
        alone = trouble.kind in RETRIED
        base = self._server.base_url if self._server else ""
        await self._breaker.trip(f"{trouble} at {base}", alone)
        raise AgentUnavailable(str(trouble))

    async def _end(
        self, call: str, purpose: Purpose, text: str, begun: float, spent: budget.Usage, problem: str
    ) -> str:
        """Put the end of a call on record; returns the reply's blob."""
        sha = await self._runtime.put(text)
        self._emit_end(call, purpose, sha, begun, spent, problem)
        return sha

    def _emit_end(self, call: str, purpose: Purpose, sha: str, begun: float, spent: budget.Usage, problem: str) -> None:
        self._runtime.emit(
            ev.AgentReplied(
                call=call,
                experiment=purpose.experiment,
                role=purpose.role,
                reply=sha,
                seconds=round(time.monotonic() - begun, 3),
                ok=not problem,
                tokens_in=spent.read,
                tokens_out=spent.written,
                cost=budget.cost(spent, self._config),
                error=problem[:300],
            )
        )

    def _conclude(self, entry: Entry, completion: Completion) -> Completion:
        if entry.outcome == "overflow":
            raise Overflow(entry.message)
        if entry.outcome == "refused":
            raise AgentFailed(f"the server refuses the request: {entry.message}")
        if entry.outcome == "failed":
            raise AgentFailed(f"the server failed again and again: {entry.message}")
        return completion
