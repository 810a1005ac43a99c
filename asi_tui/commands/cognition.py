"""`asi cognition list|show|search|add`: the library of papers, without a run and without an engine."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import msgspec

from asi_tui.commands.common import DONE, USAGE, CommandError, complain, find_run
from asi_tui.safe import clean
from cognition.adding import add as add_file
from cognition.embedding import LexicalEmbedding
from cognition.library import Entry, LibraryError, load, user_folder
from cognition.retrieval import Retriever, of_entry

FOUND = 10


def cognition(options: argparse.Namespace) -> int:
    """List, show, search or add entries."""
    return {"list": _list, "show": _show, "search": _search, "add": _add}[options.what](options)


def _entries() -> list[Entry]:
    entries, problems = load([user_folder()])
    for problem in problems[:5]:
        complain(f"left out: {problem}")
    return entries


def _print_json(value: object) -> None:
    """JSON in ASCII: a terminal acts on none of it."""
    print(json.dumps(msgspec.to_builtins(value)))


def _list(options: argparse.Namespace) -> int:
    entries = sorted(_entries(), key=lambda entry: entry.identifier)
    if options.json:
        _print_json(entries)
        return DONE
    width = max(len(entry.identifier) for entry in entries)
    for entry in entries:
        print(f"{entry.identifier:<{width}}  {entry.year or '    '}  {clean(entry.title, 90)}")
    return DONE


def _show(options: argparse.Namespace) -> int:
    entry = next((entry for entry in _entries() if entry.identifier == options.id), None)
    if entry is None:
        raise CommandError(f"there is no entry {options.id!r}; `asi cognition list` names all", USAGE)
    if options.json:
        _print_json(entry)
        return DONE
    print(clean(entry.title, 400))
    about = [", ".join(entry.authors), str(entry.year or ""), f"arXiv:{entry.arxiv}" if entry.arxiv else ""]
    print(clean("  ".join(part for part in about if part), 600))
    for name in ("scenario", "mechanism", "evidence", "preconditions", "failures", "hints", "block"):
        if value := getattr(entry, name):
            print(f"\n{name}\n  {clean(value, 8_000)}")
    for name in ("contradicted_by", "tags"):
        if values := getattr(entry, name):
            print(f"\n{name.replace('_', ' ')}\n  {clean(', '.join(values), 2_000)}")
    return DONE


def _search(options: argparse.Namespace) -> int:
    entries = {entry.identifier: entry for entry in _entries()}
    retriever = Retriever([of_entry(entry) for entry in entries.values()], LexicalEmbedding())
    hits = retriever.find(" ".join(options.words), FOUND)
    if options.json:
        _print_json(hits)
        return DONE
    if not hits:
        print("nothing found")
    for hit in hits:
        print(f"{hit.id}  {clean(entries[hit.id].title, 90)}\n    {clean(hit.why, 400)}")
    return DONE


def _add(options: argparse.Namespace) -> int:
    folder = user_folder() if options.run is None else find_run(options.run) / "cognition"
    try:
        added = add_file(Path(options.path), folder)
    except LibraryError as error:
        raise CommandError(f"nothing added: {error}", USAGE) from error
    what = "1 entry" if len(added) == 1 else f"{len(added)} entries"
    print(f"{what} added to {clean(str(folder), 300)}: {', '.join(entry.identifier for entry in added)}")
    return DONE
