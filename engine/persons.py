"""Who gives a command: the login that the client names, or, where signatures are asked for, the owner of the key."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from engine.client.protocol import Command
from engine.halting import Refusal
from engine.runtime import Runtime
from store import backwards
from store import events as ev
from store.event import NOT_PEOPLE
from store.signatures import FRESH_SECONDS, Nonces, SignatureError, Statement, genesis_of, receive, said

NOBODY = "unknown"
_PARTING = re.compile(r"[,:;]")


class Person(NamedTuple):
    """name: who decides, the same for all windows of one person. actor: as the journal names them."""

    name: str
    actor: str
    signed: ev.Signed | None = None


class Persons:
    """Tells who gave a command, and refuses those who may not."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self._checking = asyncio.Lock()  # one at a time, so that no nonce is used by two at once
        self._used: Nonces | None = None
        self._genesis = ""

    async def identify(self, command: Command, target: str = "", program: str = "", tier: str = "") -> Person:
        """Who gave this command, about `target` and the program of this hash.

        Raises:
            Refusal: nobody who may: no supervisor, or the signature does not hold.
        """
        name = login_of(command.who)
        signers = self.runtime.state.signers
        if not signers:
            return Person(self._listed(name), actor_of(command))
        async with self._checking:
            try:
                text = await self.runtime.text(signers)
                if self._used is None:
                    journal = self.runtime.paths.journal
                    self._genesis = await asyncio.to_thread(genesis_of, journal)
                    self._used = Nonces(await asyncio.to_thread(lambda: list(_recent(journal, self.runtime.state.seq))))
                wanted = Statement(
                    self.runtime.state.name, self._genesis, command.name, target, program, tier,
                    said(command.reason), name,
                )  # fmt: skip
                found = await asyncio.to_thread(receive, command.signed, wanted, text, self._used, time.time())
            except SignatureError as error:
                raise Refusal(str(error)) from error
            # Used up even where the command is refused for another reason: it can be signed anew.
            self._used.add(found.signed, time.time())
        return Person(self._listed(found.who), f"person:{found.who}", found.signed)

    def _listed(self, name: str) -> str:
        if name in NOT_PEOPLE:
            raise Refusal(f"{name} is what the record calls something else; a person needs another name")
        listed = self.runtime.config.gate.supervisors
        if listed and name not in listed:
            raise Refusal(f"{name} is no supervisor of this run ([gate] supervisors: {', '.join(listed)})")
        return name


def _recent(journal: Path, seq: int) -> Iterator[ev.Record]:
    """The records in which a nonce that is still fresh may stand."""
    for record in backwards.read(journal, seq + 1):
        if time.time() - record.time > 4 * FRESH_SECONDS:
            return
        yield record


def login_of(who: str) -> str:
    """The person behind `login@address`: two windows, or two connections, are one person.

    Without what parts several names from each other in a decision.
    """
    return _PARTING.sub("_", said(who.partition("@")[0])[:200]) or NOBODY


def actor_of(command: Command) -> str:
    """As the journal names whoever gave a command, with the address they came from."""
    return f"person:{said(command.who)[:200] or NOBODY}"
