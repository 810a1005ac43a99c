"""What the app sends to the engine for its person, and how it says what came of it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any, Protocol

from textual.app import App
from textual.driver import Driver

from asi_tui import signing
from asi_tui.model import Model
from asi_tui.preferences import Preferences
from asi_tui.presence import Presence
from asi_tui.screens.base import Watch
from engine.client.connection import NotConnected
from engine.client.protocol import Answer
from store.events import Signed
from store.signatures import MUST_SIGN, SignatureError


class Line(Protocol):
    """What the app needs of a connection."""

    def messages(self) -> AsyncIterator[Any]:
        """Everything the engine sends."""

    async def command(self, name: str, **fields: Any) -> Answer:
        """Order something."""

    async def query(self, name: str, target: str = "", **fields: Any) -> Answer:
        """Ask something."""


class OrdersApp(App[None]):
    """The part of the app that commands."""

    root: Path
    preferences: Preferences

    def __init__(self, connection: Line, who: str, model: Model, driver_class: type[Driver] | None) -> None:
        super().__init__(driver_class=driver_class)
        self.connection, self.who, self.model = connection, who, model
        self.presence = Presence()
        self._looking = ""

    @property
    def front(self) -> Watch | None:
        """The screen in front; None while the app begins or ends."""
        stack = self.screen_stack
        return stack[-1] if stack and isinstance(stack[-1], Watch) else None

    def start_worker(self, work: Coroutine[Any, Any, Any]) -> object:
        """Begin something that waits."""
        return self.run_worker(work, exit_on_error=True)

    def pause(self) -> None:
        """Start nothing new."""
        self.order("pause")

    def ask_stop(self) -> None:
        """Stop the run in order, if that is meant."""
        screen = self.front
        if screen is not None:
            screen.ask(
                "Stop the run? Trials end, nothing is lost. y and Enter:",
                lambda typed: self.order("stop") if typed.lower() in ("y", "yes") else screen.say("not stopped"),
            )

    def ask_rearm(self) -> None:
        """Lift the latch of a held stop, with a reason."""
        screen = self.front
        if screen is not None:
            screen.ask(
                "Why is it safe to go on? Reason and Enter:",
                lambda why: self.order("rearm", reason=why) if why else screen.say("not re-armed: it needs a reason"),
            )

    def order(self, name: str, **fields: Any) -> None:
        """Send a command to the engine and say how it went."""
        self.start_worker(self._order(name, str, fields))

    def order_saying(self, said: Callable[[str], str], name: str, **fields: Any) -> None:
        """The same, in the words that `said` makes of the engine's."""
        self.start_worker(self._order(name, said, fields))

    async def _order(self, name: str, said: Callable[[str], str], fields: dict[str, Any]) -> None:
        try:
            answer = await self.send(name, **fields)
            text = said(answer.text) or f"{name}: done" if answer.ok else f"{name} refused: {answer.error}"
            bad = not answer.ok
        except (NotConnected, SignatureError) as error:
            text, bad = f"{name} was not sent: {error}", True
        self.tell(text, bad)

    async def send(self, name: str, **fields: Any) -> Answer:
        """Send a command in this person's name, signed with their key where the run asks for that.

        Raises:
            NotConnected: the engine is away.
            SignatureError: the key is locked, or there is none; nothing was sent.
        """
        signed = await self._signature(name, fields)
        if signed is not None:
            fields["signed"] = signed
        return await self.connection.command(name, who=self.who, **fields)

    async def _signature(self, name: str, fields: dict[str, Any]) -> Signed | None:
        state = self.model.state
        if name not in MUST_SIGN or not state.signers:
            return None
        order = signing.order_of(name, fields)
        # What is signed is what the state says at this moment: only the rest, which takes a while, is a thread's.
        wanted = signing.statement(state, order, self.who)
        preferred = self.preferences.signing_key
        return await asyncio.to_thread(signing.made, self.root, wanted, state.signers, False, preferred)

    def tell(self, text: str, bad: bool = False) -> None:
        """Say something on the screen in front."""
        if self.front is not None:
            self.front.say(text, bad)

    def person_acted(self) -> None:
        """A person pressed a key: the dead-man's switch may have to hear of it."""
        if self.presence.renews(self.model.deadman_left):
            self.start_worker(self._renew())

    async def _renew(self) -> None:
        try:
            answer = await self.connection.command("present", who=self.who)
        except NotConnected:
            self.presence.not_told()
        else:
            if not answer.ok:
                self.presence.not_told()

    def look(self, request: str) -> None:
        """Tell the other supervisors which request this person has in front of them."""
        if request != self._looking and self.model.connected and self.model.replay is None:
            self._looking = request
            self.start_worker(self._tell_look(request))

    async def _tell_look(self, request: str) -> None:
        with contextlib.suppress(NotConnected):
            await self.connection.command("look", who=self.who, target=request)
