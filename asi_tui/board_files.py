"""Leaderboards and answers to questions as files: CSV, Parquet, Markdown.

Text in them was written by models: in CSV no cell can be taken for a formula, in Markdown none for
markup.
"""

from __future__ import annotations

import csv
import io
import os
import re
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from asi_tui.safe import clean
from engine.client.protocol import BoardRow

KINDS = {".csv": "CSV", ".parquet": "Parquet", ".md": "Markdown"}

FORMULA = ("=", "+", "-", "@")

PLAIN_COLUMNS = tuple(name for name in BoardRow.__struct_fields__ if name != "tasks")

Cell = str | int | float | bool | None

_MARKUP = re.compile(r"([\\`*_\[\]<>|#~&!])")


class WriteError(Exception):
    """The file was not written; the message is one line."""


def harmless_cell(text: str) -> str:
    """Text that no spreadsheet runs: what would begin a formula begins with an apostrophe."""
    text = clean(text)
    return "'" + text if text.lstrip().startswith(FORMULA) else text


def board_table(rows: Sequence[BoardRow]) -> tuple[list[str], list[list[Cell]]]:
    """Heads and cells: all of a row, then per task the difference to the baseline and the noise of the task."""
    tasks = list(dict.fromkeys(gain.task for row in rows for gain in row.tasks))
    heads = [*PLAIN_COLUMNS, *(f"{what}:{task}" for task in tasks for what in ("difference", "noise"))]
    cells: list[list[Cell]] = []
    for row in rows:
        line: list[Cell] = [getattr(row, name) for name in PLAIN_COLUMNS]
        gains = {gain.task: gain for gain in row.tasks}
        for task in tasks:
            gain = gains.get(task)
            line += [gain.difference, gain.noise or None] if gain is not None else [None, None]
        cells.append(line)
    return heads, cells


def csv_text(heads: Sequence[str], cells: Sequence[Sequence[Cell]]) -> str:
    """CSV whose text cells are harmless; numbers stay numbers, what is not known is empty."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(harmless_cell(head) for head in heads)
    writer.writerows([harmless_cell(cell) if isinstance(cell, str) else cell for cell in line] for line in cells)
    return out.getvalue()


def markdown_text(heads: Sequence[str], cells: Sequence[Sequence[Cell]]) -> str:
    """A table in Markdown, in which nothing that a model wrote is markup."""

    def shown(cell: Cell) -> str:
        if cell is None:
            return ""
        if isinstance(cell, float):
            return f"{cell:.6g}"
        return _MARKUP.sub(r"\\\1", clean(cell)) if isinstance(cell, str) else str(cell)

    numeric = [any(isinstance(line[i], int | float) for line in cells[:50]) for i in range(len(heads))]
    rule = ["---:" if right else "---" for right in numeric]
    lines = [[shown(head) for head in heads], rule, *([shown(cell) for cell in line] for line in cells)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def parquet_bytes(heads: Sequence[str], cells: Sequence[Sequence[Cell]]) -> bytes:
    """Parquet, compressed; text as it is."""
    import pyarrow as pa  # slow to import: only who writes Parquet waits for it
    from pyarrow import parquet

    columns: dict[str, Any] = {}
    for index, head in enumerate(heads):
        values = [line[index] for line in cells]
        text = any(isinstance(value, str) for value in values)
        columns[head] = pa.array(values, type=pa.string() if text else None)
        if pa.types.is_null(columns[head].type):
            columns[head] = columns[head].cast(pa.float64())
    out = pa.BufferOutputStream()
    parquet.write_table(pa.table(columns), out, compression="zstd")
    return out.getvalue().to_pybytes()


def encode(kind: str, heads: Sequence[str], cells: Sequence[Sequence[Cell]]) -> bytes:
    """The bytes of a file of a kind, named by its suffix. Raises `WriteError` for one that is not known."""
    if kind == ".csv":
        return csv_text(heads, cells).encode()
    if kind == ".md":
        return markdown_text(heads, cells).encode()
    if kind == ".parquet":
        return parquet_bytes(heads, cells)
    raise WriteError(f"{kind or 'a name without an ending'} is no kind of file here; use {', '.join(KINDS)}")


def write_table(path: Path, heads: Sequence[str], cells: Sequence[Sequence[Cell]], replace: bool = False) -> int:
    """Write a file, complete or not at all; returns its size. An existing one is only replaced where that is asked for.

    Raises:
        WriteError: it was not written.
    """
    content = encode(path.suffix.lower(), heads, cells)
    temporary = ""
    try:
        if path.exists() and not replace:
            raise FileExistsError
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name[:40]}-", dir=path.parent)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        if replace:
            os.replace(temporary, path)
        else:
            os.link(temporary, path)  # fails where a file has come there meanwhile
    except FileExistsError:
        raise WriteError(f"{path} exists; end the name with ! to replace it") from None
    except OSError as error:
        raise WriteError(f"{path} was not written: {error.strerror or error}") from None
    finally:
        if temporary:
            with suppress(OSError):
                os.unlink(temporary)
    return len(content)
