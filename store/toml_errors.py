"""TOML files that people edit: read strictly into structs, with errors that name line, column and the nearest word."""

from __future__ import annotations

import difflib
import functools
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import msgspec

MAX_BYTES = 1024 * 1024
MOST_PARTS = 32
"""A key may have so many parts: what `tomllib` needs for one grows with their square."""

Key = tuple[str | int, ...]
"""Where something stands: the keys from the top; a number counts the entries of a list, from 0."""

T = TypeVar("T")


class TomlError(Exception):
    """A file cannot be used; one line: where, what is wrong, what to do."""


class TomlFile:
    """The text of one file; `name` stands in its errors, `error` is their type.

    describe: how an error calls the place of a wrong value, from its keys.
    """

    def __init__(self, text: str, name: str, error: type[TomlError], describe: Callable[[Key], str]) -> None:
        self.text, self.name, self.error, self.describe = text, name, error, describe

    def data(self) -> dict[str, Any]:
        """What the file holds. Raises `self.error` where it is no TOML."""
        if (found := _LONG_KEY.search(self.text)) is not None:
            line = self.text.count("\n", 0, found.start()) + 1
            column = found.start() - self.text.rfind("\n", 0, found.start())
            raise self.error(f"{self.name}:{line}:{column}: a key of more than {MOST_PARTS} parts")
        try:
            return tomllib.loads(self.text)
        except (ValueError, RecursionError) as error:  # a number of thousands of digits is a plain ValueError
            raise self.error(self._syntax_error(str(error))) from None

    def wrong(self, path: Key, message: str) -> TomlError:
        """The error about what stands at `path`."""
        line, column = position(self.text, path)
        return self.error(f"{self.name}:{line}:{column}: {message}")

    def convert(self, data: dict[str, Any], kind: type[T], plain: Callable[[str, Key], str | None] | None = None) -> T:
        """The data as a struct. `plain` may put a message of msgspec at a path into better words than the usual.

        Raises:
            TomlError: an unknown key, or a value of the wrong kind or out of bounds.
        """
        self._refuse_unknown(data, kind, ())
        try:
            return msgspec.convert(data, kind)
        except msgspec.ValidationError as error:
            message, _, where = str(error).partition(" - at `$.")
            path = _path(where.rstrip("`"))
            words = (plain(message, path) if plain else None) or _plain(message, _hint(kind, path))
            raise self.wrong(path, f"{self.describe(path)}: {words}") from None

    def _refuse_unknown(self, data: dict[str, Any], kind: type, path: Key) -> None:
        known = _hints(kind)
        for key, value in data.items():
            here = (*path, key)
            if key not in known:
                raise self.wrong(here, f"unknown key {self.describe(here)[:80]!r}; {nearest(key, known, 'known here')}")
            inner = _bare(known[key])
            if _is_struct(inner) and isinstance(value, dict):
                self._refuse_unknown(value, inner, here)
            if get_origin(inner) is list and _is_struct(get_args(inner)[0]) and isinstance(value, list):
                for number, entry in enumerate(value):
                    if isinstance(entry, dict):
                        self._refuse_unknown(entry, get_args(inner)[0], (*here, number))

    def _syntax_error(self, message: str) -> str:
        what, _, place = message.rpartition(" (at ")
        found = re.search(r"line (\d+), column (\d+)", place)
        if found is not None:
            line, column = int(found[1]), int(found[2])
        else:
            what = what or message
            lines = self.text.split("\n")
            line, column = len(lines), len(lines[-1]) + 1
        return f"{self.name}:{line}:{column}: not valid TOML: {what[:1].lower()}{what[1:]}"


def read_text(path: Path, error: type[TomlError], called: str) -> str:
    """The text of a small file; `called` says what it should be.

    Raises:
        TomlError: as `error`: it cannot be read, is too large, or is not UTF-8.
    """
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as failure:
        raise error(f"{path}: cannot be read: {failure.strerror}") from None
    if len(content) > MAX_BYTES:
        raise error(f"{path.name}: larger than 1 MB; this is not a {called}")
    try:
        return content.decode()
    except UnicodeDecodeError as failure:
        line = content.count(b"\n", 0, failure.start) + 1
        column = failure.start - (content.rfind(b"\n", 0, failure.start) + 1) + 1
        raise error(f"{path.name}:{line}:{column}: not UTF-8 text; save it as UTF-8") from None


def nearest(word: str, known: Iterable[str], otherwise: str) -> str:
    """A hint for a wrong word: the nearest right one, or all of them after `otherwise`."""
    words = list(known)
    near = difflib.get_close_matches(word, words, n=1, cutoff=0.6)
    return f"did you mean {near[0]}?" if near else f"{otherwise}: {', '.join(words)}"


def _path(where: str) -> Key:
    """The keys in msgspec's `rule[2].then`."""
    parts = re.findall(r"([^.\[\]]+)|\[(\d+)\]", where)
    return tuple(int(number) if number else name for name, number in parts)


def _bare(hint: Any) -> Any:
    """A type without `| None`."""
    kinds = [kind for kind in get_args(hint) if kind is not type(None)]
    optional = len(kinds) == 1 and len(get_args(hint)) == 2 and get_origin(hint) is not list
    return kinds[0] if optional and get_origin(hint) is not Literal else hint


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _is_struct(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def _hint(kind: Any, path: Key) -> Any:
    """The type of what stands at `path` in a struct; None where it cannot be told."""
    for part in path:
        kind = _bare(kind)
        if isinstance(part, int):
            kind = get_args(kind)[0] if get_origin(kind) is list else None
        else:
            kind = _hints(kind).get(part) if _is_struct(kind) else None
    return _bare(kind)


_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "str": 'text in "quotes"',
    "bool": "true or false",
    "array": "a list in [brackets]",
    "object": "a [table]",
    "datetime": "a date such as 2030-12-31, without quotes",
    "date": "a date",
    "time": "a time",
}


def _plain(message: str, hint: Any) -> str:
    """msgspec's message in the words of somebody who edits a file."""
    message = message.replace(" | null`", "`")
    if message.startswith("Invalid enum value"):
        value = message.removeprefix("Invalid enum value ").replace("`", "")[:60]
        known = [str(choice) for choice in get_args(hint)]
        near = difflib.get_close_matches(value.strip("'"), known, n=1, cutoff=0.6)
        choices = ", ".join(f'"{choice}"' for choice in known)
        return f"{value} is not one of {choices}" + (f"; did you mean {near[0]}?" if near else "")
    if message.startswith("Object missing required field"):
        return f"{message.removeprefix('Object missing required field ').replace('`', '')} is missing"
    found = re.fullmatch(r"Expected `(\w+)`(?:, got `(\w+)`| (<=|>=|<|>) (\S+))", message)
    if found is None:
        return message.replace("`", "")
    wanted, got, sign, bound = found.groups()
    if got is not None:
        return f"must be {_KINDS.get(wanted, wanted)}, not {_KINDS.get(got, got)}"
    words = {"<=": "at most", ">=": "at least", "<": "less than", ">": "more than"}
    return f"must be {words[sign]} {float(bound):g}"


_KEY = r"""(?:[A-Za-z0-9_-]+|"[^"\n]*"|'[^'\n]*')"""
_PATH = rf"{_KEY}(?:\s*\.\s*{_KEY})*"
_LONG_KEY = re.compile(rf"(?<![A-Za-z0-9_-]){_KEY}(?:[ \t]*\.[ \t]*{_KEY}){{{MOST_PARTS}}}")
_HEADER = re.compile(rf"\s*(\[\[?)\s*({_PATH})\s*\]")
_ASSIGNMENT = re.compile(rf"\s*()({_PATH})\s*=")


class _Line(msgspec.Struct, frozen=True):
    """A line that names something: where it stands, the column (from 0) of each part that is written here, the end."""

    number: int
    path: Key
    columns: dict[int, int]
    rest: int


def position(text: str, path: Key) -> tuple[int, int]:
    """Line and column, from 1, of a key; of the nearest table around it where it cannot be told (inline tables)."""
    lines = text.split("\n")
    best, place = -1, (1, 1)
    for line in _lines(lines):
        depth = min(len(line.path), len(path))
        if line.path[:depth] != path[:depth] or depth <= best:
            continue
        column = line.columns.get(depth - 1, 0)
        missing = path[len(line.path) :]
        if missing and not any(isinstance(part, int) for part in missing):
            inline = re.search(rf"\b{re.escape(str(missing[-1]))}\s*=", lines[line.number - 1][line.rest :])
            column = line.rest + inline.start() if inline is not None else column
        best, place = depth, (line.number, column + 1)
    return place


def _lines(lines: list[str]) -> Iterator[_Line]:
    table: Key = ()
    counts: dict[Key, int] = {}
    for number, line in enumerate(lines, start=1):
        header = _HEADER.match(line)
        found = header or _ASSIGNMENT.match(line)
        if found is None:
            continue
        parts = list(re.finditer(_KEY, found[2]))
        keys: Key = tuple(part.group().strip("\"'") for part in parts)
        above = () if header else table
        columns = {len(above) + n: found.start(2) + part.start() for n, part in enumerate(parts)}
        if header is None:
            yield _Line(number, (*above, *keys), columns, found.end())
            continue
        table = keys
        if header[1] == "[[":
            counts[keys] = counts.get(keys, -1) + 1
            table = (*keys, counts[keys])
            columns[len(keys)] = columns[len(keys) - 1]
        yield _Line(number, table, columns, found.end())
