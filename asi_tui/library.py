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
from engine.client.protocol import (
    Answer,
    AuditPage,
    BoardPage,
    Curve,
    Knowledge,
    PolicyView,
    Table,
    TranscriptEntry,
    Verified,
)

KEPT = 200
RETRY_SECONDS = 3.0

T = TypeVar("T")


class Entry:
    """One question and the newest answer to it; `error` says what went wrong with the newest attempt."""

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
        query: Callable[..., Awaitable[Answer]],
        start: Callable[[Coroutine[Any, Any, None]], object],
        arrived: Callable[[], None],
    ) -> None:
        self._query, self._start, self._arrived = query, start, arrived
        self._entries: OrderedDict[tuple[Any, ...], Entry] = OrderedDict()
        self._fetching = 0

    def get(
        self, name: str, target: str, stamp: Any, decode: Callable[[str], Any], **fields: Any
    ) -> Entry:
        """The newest answer to a query; asks again when `stamp` is not the one that it was asked with."""
        key = (name, target, *sorted(fields.items()))
        entry = self._entries.setdefault(key, Entry())
        self._entries.move_to_end(key)
        while len(self._entries) > KEPT:
            self._entries.popitem(last=False)
        waiting = entry.failed_at and time.monotonic() < entry.failed_at + RETRY_SECONDS
        if entry.stamp != stamp and entry.asked != stamp and not waiting:
            entry.asked = stamp
            self._start(self._fetch(entry, name, target, stamp, decode, fields))
        return entry

    @property
    def busy(self) -> bool:
        """Whether answers are on their way."""
        return self._fetching > 0

    def forget(self) -> None:
        """Ask everything anew: the answers that are here belong to another moment."""
        self._entries.clear()

    async def _fetch(
        self, entry: Entry, name: str, target: str, stamp: Any, decode: Callable[[str], Any], fields: dict[str, Any]
    ) -> None:
        self._fetching += 1
        try:
            answer = await self._query(name, target, **fields)
            if answer.ok:
                entry.value, entry.stamp, entry.error, entry.failed_at = decode(answer.text), stamp, "", 0.0
            else:
                entry.error, entry.failed_at = answer.error or "the engine has no answer", time.monotonic()
        except (NotConnected, msgspec.MsgspecError) as error:
            entry.error, entry.failed_at = str(error), time.monotonic()
        finally:
            self._fetching -= 1
            entry.asked = object()
            self._arrived()

    def blob(self, sha: str) -> str | None:
        """The text of a blob; None while it is on its way."""
        if not sha:
            return ""
        return self.get("blob", sha, "", str).value

    def curve(self, trial: str, stamp: Any) -> Curve | None:
        """The points of a trial."""
        return self.get("curve", trial, stamp, decoder(Curve)).value

    def transcript(self, experiment: str, stamp: Any) -> list[TranscriptEntry] | None:
        """The calls of agents for an experiment, oldest first."""
        return self.get("transcript", experiment, stamp, decoder(list[TranscriptEntry])).value

    def board(
        self, stamp: Any, order: str = "rank", reverse: bool = False, where: str = "", offset: int = 0, limit: int = 200
    ) -> Entry:
        """A page of the leaderboard: `value` is a `BoardPage`, `error` what is wrong with the newest question."""
        page = {"reverse": reverse, "where": where, "offset": offset, "limit": limit}
        return self.get("leaderboard", order, stamp, decoder(BoardPage), **page)

    def audit(self, stamp: Any, experiment: str = "", words: str = "", before: int = 0, limit: int = 200) -> Entry:
        """Records in human words, newest first: `value` is an `AuditPage`."""
        page = {"where": words, "offset": before, "limit": limit}
        return self.get("audit", experiment, stamp, decoder(AuditPage), **page)

    def verified(self, stamp: Any) -> Entry:
        """A full check of the record: `value` is a `Verified`. Takes seconds; ask only when a person does."""
        return self.get("verify", "", stamp, decoder(Verified))

    def sql(self, statement: str, stamp: Any, limit: int = 1_000) -> Entry:
        """The answer to one SELECT statement: `value` is a `Table`."""
        return self.get("sql", statement, stamp, decoder(Table), limit=limit)

    def output(self, trial: str, stamp: Any, limit: int = 2_000) -> Entry:
        """The end of what a trial printed: `value` is text of unknown origin."""
        return self.get("output", trial, stamp, decoder(str), limit=limit)

    def policy(self, request: str, stamp: Any) -> Entry:
        """The policy in force, with a rule that would allow what a request is about: `value` is a `PolicyView`."""
        return self.get("policy", request, stamp, decoder(PolicyView))

    def knowledge(self, stamp: Any, words: str = "", limit: int = 200) -> Entry:
        """What the run knows, best matches first: `value` is a list of `Knowledge`."""
        return self.get("cognition", "", stamp, decoder(list[Knowledge]), where=words, limit=limit)


def decoder(kind: type[T]) -> Callable[[str], T]:
    """Validates an answer."""
    return lambda text: msgspec.json.decode(text, type=kind, strict=False)
