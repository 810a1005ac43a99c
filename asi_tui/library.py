"""What screens ask the engine for beyond the state: blobs, curves, transcripts, the leaderboard.

A screen asks while it draws and gets what is there; what is missing is fetched by a worker and drawn when it has come.
Answers come from outside and are validated here.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import msgspec

from engine.client.connection import NotConnected
from engine.client.protocol import Answer, CurvePoint

KEPT = 200
RETRY_SECONDS = 3.0

T = TypeVar("T")


class Turn(msgspec.Struct, frozen=True):
    """One call of an agent in a transcript. `prompt` and `reply` are blobs."""

    role: str
    agent: str = ""
    time: float = 0.0
    prompt: str = ""
    reply: str = ""
    text: str = ""
    ok: bool = True
    seconds: float = 0.0


class CurveText(msgspec.Struct, frozen=True):
    """All points of a trial."""

    losses: list[CurvePoint] = []
    scores: list[CurvePoint] = []


class BoardRow(msgspec.Struct, frozen=True):
    """One row of the leaderboard."""

    experiment: str
    score: float
    rank: int = 0
    title: str = ""
    origin: str = ""
    parent: str | None = ""
    control: bool = False
    low: float | None = None
    high: float | None = None
    seeds: int | None = 0
    against_parent: float | None = None
    against_parent_low: float | None = None
    against_parent_high: float | None = None
    parameters: float | None = 0
    state_floats: float | None = 0
    training_flops: float | None = 0
    tokens_per_second: float | None = 0.0
    cpu_seconds: float | None = 0.0


class _Entry:
    def __init__(self) -> None:
        self.value: Any = None
        self.stamp: Any = object()
        self.asked: Any = object()
        self.error = ""
        self.failed_at = 0.0


class Library:
    """A cache of answers that fills itself."""

    def __init__(
        self,
        query: Callable[[str, str, int], Awaitable[Answer]],
        start: Callable[[Coroutine[Any, Any, None]], object],
        arrived: Callable[[], None],
    ) -> None:
        self._query, self._start, self._arrived = query, start, arrived
        self._entries: OrderedDict[tuple[str, str], _Entry] = OrderedDict()

    def _get(self, name: str, target: str, stamp: Any, decode: Callable[[str], Any], limit: int = 200) -> _Entry:
        """The newest answer; asks again when `stamp` is not the one it was asked with."""
        entry = self._entries.setdefault((name, target), _Entry())
        self._entries.move_to_end((name, target))
        while len(self._entries) > KEPT:
            self._entries.popitem(last=False)
        waiting = entry.failed_at and time.monotonic() < entry.failed_at + RETRY_SECONDS
        if entry.stamp != stamp and entry.asked != stamp and not waiting:
            entry.asked = stamp
            self._start(self._fetch(entry, name, target, stamp, decode, limit))
        return entry

    async def _fetch(
        self, entry: _Entry, name: str, target: str, stamp: Any, decode: Callable[[str], Any], limit: int
    ) -> None:
        try:
            answer = await self._query(name, target, limit)
            if answer.ok:
                entry.value, entry.stamp, entry.error, entry.failed_at = decode(answer.text), stamp, "", 0.0
            else:
                entry.error, entry.failed_at = answer.error or "the engine has no answer", time.monotonic()
        except (NotConnected, msgspec.MsgspecError) as error:
            entry.error, entry.failed_at = str(error), time.monotonic()
        finally:
            entry.asked = object()
            self._arrived()

    def blob(self, sha: str) -> str | None:
        """The text of a blob; None while it is on its way."""
        if not sha:
            return ""
        return self._get("blob", sha, "", str).value

    def curve(self, trial: str, stamp: Any) -> CurveText | None:
        """The points of a trial."""
        return self._get("curve", trial, stamp, _decoder(CurveText)).value

    def transcript(self, experiment: str, stamp: Any) -> list[Turn] | None:
        """The calls of agents for an experiment, oldest first."""
        return self._get("transcript", experiment, stamp, _decoder(list[Turn])).value

    def leaderboard(self, stamp: Any) -> tuple[list[BoardRow] | None, str]:
        """The leaderboard and what went wrong with the newest question."""
        entry = self._get("leaderboard", "rank", stamp, _decoder(list[BoardRow]))
        return entry.value, entry.error


def _decoder(kind: type[T]) -> Callable[[str], T]:
    return lambda text: msgspec.json.decode(text, type=kind, strict=False)
