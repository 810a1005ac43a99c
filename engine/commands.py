"""What a client may ask of a running engine, and what the engine does about it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from engine.client import protocol
from engine.halting import Refusal
from engine.laboratory import Laboratory
from engine.queries import Queries
from store import events as ev
from store.blobs import BlobError
from store.journal import JournalFailed
from store.state import Request

MAX_PROGRAM = 256 * 1024


class Commands:
    """Answers commands and queries of clients. `stop` is called when the engine shall leave."""

    def __init__(self, laboratory: Laboratory, stop: Callable[[str], None]) -> None:
        self.lab = laboratory
        self.runtime = laboratory.runtime
        self.queries = Queries(laboratory)
        self._stop = stop

    async def handle(self, message: protocol.Command | protocol.Query) -> protocol.Answer:
        """Carry out one message."""
        try:
            if isinstance(message, protocol.Query):
                return await self.queries.answer(message)
            if message.name != "look":
                self.lab.deadman.renew()
            table: dict[str, Callable[[protocol.Command], Awaitable[str]]] = {
                "pause": self.pause,
                "resume": self.resume,
                "freeze": self.freeze,
                "park": self.park,
                "stop": self.stop,
                "rearm": self.rearm,
                "end": self.end,
                "present": self.present,
                "approve": self.decide,
                "reject": self.decide,
                "defer": self.decide,
                "propose": self.propose,
            }
            return protocol.Answer(message.id, True, text=await table[message.name](message))
        except (Refusal, BlobError, JournalFailed, ValueError) as error:
            return protocol.Answer(message.id, False, error=str(error))
        except KeyError as error:
            return protocol.Answer(message.id, False, error=f"unknown: {error.args[0]}")

    # --- stopping and going on ----------------------------------------------------------------------------------------

    async def pause(self, command: protocol.Command) -> str:
        """Nothing new starts; running trials finish."""
        return await self.lab.halting.pause(command.reason, _actor(command))

    async def freeze(self, command: protocol.Command) -> str:
        """Stop every trial in place."""
        return await self.lab.halting.freeze(command.reason, _actor(command))

    async def park(self, command: protocol.Command) -> str:
        """Have running trials leave the device with their checkpoints."""
        return await self.lab.halting.park(command.reason, _actor(command))

    async def resume(self, command: protocol.Command) -> str:
        """Go on after pause, freeze or park."""
        return await self.lab.halting.resume(_actor(command))

    async def rearm(self, command: protocol.Command) -> str:
        """Lift the latch of a run that was frozen but not killed."""
        return await self.lab.halting.rearm(command.reason[:1_000], _actor(command))

    async def end(self, command: protocol.Command) -> str:
        """Kill one trial."""
        return self.lab.halting.end(command.target, _actor(command))

    async def stop(self, command: protocol.Command) -> str:
        """End everything in order; the engine leaves."""
        self._stop(f"stopped by {command.who or 'a client'}")
        return "stopping: trials write their checkpoints"

    async def present(self, command: protocol.Command) -> str:
        """A person is at the keys."""
        return "seen"

    # --- decisions ----------------------------------------------------------------------------------------------------

    async def decide(self, command: protocol.Command) -> str:
        """Approve, reject or defer a request, named by its id or its experiment's."""
        request = self._request(command.target)
        if command.program and not request.program.startswith(command.program):
            raise Refusal(f"{request.id} is about program {request.program[:12]}, not {command.program[:12]}")
        decision: ev.Decision = command.name  # type: ignore[assignment]
        await self.runtime.commit(
            ev.ApprovalDecided(
                experiment=request.experiment,
                program=request.program,
                tier=request.tier,
                decision=decision,
                who=command.who,
                request=request.id,
                reason=command.reason[:1_000],
                rule=request.rule,
            ),
            _actor(command),
        )
        words = {"approve": "approved", "reject": "rejected", "defer": "deferred"}
        return f"{request.id} {words[command.name]}: {request.experiment}, program {request.program[:12]}"

    def _request(self, target: str) -> Request:
        requests = self.runtime.state.requests
        found = requests.get(target) or next((r for r in self.runtime.state.pending if r.experiment == target), None)
        if found is None:
            raise Refusal(f"no pending request {target!r}; `asi approvals` lists them")
        if found.decision is not None:
            raise Refusal(f"{found.id} was decided already: {found.decision} by {found.who}")
        return found

    async def propose(self, command: protocol.Command) -> str:
        """Take a person's program; it goes the same way as any other."""
        if not command.program.strip():
            raise Refusal("the program is empty")
        if len(command.program.encode()) > MAX_PROGRAM:
            raise Refusal(f"the program is larger than {MAX_PROGRAM // 1024} kB")
        program = await self.runtime.put(command.program)
        experiment = f"e{len(self.runtime.state.proposals) + 1:04d}"
        self.runtime.emit(ev.ExperimentOpened(experiment=experiment, origin="person"), _actor(command))
        await self.runtime.commit(
            ev.ProposalDrafted(
                experiment=experiment,
                title=command.title[:200] or "a person's proposal",
                motivation=command.reason[:4_000],
                hypothesis="",
                program=program,
            ),
            _actor(command),
        )
        return experiment


def _actor(command: protocol.Command) -> str:
    return f"person:{command.who or 'unknown'}"
