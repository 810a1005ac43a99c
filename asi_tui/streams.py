"""What agents and trials write as they write it: one bounded text for each, and all of it in the order of time."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any, NamedTuple

from asi_tui.longtext import LongText
from engine.client.protocol import LiveText
from store import events as ev

STREAM_LINES = 20_000
STREAM_CHARACTERS = 2_000_000
ALL_CHARACTERS = 24_000_000
"""What all streams together keep; the one that has been silent for longest goes first."""

HEARD = 3_000
HEARD_LINES = 400
LONGEST_HEARD = 40_000
ENGINE = "engine"


class Stream:
    """One role's live text on one experiment. `over`: its reply is in the journal, so the transcript has it."""

    def __init__(self, experiment: str, role: str, now: float) -> None:
        self.experiment, self.role, self.began, self.changed = experiment, role, now, now
        self.text = LongText("", STREAM_LINES, STREAM_CHARACTERS)
        self.over = False


class Heard(NamedTuple):
    """Something in the order of time: a piece of a stream, or (`role` is ENGINE) what the engine says itself."""

    number: int
    time: float
    experiment: str
    role: str
    text: LongText
    style: str = ""


class Streams:
    """All live texts. Pieces are appended; nothing that is there is built anew."""

    def __init__(self) -> None:
        self._streams: dict[tuple[str, str], Stream] = {}
        self._roles: dict[str, list[str]] = {}
        self.heard: deque[Heard] = deque(maxlen=HEARD)
        self._number = 0
        self.changes = 0

    def __iter__(self) -> Any:
        return iter(self._roles)

    def __contains__(self, experiment: object) -> bool:
        return experiment in self._roles

    def of(self, experiment: str) -> list[Stream]:
        """The streams of one experiment, in the order in which they began."""
        return [self._streams[experiment, role] for role in self._roles.get(experiment, ())]

    def clear(self) -> None:
        """Forget everything: it belongs to another moment."""
        self._streams.clear()
        self._roles.clear()
        self.heard.clear()
        self.changes += 1

    def take(self, message: LiveText, now: float) -> None:
        """One more piece."""
        self.changes += 1
        key = (message.experiment, message.role)
        stream = self._streams.get(key)
        if stream is None or stream.over:
            self._drop(key)
            stream = self._streams[key] = Stream(*key, now)
            self._roles.setdefault(message.experiment, []).append(message.role)
        stream.text.append(message.text)
        stream.changed = now
        self._hear(message, now)
        self._bound(key)

    def _hear(self, message: LiveText, now: float) -> None:
        last = self.heard[-1] if self.heard else None
        if last is not None and (last.experiment, last.role) == (message.experiment, message.role) \
                and last.text.characters < LONGEST_HEARD:  # fmt: skip
            last.text.append(message.text)
            return
        self._add(now, message.experiment, message.role, message.text)

    def _add(self, now: float, experiment: str, role: str, text: str, style: str = "") -> None:
        self._number += 1
        self.heard.append(Heard(self._number, now, experiment, role, LongText(text, HEARD_LINES, LONGEST_HEARD), style))

    def say(self, time: float, experiment: str, text: str, style: str = "") -> None:
        """What the engine says itself, in its place among the streams."""
        self.changes += 1
        self._add(time, experiment, ENGINE, text, style)

    def tell(self, record: ev.Record) -> None:
        """What a record means for the streams: an agent asked, an agent has answered, an experiment is over."""
        event = record.data
        if isinstance(event, ev.AgentCalled):
            self.say(record.time, event.experiment, f"asks {event.role} ({event.agent})", "dim")
        elif isinstance(event, ev.AgentReplied):
            how = "answered" if event.ok else "gave no usable answer"
            self.say(record.time, event.experiment, f"{event.role} {how} after {event.seconds:.1f} s", "dim")
            stream = self._streams.get((event.experiment, event.role))
            if stream is not None:
                stream.over = True
        elif isinstance(event, ev.ExperimentClosed):
            for role in list(self._roles.get(event.experiment, ())):
                self._drop((event.experiment, role))

    def fill(self, happenings: Iterable[tuple[float, str, str, str]]) -> None:
        """After a snapshot: what the log knows, where nothing was heard yet."""
        if not self.heard:
            for time, experiment, text, style in happenings:
                self.say(time, experiment, text, style)

    def _drop(self, key: tuple[str, str]) -> None:
        if self._streams.pop(key, None) is not None:
            self.changes += 1
            roles = self._roles[key[0]]
            roles.remove(key[1])
            if not roles:
                del self._roles[key[0]]

    def _bound(self, newest: tuple[str, str]) -> None:
        """Let go of silent streams while all of them together are too long."""
        while len(self._streams) > 1 and sum(one.text.characters for one in self._streams.values()) > ALL_CHARACTERS:
            oldest = min((key for key in self._streams if key != newest), key=lambda key: self._streams[key].changed)
            self._drop(oldest)
