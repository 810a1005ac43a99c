"""Values that take too long for the event loop: made in a worker thread, the old one shown until then."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from asi_tui.screens.base import Watch

T = TypeVar("T")


class Computed(Generic[T]):
    """One value and what it was made for."""

    def __init__(self, screen: Watch) -> None:
        self._screen = screen
        self._key: Hashable = object()
        self._wanted: Hashable = None
        self.value: T | None = None

    def get(self, key: Hashable, work: Callable[[], T]) -> T | None:
        """The newest value; begins to make that for `key` where it is another one."""
        if key not in (self._key, self._wanted):
            self._wanted = key
            self._screen.run_worker(self._make(key, work), exit_on_error=True)
        return self.value

    async def _make(self, key: Hashable, work: Callable[[], T]) -> None:
        made = await asyncio.to_thread(work)
        if self._wanted == key:
            self.value, self._key = made, key
            if self._screen.is_current:
                self._screen.draw()
