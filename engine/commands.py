"""What a client may ask of a running engine, and what the engine does about it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from engine.answering import Answering
from engine.client import protocol
from engine.deciding import Deciding
from engine.governance import Governing
from engine.halting import Refusal
from engine.laboratory import Laboratory
from engine.persons import actor_of, login_of
from engine.queries import Queries
from store import events as ev
from store.blobs import BlobError
from store.journal import JournalFailed
from store.signatures import said

MAX_PROGRAM = 256 * 1024


class Commands:
    """Answers commands and queries of clients. `stop` is called when the engine shall leave."""

    def __init__(self, laboratory: Laboratory, stop: Callable[[str], None]) -> None:
        self.lab = laboratory
        self.runtime = laboratory.runtime
        self._stop = stop
        self.deciding = Deciding(laboratory)
        self.answering = Answering(laboratory)
        governing = Governing(laboratory, self.deciding)
        self.queries = Queries(laboratory, governing.view)
        self._table: dict[str, Callable[[protocol.Command], Awaitable[str]]] = {
            "pause": self.pause,
            "resume": self.resume,
            "freeze": self.freeze,
            "park": self.park,
            "stop": self.stop,
            "rearm": self.rearm,
            "end": self.end,
            "present": self.present,
            "approve": self.deciding.answer,
            "reject": self.deciding.answer,
            "defer": self.deciding.answer,
            "undo": self.deciding.undo,
            "vote": self.deciding.open_vote,
            "propose": self.propose,
            "ask": self.ask,
            "hold": governing.hold,
            "release": governing.release,
            "cancel": governing.cancel,
            "policy": governing.policy,
            "autonomy": governing.autonomy,
        }

    async def handle(self, message: protocol.Command | protocol.Query) -> protocol.Answer:
        """Carry out one message."""
        try:
            if isinstance(message, protocol.Query):
                return await self.queries.answer(message)
            self.lab.deadman.renew()
            return protocol.Answer(message.id, True, text=await self._table[message.name](message))
        except (Refusal, BlobError, JournalFailed, ValueError) as error:
            return protocol.Answer(message.id, False, error=str(error))
        except KeyError as error:
            return protocol.Answer(message.id, False, error=f"unknown: {error.args[0]}")

    # --- stopping and going on ----------------------------------------------------------------------------------------

    async def pause(self, command: protocol.Command) -> str:
        """Nothing new starts; running trials finish."""
        return await self.lab.halting.pause(said(command.reason), actor_of(command))

    async def freeze(self, command: protocol.Command) -> str:
        """Stop every trial in place."""
        return await self.lab.halting.freeze(said(command.reason), actor_of(command))

    async def park(self, command: protocol.Command) -> str:
        """Have running trials leave the device with their checkpoints."""
        return await self.lab.halting.park(said(command.reason), actor_of(command))

    async def resume(self, command: protocol.Command) -> str:
        """Go on after pause, freeze or park."""
        person = await self.deciding.persons.identify(command)
        return await self.lab.halting.resume(person.actor)

    async def rearm(self, command: protocol.Command) -> str:
        """Lift the latch of a run that was frozen but not killed."""
        person = await self.deciding.persons.identify(command)
        return await self.lab.halting.rearm(said(command.reason), person.actor, person.signed)

    async def end(self, command: protocol.Command) -> str:
        """Kill one trial."""
        return self.lab.halting.end(command.target, actor_of(command))

    async def stop(self, command: protocol.Command) -> str:
        """End everything in order; the engine leaves."""
        self._stop(f"stopped by {command.who or 'a client'}")
        return "stopping: trials write their checkpoints"

    async def present(self, command: protocol.Command) -> str:
        """A person is at the keys."""
        return "seen"

    async def ask(self, command: protocol.Command) -> str:
        """Ask the Researcher; the answer comes into the transcript."""
        pending = self.runtime.state.requests.get(command.target)
        target = pending.experiment if pending is not None else command.target
        return await self.answering.ask(target, login_of(command.who), command.reason)

    # --- proposals ----------------------------------------------------------------------------------------------------

    async def propose(self, command: protocol.Command) -> str:
        """Take a person's program; it goes the same way as any other."""
        if not command.program.strip():
            raise Refusal("the program is empty")
        if len(command.program.encode()) > MAX_PROGRAM:
            raise Refusal(f"the program is larger than {MAX_PROGRAM // 1024} kB")
        program = await self.runtime.put(command.program)
        experiment = f"e{len(self.runtime.state.proposals) + 1:04d}"
        self.runtime.emit(ev.ExperimentOpened(experiment=experiment, origin="person"), actor_of(command))
        await self.runtime.commit(
            ev.ProposalDrafted(
                experiment=experiment,
                title=command.title[:200] or "a person's proposal",
                motivation=command.reason[:4_000],
                hypothesis="",
                program=program,
            ),
            actor_of(command),
        )
        return experiment
