"""What the measurements are made with: a home of its own, a stand-in engine, the real app attached to it."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from asi_tui.theme import DARK
from bench.tui.picture import Picture
from bench.tui.terminal import NoAnswer, Terminal

RUN = "bench"
SCREENS = "123456789"
TITLE = re.compile(r"(?:^|│ ?|   )─*─ ([A-Za-z]+)\b")
"""The word that a section's title begins with; what stands at the right end of its line changes."""


class Stage:
    """One stand-in engine, and terminals attached to it."""

    def __init__(self, home: Path, **options: float) -> None:
        self.home = home
        self.environment = {
            "HOME": str(home), "XDG_DATA_HOME": str(home / "data"), "XDG_CACHE_HOME": str(home / "cache"),
            "XDG_CONFIG_HOME": str(home / "config"),
        }  # fmt: skip
        self.root = home / "data" / "asi" / "runs" / RUN
        words = [f"--{name}={value}" for name, value in options.items()]
        self._words = [sys.executable, "-m", "bench.tui.engine", str(self.root), *words]
        self._start()

    def _start(self) -> None:
        self.engine = subprocess.Popen(self._words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                       cwd=Path(__file__).parents[2])  # fmt: skip
        assert self.engine.stdout is not None
        if self.engine.stdout.readline().strip() != "ready":
            raise SystemExit("the stand-in engine did not start")

    def order(self, words: str) -> None:
        """`storm RATE` or `calm`."""
        assert self.engine.stdin is not None
        self.engine.stdin.write(words + "\n")
        self.engine.stdin.flush()

    def attach(self, size: tuple[int, int], speed: float = 0.0, delay: float = 0.0) -> Terminal:
        """The real command in a terminal."""
        command = [sys.executable, "-m", "asi_tui.main", "attach", RUN]
        return Terminal(command, self.environment, size, speed, delay)

    def crash(self) -> None:
        """End the engine as a crash does."""
        self.engine.kill()
        self.engine.wait(10)

    def again(self) -> None:
        """Start another one on the same run."""
        self._start()

    def close(self) -> None:
        """End the engine."""
        self.engine.kill()
        self.engine.wait(10)
        for pipe in (self.engine.stdin, self.engine.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


@contextlib.contextmanager
def stage(home: Path, **options: float) -> Iterator[Stage]:
    """A stage that is cleared afterwards."""
    made = Stage(home, **options)
    try:
        yield made
    finally:
        made.close()


@contextlib.contextmanager
def attached(on: Stage, size: tuple[int, int], speed: float = 0.0, delay: float = 0.0) -> Iterator[Terminal]:
    """A terminal that shows the run."""
    terminal = on.attach(size, speed, delay)
    try:
        terminal.wait(running, 60)
        yield terminal
    finally:
        terminal.close()


def running(picture: Picture) -> bool:
    """The header tells the run's state."""
    return "RUNNING" in picture.lines()[0]


def titles(picture: Picture) -> set[str]:
    """The first words of what the picture's sections are called."""
    return {found.split()[0] for line in picture.lines()[1:] for found in TITLE.findall(line)}


class Sign(NamedTuple):
    """How one recognises a screen: its key, and words that title a section there and nowhere else."""

    key: bytes
    words: frozenset[str]

    def shown(self, picture: Picture) -> bool:
        """Whether the screen is shown."""
        return bool(self.words & titles(picture))


def signs(terminal: Terminal, calm: float = 0.6) -> list[Sign]:
    """Go through the numbered screens and learn what each is recognised by; the first one is left in front."""
    found: dict[str, set[str]] = {}
    for key in (*SCREENS, *SCREENS):  # twice: what is fetched from the engine is there the second time
        terminal.press(key.encode())
        time.sleep(calm / 2)
        found[key] = titles(terminal.picture) | found.get(key, set())
    terminal.press(b"1")
    time.sleep(calm)
    own = {key: words.difference(*(found[other] for other in found if other != key)) for key, words in found.items()}
    return [Sign(key.encode(), frozenset(words)) for key, words in own.items() if words]


CURSOR = ";".join(str(part) for part in (48, 2, *(DARK["cursor"].bgcolor.triplet or ())))  # type: ignore[union-attr]


def cursor(picture: Picture) -> list[int]:
    """Lines that the cursor is on."""
    return picture.lines_in(CURSOR)


class Moved:
    """The cursor is elsewhere than it was."""

    def __init__(self, terminal: Terminal) -> None:
        self._before = cursor(terminal.picture)

    def __call__(self, picture: Picture) -> bool:
        """Whether it has moved."""
        return cursor(picture) not in (self._before, [])


def try_answer(terminal: Terminal, keys: bytes, shows: object, seconds: float = 10.0) -> float | None:
    """Seconds until a picture answers; None where none did."""
    try:
        return terminal.answer(keys, shows, seconds)  # type: ignore[arg-type]
    except NoAnswer:
        return None
