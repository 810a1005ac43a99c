"""What the terminal sees for itself, whatever the engine says: whether it is alive, and whether the run is latched."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Literal, NamedTuple

from engine.client.records import Latch, read_latch
from engine.client.rundir import engine_pid

SECONDS = 0.5

Latched = Literal["", "held", "killed"]


class Facts(NamedTuple):
    """The pid of the engine where the kernel has it alive, and who pulled the emergency stop."""

    engine: int | None = None
    latch: Latch | None = None

    @property
    def latched(self) -> Latched:
        """`held`: the engine lives under the latch, with everything frozen; `killed`: it does not live."""
        if self.latch is None:
            return ""
        return "killed" if self.engine is None else "held"

    @property
    def puller(self) -> str:
        """Who pulled the emergency stop and why, in words; text of unknown origin."""
        if self.latch is None:
            return ""
        reason = f" ({self.latch.reason})" if self.latch.reason else ""
        return self.latch.actor.removeprefix("person:") + reason


def look(root: Path) -> Facts:
    """Read the latch and `/proc`; may take as long as the disk does."""
    return Facts(engine_pid(root), read_latch(root))


class Lookout:
    """Looks again and again in a thread of its own, which a hanging disk may keep: nobody ever waits for it."""

    def __init__(self, root: Path) -> None:
        self.facts = Facts()
        self._root = root
        self._over = threading.Event()

    def start(self) -> None:
        """Begin to look."""
        threading.Thread(target=self._run, daemon=True, name="lookout").start()

    def stop(self) -> None:
        """Look no more."""
        self._over.set()

    def _run(self) -> None:
        while not self._over.is_set():
            self.facts = look(self._root)
            self._over.wait(SECONDS)
