"""A signed kill, left beside the latch for the next engine; lifting the latch removes it. Standard library only."""

from __future__ import annotations

import json
from pathlib import Path

from engine.client.records import read_regular, write_first
from engine.client.rundir import RunPaths

MAX_SIGNATURE_BYTES = 1 << 17


def write_kill_signature(root: Path, statement: str, signature: str) -> str:
    """Leave a signed kill beside its latch, for the next engine to put on record; the first one is kept.

    Returns what went wrong, empty if nothing.
    """
    content = json.dumps({"statement": statement, "signature": signature}).encode() + b"\n"
    return write_first(RunPaths(root).kill_signature, content)


def read_kill_signature(root: Path) -> tuple[str, str] | None:
    """Statement and signature that were left beside the latch, unchecked; None where there is nothing that is both."""
    try:
        found = json.loads(read_regular(RunPaths(root).kill_signature, MAX_SIGNATURE_BYTES)[0])
        statement, signature = found["statement"], found["signature"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    if len(found) != 2 or not (isinstance(statement, str) and isinstance(signature, str)):
        return None
    return statement.encode("utf-8", "replace").decode(), signature.encode("utf-8", "replace").decode()
