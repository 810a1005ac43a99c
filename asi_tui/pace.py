"""How much the terminal is sent: no picture before the last one is out, none that the line would be choked by.

A key is answered at once; what is paced are the pictures that nobody asked for. A line that is slower than we write
would otherwise always be full, and every answer to a key would wait behind pictures that are old already.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TextIO

BYTES_PER_SECOND = 60_000
"""Pictures by themselves stay below it, whatever the size of the screen and however much happens."""

SHARE = 0.5
"""What they take of a line that is slower than that: the rest is for answers to keys."""

BURST_SECONDS = 1.0
DEBT_SECONDS = 3.0
"""The longest that the next picture waits for what was written to be paid, keys' answers included."""
BLOCKED_SECONDS = 0.02
"""A write that takes so long has filled the line's buffer, and tells how fast the line is."""

TELLING = 4_096
"""Bytes of a write that can tell it: a small one that was slow only met a busy machine."""

FORGOTTEN_SECONDS = 10.0


class Outlet:
    """The terminal's file, and how fast it takes what it is given: more than the line's buffer holds has to wait."""

    def __init__(self, file: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._file = file
        self._clock = clock
        self._blocked_at = float("-inf")
        self._speed = 0.0
        self.busy = False
        self.sent = 0

    def write(self, text: str) -> None:
        """Write; returns when the line's buffer has taken it."""
        size = len(text.encode("utf-8", "replace"))
        self.sent += size
        self._measured(lambda: self._file.write(text), size)

    def flush(self) -> None:
        """Write what is held back."""
        self._measured(self._file.flush, 0)

    def fileno(self) -> int:
        """Number of the file."""
        return self._file.fileno()

    @property
    def speed(self) -> float:
        """Bytes per second of a line that made us wait lately; 0 where none did."""
        return self._speed if self._clock() - self._blocked_at < FORGOTTEN_SECONDS else 0.0

    def _measured(self, work: Callable[[], object], size: int) -> None:
        self.busy = True
        begun = self._clock()
        try:
            work()
        finally:
            ended = self._clock()
            if size >= TELLING and ended - begun > BLOCKED_SECONDS:
                speed = size / (ended - begun)
                self._speed = (self.speed + speed) / 2 if self.speed else speed
                self._blocked_at = ended
            self.busy = False


class Pace:
    """Decides when the next picture that nobody asked for may be drawn."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._credit = BYTES_PER_SECOND * BURST_SECONDS
        self._sent = 0
        self._at = clock()

    def allows(self, outlet: Outlet) -> bool:
        """Whether the line is free: the last picture is out, and what was written is paid for."""
        now, speed = self._clock(), outlet.speed
        rate = min(BYTES_PER_SECOND, speed * SHARE) if speed else BYTES_PER_SECOND
        self._credit = min(rate * BURST_SECONDS, self._credit + (now - self._at) * rate)
        self._credit = max(-rate * DEBT_SECONDS, self._credit - (outlet.sent - self._sent))
        self._at, self._sent = now, outlet.sent
        return not outlet.busy and self._credit >= 0
