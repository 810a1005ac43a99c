"""Adding to the library: a file of ours, or one of ASI-Arch's cognition base, checked before a byte is written."""

from __future__ import annotations

import json
import os
import re
import tempfile
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from cognition.library import Entry, LibraryError, inert, papers, parse, read_folder, read_plain

IMPORTED = "imported"
"""The tag of entries that were converted from another format."""
_REQUIRED = {field.name for field in msgspec.structs.fields(Entry) if field.required}
_TITLE = re.compile(r"\*\*Title(?::\*\*|\*\*:)\s*(.+)")
_ARXIV = re.compile(r"(\d{2})(\d{2})\.\d{4,5}")


class Foreign(msgspec.Struct, frozen=True):
    """One entry of ASI-Arch's cognition base."""

    DESIGN_INSIGHT: Annotated[str, Meta(min_length=1)]
    EXPERIMENTAL_TRIGGER_PATTERNS: Annotated[str, Meta(min_length=1)]
    BACKGROUND: str
    ALGORITHMIC_INNOVATION: str
    IMPLEMENTATION_GUIDANCE: str


def read_entries(path: Path) -> list[Entry]:
    """The entries of a TOML file of ours or a JSON file of ASI-Arch's.

    Raises:
        LibraryError: one line with the place that is wrong.
    """
    content = read_plain(path)
    if path.suffix != ".json":
        return [parse(content, path.name)]
    name = inert(path.name)[:120]
    try:
        json.loads(content)
        foreign = msgspec.json.decode(content, type=list[Foreign])
    except json.JSONDecodeError as error:
        raise LibraryError(f"{name}:{error.lineno}:{error.colno}: {error.msg}") from None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise LibraryError(f"{name}: {inert(str(error))[:300]}") from None
    if not foreign:
        raise LibraryError(f"{name}: holds no entry")
    return [_convert(one, path.stem, number) for number, one in enumerate(foreign, 1)]


def _convert(foreign: Foreign, stem: str, number: int) -> Entry:
    """What it says about effects on benchmarks is a conjecture, hence no evidence is taken over."""
    slug = re.sub(r"[^a-z0-9]+", "-", stem.casefold()).strip("-")[:60] or "paper"
    arxiv = _ARXIV.search(stem)
    title = _TITLE.search(foreign.BACKGROUND)
    year = 2000 + int(arxiv[1]) if arxiv else 0
    return Entry(
        identifier=f"imported-{slug}-{number}",
        title=inert(title[1] if title else foreign.DESIGN_INSIGHT)[:300],
        authors=[],
        year=year,
        arxiv=arxiv[0] if arxiv else "",
        scenario=inert(foreign.EXPERIMENTAL_TRIGGER_PATTERNS)[:8_000],
        mechanism=inert(foreign.ALGORITHMIC_INNOVATION)[:8_000],
        hints=inert(foreign.IMPLEMENTATION_GUIDANCE)[:8_000],
        tags=[IMPORTED],
    )


def dump(entry: Entry) -> str:
    """An entry as TOML that `parse` reads back."""
    lines = []
    for name in entry.__struct_fields__:
        value = getattr(entry, name)
        if value not in ("", []) or name in _REQUIRED:
            lines.append(f"{name} = {json.dumps(value, ensure_ascii=False)}")
    return "\n".join(lines) + "\n"


def add(path: Path, folder: Path) -> list[Entry]:
    """Check the file at `path` and copy its entries into `folder`, one file each; all or nothing.

    Raises:
        LibraryError: nothing was written.
    """
    entries = read_entries(path)
    taken = {entry.identifier for entry in (*papers(), *read_folder(folder)[0])}
    for entry in entries:
        if entry.identifier in taken or (folder / f"{entry.identifier}.toml").exists():
            raise LibraryError(f"{inert(path.name)[:120]}: identifier: {entry.identifier!r} is taken already")
        taken.add(entry.identifier)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".adding-") as staging:
            for entry in entries:
                (Path(staging) / entry.identifier).write_text(dump(entry))
            for entry in entries:
                os.replace(Path(staging) / entry.identifier, folder / f"{entry.identifier}.toml")
    except OSError as error:
        raise LibraryError(f"{folder}: {error.strerror}") from None
    return entries
