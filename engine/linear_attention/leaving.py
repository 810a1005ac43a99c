"""Being asked to leave: a signal that is obeyed at the next safe place, with bounds on how long that may take.

This module imports nothing that takes time, so that the signal is understood before anything else is loaded.
"""

from __future__ import annotations

import signal
import time

# Wall-clock seconds after the signal. An evaluation that has begun is finished where that is quick, because nothing
# measured has to be measured again then; beyond the second bound even a checkpoint is no longer waited for.
ABANDON_SECONDS = 2.0
GIVE_UP_SECONDS = 8.0


class Leaving:
    """Whether this process was asked to leave, and since when."""

    def __init__(self) -> None:
        self._since: float | None = None

    def obey(self, number: signal.Signals) -> None:
        """Take the signal as the wish that this process leaves."""
        signal.signal(number, lambda *_: self.ask())

    def ask(self) -> None:
        """Note the wish; asking again changes nothing."""
        if self._since is None:
            self._since = time.monotonic()

    @property
    def asked(self) -> bool:
        """Whether somebody asked."""
        return self._since is not None

    def over(self, seconds: float) -> bool:
        """Whether more than `seconds` have passed since then."""
        return self._since is not None and time.monotonic() - self._since >= seconds
