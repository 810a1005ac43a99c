"""Values that take too long for the event loop, by what they are made for; an old one never stands for a new one."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from asi_tui.screens.base import Watch

KEPT = 12

T = TypeVar("T")


class Kept(Generic[T]):
    """The newest values that worker threads have made for a screen."""

    def __init__(self, screen: Watch) -> None:
        self._screen = screen
        self._values: OrderedDict[Hashable, T | None] = OrderedDict()

    def get(self, key: Hashable, work: Callable[[], T]) -> T | None:
        """The value for `key`; None while a thread makes it."""
        if key not in self._values:
            self._values[key] = None
            while len(self._values) > KEPT:
                self._values.popitem(last=False)
            self._screen.run_worker(self._make(key, work), exit_on_error=True)
        return self._values[key]

    async def _make(self, key: Hashable, work: Callable[[], T]) -> None:
        self._values[key] = await asyncio.to_thread(work)
        if self._screen.is_current:
            self._screen.draw()
