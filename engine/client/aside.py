"""Work that may hang (a dead disk, a stuck `/proc` entry) beside the thread that must not. Standard library only."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Aside(Generic[T]):
    """Work begun at once in a daemon thread; `wait` gives up on it after a while, and it never holds the end up.

    Where no thread can be had (a fork bomb, a limit), the work is done before this returns: better late than never.
    """

    def __init__(self, work: Callable[[], T]) -> None:
        self._work = work
        self._result: list[T] = []
        self._problem = ""
        self._thread: threading.Thread | None = threading.Thread(target=self._run, daemon=True)
        try:
            self._thread.start()
        except (RuntimeError, MemoryError):
            self._thread = None
            self._run()

    @property
    def pending(self) -> bool:
        """Whether the work still goes on."""
        return self._thread is not None and self._thread.is_alive()

    def _run(self) -> None:
        try:
            self._result.append(self._work())
        except Exception as error:  # whatever it was, an emergency stop goes on and reports it
            self._problem = f"{type(error).__name__}: {error}"

    def wait(self, seconds: float) -> tuple[T | None, str]:
        """The result, or None and why there is none; returns after at most about this many seconds."""
        if self._thread is not None:
            self._thread.join(max(0.0, seconds))
        if self._result:
            return self._result[0], ""
        return None, self._problem or "it did not end in time"
