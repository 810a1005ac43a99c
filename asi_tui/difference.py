"""How two programs differ, within bounds: a pair of any size costs a thread some seconds and the screen nothing."""

from __future__ import annotations

import difflib
from collections import Counter
from itertools import takewhile
from typing import NamedTuple

from asi_tui.safe import LIMIT, clean

MOST_LINES = 4_000
MOST_CHARACTERS = 200_000
"""So much of a program is shown; a program that passes the vetting is smaller."""

CONTEXT = 3
"""Unchanged lines around each change."""

MOST_PAIRS = 200_000
"""Equal pairs of lines up to which all are looked at; beyond, lines that stand everywhere place nothing."""

Step = tuple[str, int, int, int, int]
"""`equal`, `replace`, `delete` or `insert`, and the lines before and after that it is about."""


class Text(NamedTuple):
    """The lines of a program, clean; `cut` says in words what is left out, empty where nothing is."""

    lines: list[str]
    cut: str


class Difference(NamedTuple):
    """Two programs and where they differ."""

    before: list[str]
    after: list[str]
    hunks: list[list[Step]]
    cut: str


def bounded(text: str) -> Text:
    """The beginning of a program, cleaned line by line."""
    pieces = text[:MOST_CHARACTERS].replace("\r\n", "\n").split("\n", MOST_LINES)
    cut = ""
    if len(pieces) > MOST_LINES or len(text) > MOST_CHARACTERS:
        shown = f"{min(len(pieces), MOST_LINES):,} lines"
        cut = f"CUT: {shown} are shown of a program of {len(text):,} characters; nobody can read the rest here"
    elif any(len(piece) > LIMIT for piece in pieces):
        cut = f"CUT: lines of more than {LIMIT:,} characters are shown only to there"
    return Text([clean(piece) for piece in pieces[:MOST_LINES]], cut)


def compare(old: str, new: str) -> Difference:
    """How `new` differs from `old`. Pure and bounded, but it can take seconds: not for an event loop."""
    before, after = bounded(old), bounded(new)
    steps = _steps(before.lines, after.lines)
    return Difference(before.lines, after.lines, _hunks(steps), after.cut or before.cut)


def _steps(before: list[str], after: list[str]) -> list[Step]:
    head = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(before, after, strict=False)))
    ends = zip(reversed(before[head:]), reversed(after[head:]), strict=False)
    tail = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], ends))
    old, new = before[head : len(before) - tail], after[head : len(after) - tail]
    counted = Counter(new)
    pairs = sum(number * counted[line] for line, number in Counter(old).items())
    matcher = difflib.SequenceMatcher(None, old, new, autojunk=pairs > MOST_PAIRS)
    steps: list[Step] = [("equal", 0, head, 0, head)] if head else []
    steps += [(tag, i1 + head, i2 + head, j1 + head, j2 + head) for tag, i1, i2, j1, j2 in matcher.get_opcodes()]
    if tail:
        steps.append(("equal", len(before) - tail, len(before), len(after) - tail, len(after)))
    return steps


def _hunks(steps: list[Step]) -> list[list[Step]]:
    """The changes with some unchanged lines around them, near ones together."""
    hunks: list[list[Step]] = [[]]
    for index, (tag, i1, i2, j1, j2) in enumerate(steps):
        if tag != "equal":
            hunks[-1].append((tag, i1, i2, j1, j2))
            continue
        first, last = index == 0, index == len(steps) - 1
        before, after = 0 if first else CONTEXT, 0 if last else CONTEXT
        if i2 - i1 <= before + after:
            hunks[-1].append((tag, i1, i2, j1, j2))
            continue
        if before:
            hunks[-1].append((tag, i1, i1 + before, j1, j1 + before))
        hunks.append([(tag, i2 - after, i2, j2 - after, j2)] if after else [])
    return [hunk for hunk in hunks if any(step[0] != "equal" for step in hunk)]
