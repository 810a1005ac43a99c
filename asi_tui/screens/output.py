"""What a word of the shell command prints, on a small screen: it runs beside the app, and Esc ends it."""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import os
import signal
import time
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from collections.abc import Sequence

from asi_tui import words
from asi_tui.lines import Row, clip, row, rule
from asi_tui.safe import clean
from asi_tui.screens.base import Watch
from asi_tui.screens.keys import Key

MOST_BYTES = 1_000_000
"""What is printed beyond this is counted and not kept."""

BLOCK = 65_536
GRACE_SECONDS = 3.0
"""What a program gets to end by itself before it is killed."""


class OutputScreen(Watch):
    """Runs a program without a terminal, with nothing to read, and shows what it prints."""

    NAME = "Output"
    SCROLLS = True
    SEARCHES = True

    def __init__(self, title: str, command: Sequence[str] = (), text: str = "") -> None:
        super().__init__()
        self.title_words = title
        self.command = list(command)
        self.lines: list[Row] = []
        self.code: int | None = None
        self.problem = ""
        self.begun = time.monotonic()
        self.took = 0.0
        self.taken = self.lost = 0
        self._tail = ""
        self._follow = bool(command)
        self._process: Process | None = None
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        if text:
            self._add(text + "\n")

    def on_mount(self) -> None:
        """Start the program."""
        if self.command:
            self.run_worker(self._run(), exit_on_error=False)

    @property
    def runs(self) -> bool:
        """The program has not ended yet."""
        return bool(self.command) and self.code is None and not self.problem

    async def _run(self) -> None:
        try:
            self._process = process = await asyncio.create_subprocess_exec(
                *self.command, stdin=DEVNULL, stdout=PIPE, stderr=STDOUT, start_new_session=True
            )
        except OSError as error:
            self.problem = f"it could not be started: {error.strerror}"
            return
        try:
            assert process.stdout is not None
            while block := await process.stdout.read(BLOCK):
                self._take(block)
                self.asi.model.version += 1
            self._add(self._decoder.decode(b"", True))
            self.code = await process.wait()
        finally:
            self.took = time.monotonic() - self.begun
            if process.returncode is None:
                _signal(process, signal.SIGKILL)
        if self._tail:
            self._add("\n")
        self.asi.model.version += 1

    def _take(self, block: bytes) -> None:
        room = max(0, MOST_BYTES - self.taken)
        self.taken += len(block)
        self.lost += max(0, len(block) - room)
        if room:
            self._add(self._decoder.decode(block[:room]))

    def _add(self, text: str) -> None:
        *whole, self._tail = (self._tail + text).replace("\r\n", "\n").split("\n")
        self.lines += [row(" " + clean(line)) for line in whole]

    # --- drawing ---------------------------------------------------------------------------------------------------

    def body(self, width: int, height: int) -> list[Row]:
        """What was printed so far."""
        view = self.scrolled(self.lines, height - 1, self._follow and self.runs)
        note, tone = self._note()
        head = rule(self.title_words, width, note)
        rows: list[Row] = [tuple((text, tone if text.strip() == note else style) for text, style in head)]
        rows += [clip(line, width) for line in view]
        if not self.lines and not self.runs:
            rows.append(row((f" {self.problem or 'it printed nothing'}", "warn" if self.problem else "dim")))
        return rows

    def _note(self) -> tuple[str, str]:
        """How it stands."""
        if self.problem:
            return ("not started", "bad")
        if self.runs:
            return (f"runs, {words.age(time.monotonic() - self.begun)}", "accent")
        if not self.command:
            return (self.position(len(self.lines)), "dim")
        lost = f", {words.size(self.lost)} more not kept" if self.lost else ""
        code = self.code or 0
        if code < 0:
            return (f"ended by a signal ({-code}) after {words.span(self.took)}{lost}", "warn")
        if code:
            return (f"ended with code {code} after {words.span(self.took)}{lost}", "warn")
        return (f"done in {words.span(self.took)}{lost}", "good")

    def keys(self) -> list[Key]:
        """Ending it while it runs, then back."""
        if self.runs:
            return [Key(("escape",), "Esc", "end it", "end the program", self.cancel)]
        return [Key(("escape", "backspace"), "Esc", "back", "back", self.app.pop_screen)]

    def scroll_lines(self, lines: int) -> None:
        """Who scrolls up wants to read, not to follow."""
        self._follow = self._follow and lines > 0
        super().scroll_lines(lines)

    def copied(self) -> str:
        """All that was printed."""
        return "\n".join("".join(text for text, _ in line)[1:] for line in self.lines)

    def cancel(self) -> None:
        """Ask the program and its children to end; kill what does not."""
        if self._process is not None and self._process.returncode is None:
            _signal(self._process, signal.SIGTERM)
            self.set_timer(GRACE_SECONDS, self._kill)
            self.say("ending it …")

    def _kill(self) -> None:
        if self._process is not None and self._process.returncode is None:
            _signal(self._process, signal.SIGKILL)

    def on_unmount(self) -> None:
        """A program whose screen is gone has nobody who waits for it."""
        if self._process is not None and self._process.returncode is None:
            _signal(self._process, signal.SIGKILL)


def _signal(process: Process, number: int) -> None:
    """A signal to the program and all that it has started; its group is its own."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)
