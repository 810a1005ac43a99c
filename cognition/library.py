"""The library: what is known from papers, one TOML file each, and what a person or a run adds to it.

Files may come from anywhere: they are read within bounds, checked against the schema, and their text is made inert.
A name inside a file is never used as a path unless it is an identifier.
"""

from __future__ import annotations

import functools
import os
import re
import stat
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

IDENTIFIER = r"^[a-z0-9-]{3,80}\Z"
MOST_BYTES = 1024 * 1024
MOST_FILES = 2_000
_PLACE = re.compile(r"^(.*?) ?\(at line (\d+), column (\d+)\)$", re.S)

Identifier = Annotated[str, Meta(pattern=IDENTIFIER)]
Line = Annotated[str, Meta(max_length=400)]
Text = Annotated[str, Meta(max_length=8_000)]
Word = Annotated[str, Meta(max_length=60)]


class LibraryError(Exception):
    """A file cannot be used; one line: where and what is wrong."""


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a paper says to a designer of mixers.

    scenario: which symptoms in results should bring it to mind. mechanism: the recurrence, in the notation of the
    building blocks. evidence: what was measured and at which scale. block: the building block or baseline that realises
    it, if there is one. contradicted_by: entries with evidence against this one.
    """

    identifier: Identifier
    title: Annotated[str, Meta(min_length=1, max_length=400)]
    authors: Annotated[list[Line], Meta(max_length=50)]
    year: Annotated[int, Meta(ge=0, le=2200)]
    scenario: Annotated[str, Meta(min_length=1, max_length=8_000)]
    mechanism: Text
    evidence: Text = ""
    preconditions: Text = ""
    failures: Text = ""
    hints: Text = ""
    arxiv: Annotated[str, Meta(pattern=r"^(\d{4}\.\d{4,5})?\Z")] = ""
    block: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_]{0,80}\Z")] = ""
    tags: Annotated[list[Word], Meta(max_length=30)] = []
    contradicted_by: Annotated[list[Identifier], Meta(max_length=50)] = []


def inert(text: str) -> str:
    """One paragraph without characters that could act on a terminal or hide what is written."""
    return "".join(c if c.isprintable() else "\ufffd" for c in " ".join(text.split()))


def parse(content: bytes, name: str) -> Entry:
    """An entry from the bytes of a TOML file.

    Raises:
        LibraryError: with line and column, or with the field that is wrong.
    """
    name = inert(name)[:120]
    if len(content) > MOST_BYTES:
        raise LibraryError(f"{name}: larger than {MOST_BYTES >> 10} KiB")
    try:
        data = tomllib.loads(content.decode())
        return msgspec.convert(_inert_all(data), Entry)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        column = error.start - content.rfind(b"\n", 0, error.start)
        raise LibraryError(f"{name}:{line}:{column}: not UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        place = _PLACE.match(str(error))
        line, column = content.count(b"\n") + 1, len(content) - content.rfind(b"\n")
        where = f"{place[2]}:{place[3]}: {place[1]}" if place else f"{line}:{column}: {error}"
        raise LibraryError(f"{name}:{inert(where)[:200]}") from None
    except msgspec.ValidationError as error:
        raise LibraryError(f"{name}: {inert(str(error))[:300]}") from None
    except RecursionError:
        raise LibraryError(f"{name}: nested too deeply") from None


def _inert_all(value: object) -> object:
    if isinstance(value, str):
        return inert(value)
    if isinstance(value, list):
        return [_inert_all(item) for item in value]
    if isinstance(value, dict):
        return {inert(key): _inert_all(item) for key, item in value.items()}
    return value


def read_plain(path: Path) -> bytes:
    """The bytes of a plain file within bounds; no link is followed.

    Raises:
        LibraryError: it cannot be read, is no plain file, or is too large.
    """
    name = inert(path.name)[:120]
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise LibraryError(f"{name}: {error.strerror}") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise LibraryError(f"{name}: not a plain file")
    with os.fdopen(descriptor, "rb") as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise LibraryError(f"{name}: larger than {MOST_BYTES >> 10} KiB")
    return content


def read_folder(folder: Path) -> tuple[list[Entry], list[str]]:
    """The entries of a folder by name of file, and one line for each file that could not be used."""
    entries: list[Entry] = []
    problems: list[str] = []
    try:
        paths = sorted(path for path in folder.iterdir() if path.suffix == ".toml" and not path.name.startswith("."))
    except OSError:
        return [], []
    for path in paths[:MOST_FILES]:
        try:
            entries.append(parse(read_plain(path), path.name))
        except LibraryError as error:
            problems.append(str(error))
    return entries, problems


@functools.cache
def papers() -> tuple[Entry, ...]:
    """The entries that come with the program."""
    return tuple(read_folder(Path(__file__).parent / "library")[0])


def user_folder() -> Path:
    """Where a person's own entries lie: `$XDG_DATA_HOME/asi/cognition`, by default under `~/.local/share`."""
    data_home = os.environ.get("XDG_DATA_HOME", "")
    base = Path(data_home) if os.path.isabs(data_home) else Path.home() / ".local" / "share"
    return base / "asi" / "cognition"


def load(folders: Iterable[Path] = ()) -> tuple[list[Entry], list[str]]:
    """The program's entries and those of more folders; an identifier that is taken already is a problem."""
    entries = {entry.identifier: entry for entry in papers()}
    problems: list[str] = []
    for folder in folders:
        found, wrong = read_folder(folder)
        problems += wrong
        for entry in found:
            if entry.identifier in entries:
                problems.append(f"{entry.identifier}: this identifier is taken already")
            else:
                entries[entry.identifier] = entry
    return list(entries.values()), problems
