"""Places for sandboxes: every sandbox takes one processor core.

Two lanes share them: proposals, and the baselines beside them, which get every third slot while proposals wait too.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
from collections.abc import AsyncIterator

BASELINE_SHARE = 3


class Slots:
    """Places for sandboxes. `hold()` waits for one; lanes are served in order of arrival."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.used = 0
        self._granted = 0
        self._lanes: tuple[collections.deque[asyncio.Future[None]], ...] = (collections.deque(), collections.deque())
        self.open = True

    @contextlib.asynccontextmanager
    async def hold(self, baseline: bool = False, urgent: bool = False) -> AsyncIterator[None]:
        """Wait for a slot and keep it while the block runs. `urgent` goes to the head of its lane."""
        ticket: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        lane = self._lanes[1 if baseline else 0]
        lane.appendleft(ticket) if urgent else lane.append(ticket)
        self._grant()
        try:
            await ticket
        except asyncio.CancelledError:
            if ticket.done() and not ticket.cancelled():
                self._release()
            else:
                with contextlib.suppress(ValueError):  # the lane has just dropped it
                    lane.remove(ticket)
            raise
        try:
            yield
        finally:
            self._release()

    def set_open(self, value: bool) -> None:
        """Close to hold everything that waits (pause), open to let it go on."""
        self.open = value
        self._grant()

    def _release(self) -> None:
        self.used -= 1
        self._grant()

    def _grant(self) -> None:
        while self.open and self.used < self.total:
            proposals, baselines = self._lanes
            turn = baselines if self._granted % BASELINE_SHARE == 0 else proposals
            lane = turn or proposals or baselines
            if not lane:
                return
            ticket = lane.popleft()
            if not ticket.done():
                self._granted += 1
                self.used += 1
                ticket.set_result(None)
