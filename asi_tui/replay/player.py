"""The clock of a replay: where it is, how fast it goes, and what it skips. Pure: no file, no task, no real time."""

from __future__ import annotations

from typing import Protocol

SPEEDS = (1, 2, 5, 10, 30, 60, 120, 300, 600, 1_000, 3_000, 10_000)
"""Seconds of the run in a second."""

PATIENCE = 1.0
"""Seconds that one waits at most for the next thing to happen."""

MOST_RECORDS = 2_000
"""Records that one step of the clock passes at most: what is more than can be drawn is no faster for it."""


class Times(Protocol):
    """What the clock must know of a journal."""

    total: int

    def time_of(self, seq: int) -> float:
        """When a record was written."""

    def at_time(self, when: float) -> int:
        """The last record by then."""


class Player:
    """Position and pace. `seq`: the last record that has happened; `at`: the time of the run."""

    def __init__(self, times: Times, speed: float = 60) -> None:
        self._times = times
        self.seq = 0
        self.at = 0.0
        self.playing = True
        self.speed = float(speed)

    @property
    def ended(self) -> bool:
        """Everything that is known has happened."""
        return self.seq >= self._times.total

    def advance(self, seconds: float, coming: float | None = None) -> int:
        """Let so many real seconds pass; returns the last record that has happened now.

        Args:
            seconds: real time.
            coming: when the next thing that is no record can be seen, such as a point of a curve.
        """
        if not self.playing or self.ended:
            return self.seq
        if not self.seq:
            self.move(1)
            return self.seq
        following = self._times.time_of(self.seq + 1)
        soon = following if coming is None else min(following, max(coming, self.at))
        # Long quiet stretches are skipped: the next thing is never further away than one's patience.
        self.at = max(self.at, soon - PATIENCE * self.speed) + seconds * self.speed
        last = min(self._times.at_time(self.at), self.seq + MOST_RECORDS)
        self.seq = max(self.seq, last)
        if self.ended or self._times.time_of(self.seq + 1) < self.at:
            self.at = self._times.time_of(self.seq)
        return self.seq

    def move(self, seq: int) -> None:
        """Go to a record."""
        self.seq = max(min(1, self._times.total), min(seq, self._times.total))
        self.at = self._times.time_of(self.seq)

    def toggle(self) -> None:
        """Play or pause."""
        self.playing = not self.playing

    def faster(self, steps: int) -> None:
        """To the next speed up or down."""
        if steps > 0:
            self.speed = float(next((one for one in SPEEDS if one > self.speed), SPEEDS[-1]))
        else:
            self.speed = float(next((one for one in reversed(SPEEDS) if one < self.speed), SPEEDS[0]))
