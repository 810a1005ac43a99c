"""The person at the keys, as far as the dead-man's switch is concerned: when to say so, and when to call them."""

from __future__ import annotations

import time
from collections.abc import Callable

WARNING_SECONDS = 300.0
"""From here on the header warns."""

BELLS = (WARNING_SECONDS, 60.0)
"""The bell rings once as each of these is passed."""

RENEW_SECONDS = 60.0
"""Keys renew at most so often, while there is time."""

HURRY_SECONDS = 5.0
"""And so often while the header asks for a key: a key that the person was asked for must count."""


class Presence:
    """Decides when a key renews and when the bell rings.

    `left` is always the seconds until the run is stopped (further) for want of a person, None where its present phase
    leaves nothing to stop: frozen, say, or paused where only a pause is asked for.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._sent = float("-inf")
        self._passed = 0

    def renews(self, left: float | None) -> bool:
        """A person pressed a key: whether the engine is to be told now."""
        if left is None:
            return False
        now = self._clock()
        if now - self._sent < (RENEW_SECONDS if left > WARNING_SECONDS else HURRY_SECONDS):
            return False
        self._sent = now
        return True

    def not_told(self) -> None:
        """The engine did not hear it, so the next key tries again."""
        self._sent = float("-inf")

    def rings(self, left: float | None) -> bool:
        """Whether time has just passed one of `BELLS`."""
        if left == 0:
            return False
        passed = 0 if left is None else sum(left <= bell for bell in BELLS)
        rings = passed > self._passed
        self._passed = passed
        return rings
