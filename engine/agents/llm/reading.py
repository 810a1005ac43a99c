"""An answer as it comes from a server: collected without believing any type, and no longer than it may be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from engine.agents.llm.secret import Secret
from store.audit import clean

MAX_CHARACTERS = 400_000
MAX_REPORTED_TOKENS = 10**9


class Completion(msgspec.Struct, frozen=True):
    """What came back. `finish` is the server's word; tokens are 0 where it did not say."""

    text: str
    finish: str = ""
    refusal: str = ""
    tools: int = 0
    hidden: int = 0
    tokens_in: int = 0
    tokens_out: int = 0


class TooLong(Exception):
    """More came than any answer has."""


class Reader:
    """Collects an answer as it comes, believes no type, and stops at the limit."""

    def __init__(self, key: Secret, say: Callable[[str], None]) -> None:
        self._key, self._say = key, say
        self._parts: list[str] = []
        self._waiting = ""
        self._refusal: list[str] = []
        self.size = self._hidden = self._tools = 0
        self._finish = ""
        self._usage = (0, 0)

    def take(self, chunk: Any) -> None:
        """One chunk of a stream."""
        self._count(getattr(chunk, "usage", None))
        choices = getattr(chunk, "choices", None)
        if not isinstance(choices, list) or not choices:
            return
        delta = getattr(choices[0], "delta", None)
        if delta is not None:
            self._content(lambda name: getattr(delta, name, None))
        self._end(getattr(choices[0], "finish_reason", None))

    def take_whole(self, body: Any) -> None:
        """An answer that came in one piece."""
        if isinstance(body, dict) and body.get("error"):
            raise ValueError(f"an error: {clean(str(body['error']), 120)}")
        choices = body.get("choices") if isinstance(body, dict) else None
        if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
            raise ValueError("no choices in it")
        usage, message = body.get("usage"), choices[0].get("message")
        if isinstance(usage, dict):
            self._usage = _count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens"))
        if isinstance(message, dict):
            self._content(message.get)
        self._end(choices[0].get("finish_reason"))

    def _content(self, get: Callable[[str], Any]) -> None:
        for name in ("reasoning_content", "reasoning"):
            if thought := _plain(get(name)):
                self._hidden += len(thought)
                self._grow(thought)
                self._show(thought)
        if text := _plain(get("content")):
            self._parts.append(text)
            self._grow(text)
            self._show(text)
        if refusal := _plain(get("refusal")):
            self._refusal.append(refusal)
            self._grow(refusal)
        if get("tool_calls") or get("function_call"):
            self._tools += 1

    def _grow(self, text: str) -> None:
        self.size += len(text)
        if self.size > MAX_CHARACTERS:
            raise TooLong

    def _show(self, text: str) -> None:
        """Pass on in pieces worth sending; the end waits, where it may be the beginning of the key."""
        self._waiting += text
        if len(self._waiting) >= 80 + self._key.overlap or "\n" in text:
            shown = self._key.hide(self._waiting)
            keep = min(len(shown), self._key.overlap)
            self._say(shown[: len(shown) - keep])
            self._waiting = shown[len(shown) - keep :]

    def flush(self) -> None:
        """Pass on what is left."""
        if self._waiting:
            self._say(self._key.hide(self._waiting))
            self._waiting = ""

    def _end(self, reason: Any) -> None:
        if isinstance(reason, str) and reason:
            self._finish = clean(reason, 40)

    def _count(self, usage: Any) -> None:
        if usage is not None:
            known = _count(getattr(usage, "prompt_tokens", 0)), _count(getattr(usage, "completion_tokens", 0))
            self._usage = max(self._usage[0], known[0]), max(self._usage[1], known[1])

    def completion(self) -> Completion:
        """What has come so far."""
        text, refusal = self._key.hide("".join(self._parts)[:MAX_CHARACTERS]), self._key.hide("".join(self._refusal))
        return Completion(text, self._finish, refusal[:2_000], self._tools, self._hidden, *self._usage)


def _count(value: Any) -> int:
    return min(value, MAX_REPORTED_TOKENS) if isinstance(value, int) and value > 0 else 0


def _plain(value: Any) -> str:
    """Text, or the text of a list of parts; lone halves of surrogate pairs cannot be stored and become marks."""
    if isinstance(value, list):
        value = "".join(str(one.get("text", "")) for one in value if isinstance(one, dict))
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else ""
