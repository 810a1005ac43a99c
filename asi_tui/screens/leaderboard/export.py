"""Exports: all rows that the condition lets through, into a file that the person names."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from asi_tui import words
from asi_tui.board_files import KINDS, Cell, WriteError, board_table, write_table
from asi_tui.collect import CollectError, View, all_rows
from asi_tui.screens.keys import Question

if TYPE_CHECKING:
    from asi_tui.screens.base import Watch

SAY_SECONDS = 0.5


def ask_path(screen: Watch, what: str, name: str, answer: Callable[[Path, bool], None]) -> None:
    """Ask where to write; `answer` gets the path and whether an existing file may be replaced."""

    def typed(text: str) -> None:
        path, replace = destination(text)
        if not text:
            screen.say("not exported: no name")
        elif path.suffix.lower() not in KINDS:
            screen.say(f"not exported: the name must end in {', '.join(KINDS)}", bad=True)
        else:
            answer(path, replace)

    screen.put(
        Question(f"write {what} to (.csv .parquet .md):", typed, "write to:", typed=name, dropped="not exported")
    )


def destination(text: str) -> tuple[Path, bool]:
    """A path as it was typed, and whether it may be replaced: that is what a `!` at the end says."""
    replace = text.endswith("!")
    return Path(os.path.expanduser(text.removesuffix("!").strip())), replace


def start_export(screen: Watch, view: View, path: Path, replace: bool) -> None:
    """Fetch and write in a worker; the footer says how far it is."""
    screen.asi.run_worker(_export(screen, view, path, replace), exit_on_error=True)


async def _export(screen: Watch, view: View, path: Path, replace: bool) -> None:
    said = 0.0

    def progress(done: int, total: int) -> None:
        nonlocal said
        if done < total and time.monotonic() - said > SAY_SECONDS:
            said = time.monotonic()
            screen.asi.tell(f"exporting: {done:,} of {total:,} rows …")

    try:
        if not replace and await asyncio.to_thread(path.exists):
            raise WriteError(f"{path} exists; end the name with ! to replace it")
        rows = await all_rows(screen.asi.connection, view, progress)
        heads, cells = await asyncio.to_thread(board_table, rows)
        await write_in_thread(screen, path, heads, cells, replace)
    except (CollectError, WriteError) as error:
        screen.asi.tell(f"not exported: {error}", bad=True)


async def write_in_thread(
    screen: Watch, path: Path, heads: Sequence[str], cells: Sequence[Sequence[Cell]], replace: bool
) -> None:
    """Write a table and say what was written. Raises `WriteError`."""
    size = await asyncio.to_thread(write_table, path, heads, cells, replace)
    screen.asi.tell(f"{words.plural(len(cells), 'row')} written to {path}, {words.size(size)}")
