"""Changes to a program as search/replace blocks: exact, and each one must fit exactly one place."""

from __future__ import annotations

import difflib
import re

import msgspec

MAX_EDITS = 40
_MARK = re.compile(r"(?:(<{5,9}) ?SEARCH|(={5,9})[ \t]*$|(>{5,9}) ?REPLACE)")


class Edit(msgspec.Struct, frozen=True):
    """Replace the only occurrence of `search` by `replace`."""

    search: str
    replace: str = ""


class EditError(ValueError):
    """An edit does not apply; the message is evidence for whoever wrote it."""


def blocks(text: str) -> list[Edit]:
    """The SEARCH/REPLACE blocks of a text."""
    found: list[Edit] = []
    parts: list[list[str]] = []
    for line in text.split("\n"):
        mark = _MARK.match(line)
        if mark is not None and mark[1]:
            parts = [[]]
        elif mark is not None and mark[2] and len(parts) == 1:
            parts.append([])
        elif mark is not None and mark[3] and len(parts) == 2:
            found.append(Edit("\n".join(parts[0]), "\n".join(parts[1])))
            parts = []
        elif parts:
            parts[-1].append(line)
    return found


def apply(program: str, edits: list[Edit]) -> str:
    """The program with every edit made, in order.

    Raises:
        EditError: an edit is empty, fits nowhere or in several places, or nothing changes.
    """
    if len(edits) > MAX_EDITS:
        raise EditError(f"{len(edits)} edits; at most {MAX_EDITS} are taken, write the whole program instead")
    changed = program
    for number, edit in enumerate(edits, 1):
        found = changed.count(edit.search) if edit.search else 0
        if found != 1:
            raise EditError(f"edit {number} of {len(edits)}: {_why(changed, edit.search, found)}")
        changed = changed.replace(edit.search, edit.replace, 1)
    if changed == program:
        raise EditError("the edits change nothing")
    return changed


def _why(program: str, search: str, found: int) -> str:
    if not search.strip():
        return "its search text is empty"
    shown = _short(search)
    if found > 1:
        return f"its search text {shown} stands in {found} places; add lines around it until there is only one"
    first = next(line for line in search.splitlines() if line.strip())
    near = difflib.get_close_matches(first, program.splitlines()[:2_000], n=1, cutoff=0.6)
    hint = f"; the nearest line there is {_short(near[0])}" if near else ""
    return f"its search text {shown} is not in the program, to the letter{hint}"


def _short(text: str) -> str:
    return repr(text if len(text) <= 160 else text[:157] + "...")
