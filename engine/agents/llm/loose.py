"""JSON out of text that a model wrote: in a fence or in prose, after reasoning, with comments and trailing commas.

Nothing here is ever executed, and every step is linear in the text or bounded in number.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

MAX_STARTS = 24
"""So many opening braces outside of any object found are tried."""

_THOUGHT = re.compile(r"<(/?)(?:think|thinking|reasoning|thought)>", re.IGNORECASE)
_FENCE = re.compile(r"[ \t]*(`{3,}|~{3,})[ \t]*([\w+.-]*)(.*)")
_TOKEN = re.compile(r'"""|[{}\[\]]|"|//|/\*')
_STRING_END = re.compile(r'\\.|"', re.DOTALL)
_PYTHON_WORD = re.compile(r"\b(True|False|None)\b")
_WORDS = {"True": "true", "False": "false", "None": "null"}


def without_thoughts(text: str) -> str:
    """The text without a reasoning preamble; one that never ends leaves what may still hold an answer."""
    kept: list[str] = []
    at, inside = 0, False
    for tag in _THOUGHT.finditer(text):
        if tag[1]:
            # Without an opening tag, that one was part of the prompt, and all before is thought.
            kept = kept if inside else []
            at, inside = tag.end(), False
        elif not inside:
            kept.append(text[at : tag.start()])
            at, inside = tag.end(), True
    return "".join([*kept, text[at:]])


def fences(text: str) -> list[tuple[str, str]]:
    """Fenced blocks as (language, content), in order; one that is not closed is none."""
    found: list[tuple[str, str]] = []
    mark, language, content = "", "", [""]
    for line in text.splitlines(keepends=True):
        fence = _FENCE.match(line)
        if not mark:
            if fence is not None:
                mark, language, content = fence[1], fence[2].lower(), []
        elif fence is not None and fence[1] == mark and not (fence[2] or fence[3].strip()):
            found.append((language, "".join(content)))
            mark = ""
        else:
            content.append(line)
    return found


def objects(text: str) -> Iterator[dict[str, Any]]:
    """Every JSON object at the top level of a text, whatever stands around it."""
    start, tried = text.find("{"), 0
    while start >= 0 and tried < MAX_STARTS:
        tried += 1
        end = _end(text, start)
        value = parse(text[start:end]) if end else None
        if isinstance(value, dict):
            yield value
            start = text.find("{", end)
        else:
            start = text.find("{", start + 1)


def is_open(text: str) -> bool:
    """Whether an object begins that does not end: what an answer looks like that was cut off."""
    start = text.find("{")
    return start >= 0 and _end(text, start) == 0


def parse(text: str) -> Any:
    """A JSON value, read as strictly as it allows; None when it is none."""
    for mend in (_as_it_is, _relaxed, _pythonic):
        try:
            return json.loads(mend(text), strict=False)
        except (ValueError, RecursionError):
            continue
    return None


def _as_it_is(text: str) -> str:
    return text


def _end(text: str, start: int) -> int:
    """Where the object that begins at `start` ends, 0 when it does not."""
    depth, at = 0, start
    while (found := _TOKEN.search(text, at)) is not None:
        token, at = found[0], found.end()
        if token in "{[":
            depth += 1
        elif token in "}]":
            depth -= 1
            if depth <= 0:
                return at
        else:
            at = _skip(text, token, at)
            if at < 0:
                return 0
    return 0


def _skip(text: str, token: str, at: int) -> int:
    """The end of a string or comment that opened with `token` before `at`; -1 when it does not end."""
    if token == '"""':
        if text[at : at + 1] in (",", "}", "]", ":"):  # an empty string and the quote of the next
            return at - 1
        end = text.find('"""', at)
        return end + 3 if end >= 0 else -1
    if token == '"':
        for found in _STRING_END.finditer(text, at):
            if found[0] == '"':
                return found.end()
        return -1
    if token == "//":
        end = text.find("\n", at)
        return end if end >= 0 else -1
    end = text.find("*/", at)
    return end + 2 if end >= 0 else -1


def _relaxed(text: str, words: bool = False) -> str:
    """Without comments and trailing commas; texts in triple quotes become JSON strings."""
    parts: list[str] = []
    at = 0
    while (found := _TOKEN.search(text, at)) is not None:
        plain, token, begin = text[at : found.start()], found[0], found.start()
        parts.append(_PYTHON_WORD.sub(lambda word: _WORDS[word[0]], plain) if words else plain)
        at = found.end()
        if token in "{}[]":
            if token in "}]":
                _drop_comma(parts)
            parts.append(token)
            continue
        end = _skip(text, token, at)
        if end < 0:
            parts.append(text[begin:])
            return "".join(parts)
        if token == '"""' and end > at:
            parts.append(json.dumps(text[at : end - 3]))
        elif token in ('"', '"""'):
            parts.append(text[begin:end])
        at = end
    return "".join([*parts, text[at:]])


def _drop_comma(parts: list[str]) -> None:
    """Take away a comma at the end of what was written so far."""
    for index in range(len(parts) - 1, -1, -1):
        kept = parts[index].rstrip()
        if kept:
            parts[index] = kept[:-1] if kept.endswith(",") else parts[index]
            return


def _pythonic(text: str) -> str:
    return _relaxed(text, words=True)
