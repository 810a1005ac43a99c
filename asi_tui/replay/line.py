"""What the app takes for its line to an engine: it plays the journal, answers questions and refuses every command."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from asi_tui.replay.book import Book
from asi_tui.replay.desk import Desk
from asi_tui.replay.places import place
from asi_tui.replay.player import Player
from asi_tui.replay.tapes import Tapes
from engine.client import protocol
from engine.client.connection import Connected
from store.state import RunState, Trial

TICK = 0.1
RELOAD_SECONDS = 3.0
MOST_FILMED = 16
"""Running trials whose curves are played at a time."""

Message = protocol.Snapshot | protocol.Records | protocol.LiveCurve | Connected


class ReplayLine:
    """Plays one run. `messages`, `command` and `query` are those of a connection."""

    def __init__(self, root: Path, speed: float = 60, at: str = "") -> None:
        self.root = root
        self.book = Book(root)
        self.player = Player(self.book, speed)
        self.tapes = Tapes(self.book.paths.trials)
        self.state = RunState()
        self.desk = Desk(self.book, self.tapes, lambda: self.state, lambda: self.player.at)
        self.forget: Callable[[], object] = lambda: None
        self.say: Callable[[str, bool], object] = lambda text, bad: None
        self.moved = 0
        self._place = at
        self._target: int | None = None
        self._wake = asyncio.Event()
        self._shown: dict[str, tuple[int, int]] = {}
        self._loaded: dict[str, float] = {}

    def close(self) -> None:
        """The replay is over; waits for its threads."""
        self.book.close()
        self.desk.close()

    # --- moving ----------------------------------------------------------------------------------------------------

    def jump(self, seq: int) -> None:
        """Go to a record; the newest wish counts."""
        self._target = max(1, seq)
        self._wake.set()

    def jump_to(self, text: str) -> None:
        """Go to a place in words, and say where there is none such."""
        if not text:
            return
        if not self.book.complete:
            self._place = text
            self._wake.set()
            return
        try:
            self.jump(place(text, self.book))
        except ValueError as error:
            self.say(str(error), True)

    @property
    def seq(self) -> int:
        """Where the replay is, or is about to be."""
        return self._target if self._target is not None else self.player.seq

    @property
    def arrived(self) -> bool:
        """Where it was last sent, it is."""
        return self._target is None and not self._place

    # --- as a connection -------------------------------------------------------------------------------------------

    async def messages(self) -> AsyncIterator[Message]:
        """Everything that happened, as it happened."""
        self.book.start()
        yield Connected(0)
        while not self.book.total and not self.book.complete:
            await asyncio.sleep(0.02)
        before = time.monotonic()
        while True:
            now = time.monotonic()
            seconds, before = now - before, now
            if self._place and self.book.complete:
                text, self._place = self._place, ""
                self.jump_to(text)
            async for message in self._step(min(seconds, 1.0)):
                yield message
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TICK):
                    await self._wake.wait()
            self._wake.clear()

    async def _step(self, seconds: float) -> AsyncIterator[Message]:
        try:
            if self._target is not None:
                yield await self._snapshot()
            elif not self._place:
                for message in await self._played(seconds):
                    yield message
            for frame in await self._frames():
                yield frame
        except (OSError, ValueError, KeyError) as error:  # the files were changed since they were read
            self._target, self.player.playing = None, False
            self.say(f"the record cannot be read again: {error}", True)

    async def _snapshot(self) -> protocol.Snapshot:
        target = self._target
        assert target is not None
        self.state = await asyncio.to_thread(self.book.state, min(target, self.book.total))
        if self._target == target:
            self._target = None
        self.player.move(self.state.seq)
        self._shown.clear()
        self.moved += 1
        self.forget()
        return protocol.Snapshot(self.state)

    async def _played(self, seconds: float) -> list[Message]:
        """What happens in so many real seconds."""
        begin = self.player.seq
        last = self.player.advance(seconds, self._coming())
        if last <= begin:
            return []
        records = await asyncio.to_thread(self.book.records, begin + 1, last)
        if not begin:
            # The first thing a screen learns must be a state: this one is empty, and the records fill it.
            return [protocol.Snapshot(self.state), protocol.Records(records)]
        return [protocol.Records(records)]

    # --- curves ----------------------------------------------------------------------------------------------------

    def _filmed(self) -> list[Trial]:
        return self.state.running_trials[:MOST_FILMED]

    def _coming(self) -> float | None:
        """When the next point of a curve can be seen."""
        found: list[float] = []
        for trial in self._filmed():
            tape = self.tapes.known(trial.id)
            after = tape.after(self.player.at - trial.started) if tape is not None else None
            if after is not None:
                found.append(trial.started + after)
        return min(found, default=None)

    async def _frames(self) -> list[protocol.LiveCurve]:
        """The points of running trials that have come since the last frames."""
        out: list[protocol.LiveCurve] = []
        for trial in self._filmed():
            tape = self.tapes.known(trial.id)
            seconds = self.player.at - trial.started
            # The end of a tape may be the end of a trial, or only as far as one that still trains had come.
            old = time.monotonic() - self._loaded.get(trial.id, 0.0) > RELOAD_SECONDS
            if tape is None or (old and tape.after(seconds) is None):
                self._loaded[trial.id] = time.monotonic()
                tape = await asyncio.to_thread(self.tapes.load, trial.id)
            frame = tape.frame(trial, seconds, self._shown.get(trial.id, (0, 0)))
            if frame is not None:
                self._shown[trial.id] = tape.until(seconds)
                out.append(frame)
        return out

    async def command(self, name: str, **fields: Any) -> protocol.Answer:
        """Nothing is live here; `present` is not said to anybody."""
        refused = f"this is a replay: `asi attach {self.root.name}` steers the run, where it is alive"
        return protocol.Answer(0, False, error=refused)

    async def query(self, name: str, target: str = "", **fields: Any) -> protocol.Answer:
        """Answer from the run directory."""
        query = protocol.Query(id=0, name=name, target=target, **fields)  # type: ignore[arg-type]
        return await self.desk.answer(query)
