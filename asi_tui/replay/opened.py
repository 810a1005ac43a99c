"""The app on a recorded run."""

from __future__ import annotations

import asyncio
from pathlib import Path

from asi_tui.app import AsiApp, run_app
from asi_tui.facts import Facts, Lookout
from asi_tui.preferences import Preferences, load_preferences
from asi_tui.replay.bar import ReplayBar
from asi_tui.replay.line import ReplayLine
from asi_tui.replay.stop import ReplayStop
from asi_tui.screens.keys import Question


class Past(Lookout):
    """What is true of the run now says nothing about the moment that is shown."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.facts = Facts()

    def start(self) -> None:
        """There is nothing to look for."""


class ReplayApp(AsiApp):
    """The app whose line is a journal."""

    def __init__(
        self, root: Path, speed: float = 60, at: str = "", preferences: Preferences | None = None
    ) -> None:
        self.line = line = ReplayLine(root, speed, at)
        button = ReplayStop(root, "person:replay")
        super().__init__(root, line, button, preferences=preferences)
        self.lookout = Past(root)
        self._where: tuple[float, ...] = ()
        self.model.clock = lambda: line.player.at
        self.model.replay = ReplayBar(self.model, line, self._put)
        line.forget, line.say = self._forget, self.tell
        button.tell = self._told

    def _put(self, question: Question) -> None:
        if self.front is not None:
            self.front.put(question)

    def _forget(self) -> None:
        """The replay has jumped: what was live, and what was answered, was so at another time."""
        for known in (self.model.curves, self.model.doing, self.model.texts):
            known.clear()
        self.library.forget()

    def _told(self, text: str) -> None:
        """Say something from whichever thread the key came."""
        asyncio.run_coroutine_threadsafe(self._tell_later(text), self._own_loop)

    async def _tell_later(self, text: str) -> None:
        self.tell(text, True)

    async def on_mount(self) -> None:
        """Remember the loop for keys that arrive elsewhere. Textual calls the handler of the base class as well."""
        self._own_loop = asyncio.get_running_loop()

    def flush_picture(self, awaited: bool = False) -> None:
        """The bar moves with the clock of the replay."""
        player, book = self.line.player, self.line.book
        where = (player.seq, player.at, player.playing, player.speed, book.total, book.complete)
        if where != self._where:
            self._where = where
            self.model.version += 1
        super().flush_picture(awaited)

    async def on_unmount(self) -> None:  # type: ignore[override]
        """Let the journal go. Textual calls the handler of the base class as well."""
        await asyncio.to_thread(self.line.close)


def run_replay(root: Path, speed: float = 60, at: str = "") -> int:
    """Replay a run until the person leaves."""
    return run_app(root, ReplayApp(root, speed, at, load_preferences()))
