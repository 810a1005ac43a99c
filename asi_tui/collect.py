"""Views of the leaderboard, and all rows of one, fetched by pages past the terminal's cache."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import msgspec

from asi_tui.library import decoder
from engine.client.connection import NotConnected
from engine.client.protocol import Answer, BoardPage, BoardRow

PAGE = 1_000
ATTEMPTS = 3
"""Rows move while scores come in: a collection in which some are missing is begun again so many times."""


class View(NamedTuple):
    """What is shown: ordered by a column, perhaps turned round, under a condition."""

    order: str = "rank"
    reverse: bool = False
    where: str = ""


class Asks(Protocol):
    """What carries a question to an engine."""

    async def query(self, name: str, target: str = "", **fields: Any) -> Answer:
        """Ask something."""


class CollectError(Exception):
    """The rows could not be had; the message is one line."""


async def all_rows(
    line: Asks, view: View, progress: Callable[[int, int], None] = lambda done, total: None
) -> list[BoardRow]:
    """Every row of the view, each once, in its order.

    Raises:
        CollectError: the engine did not give them, or they would not stand still.
    """
    for _ in range(ATTEMPTS):
        found: dict[str, BoardRow] = {}
        total, offset = 1, 0
        while offset < total:
            page = await _page(line, view, offset)
            total = page.total
            found.update((row.experiment, row) for row in page.rows)
            if not page.rows:
                break
            offset += len(page.rows)
            progress(len(found), total)
        if len(found) == total or total == 0:
            return list(found.values())
    raise CollectError("rows moved while they were read; try again in a moment")


async def _page(line: Asks, view: View, offset: int) -> BoardPage:
    try:
        answer = await line.query(
            "leaderboard", view.order, reverse=view.reverse, where=view.where, offset=offset, limit=PAGE
        )
        if not answer.ok:
            raise CollectError(answer.error or "the engine has no answer")
        return await asyncio.to_thread(decoder(BoardPage), answer.text)
    except (NotConnected, msgspec.MsgspecError) as error:
        raise CollectError(str(error)) from error
