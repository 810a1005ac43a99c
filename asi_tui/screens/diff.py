"""Programs on the screen: whole, as a unified difference, or side by side, with notes below the lines they are about.

Changed lines are wrapped and not clipped: what would stand beyond the edge is what somebody might want to hide there.
"""

from __future__ import annotations

from itertools import zip_longest

from asi_tui.code import code_row
from asi_tui.difference import Difference, bounded, compare
from asi_tui.lines import Row, clip, pad, paragraph, row, wrap

Notes = dict[int, list[Row]]
"""Rows to show below a line of the new program, by its number."""

NUMBER = 7
"""Cells of a line's number and its sign."""

GAP = 3


class Pending:
    """Notes that have not found their place yet."""

    def __init__(self, notes: Notes | None, out: list[Row]) -> None:
        self._left = dict(sorted((notes or {}).items()))
        self._out = out

    def until(self, number: int) -> None:
        """Write those of all lines up to this one."""
        for known in [known for known in self._left if known <= number]:
            self._out.extend(self._left.pop(known))


def diff_rows(old: str, new: str, width: int, notes: Notes | None = None) -> list[Row]:
    """A unified difference of two programs; can take seconds where they are large."""
    return unified_rows(compare(old, new), width, notes)


def unified_rows(found: Difference, width: int, notes: Notes | None = None) -> list[Row]:
    """A unified difference with line numbers of the new program; sign and colour mark what is added and removed.

    Notes of lines outside the hunks are shown where their number would be.
    """
    out = _cut(found.cut, width)
    pending = Pending(notes, out)
    for hunk in found.hunks:
        pending.until(hunk[0][3])
        out.append(_hunk_head(hunk[0][3] + 1, hunk[-1][4]))
        for tag, i1, i2, j1, j2 in hunk:
            if tag != "equal":
                for line in found.before[i1:i2]:
                    out += _changed(0, "-", line, "removed", width)
            for number, line in enumerate(found.after[j1:j2], j1 + 1):
                out += (
                    [clip(_same(number, line), width)]
                    if tag == "equal"
                    else _changed(number, "+", line, "added", width)
                )
                pending.until(number)
    if not found.hunks:
        out.append(row((" no difference", "dim")))
    pending.until(10**9)
    return out


def side_rows(found: Difference, width: int, notes: Notes | None = None) -> list[Row]:
    """The old program at the left and the new one at the right, with the numbers of each; notes in full width."""
    left_width = (width - GAP) // 2
    right_width = width - GAP - left_width
    out = _cut(found.cut, width)
    pending = Pending(notes, out)
    for hunk in found.hunks:
        pending.until(hunk[0][3])
        out.append(_hunk_head(hunk[0][3] + 1, hunk[-1][4]))
        for tag, i1, i2, j1, j2 in hunk:
            left = [(number, line) for number, line in enumerate(found.before[i1:i2], i1 + 1)]
            right = [(number, line) for number, line in enumerate(found.after[j1:j2], j1 + 1)]
            for old, new in zip_longest(left, right):
                pair = zip_longest(_side(old, tag, "-", "removed", left_width),
                                   _side(new, tag, "+", "added", right_width), fillvalue=())  # fmt: skip
                out += [(*pad(before, left_width), (" │ ", "faint"), *after) for before, after in pair]
                if new is not None:
                    pending.until(new[0])
    if not found.hunks:
        out.append(row((" no difference", "dim")))
    pending.until(10**9)
    return out


def _side(one: tuple[int, str] | None, tag: str, sign: str, style: str, width: int) -> list[Row]:
    if one is None:
        return []
    number, line = one
    return [clip(_same(number, line), width)] if tag == "equal" else _changed(number, sign, line, style, width)


def source_rows(text: str, width: int, notes: Notes | None = None) -> list[Row]:
    """A whole program with line numbers and coloured syntax."""
    found = bounded(text)
    out = _cut(found.cut, width)
    for number, line in enumerate(found.lines, start=1):
        if len(line) <= width - NUMBER:
            out.append(clip((*row((f" {number:4}  ", "faint")), *code_row(line)), width))
        else:
            out += _wrapped(f" {number:4}  ", line, "", width)
        out += (notes or {}).get(number, [])
    return out


def _cut(words: str, width: int) -> list[Row]:
    return paragraph(words, width, "bad") if words else []


def _hunk_head(first: int, last: int) -> Row:
    return row((f" lines {first}–{last}", "accent"))


def _same(number: int, line: str) -> Row:
    return (*row((f" {number:>4}   ", "faint")), *code_row(line))


def _changed(number: int, sign: str, line: str, style: str, width: int) -> list[Row]:
    return _wrapped(f" {number or '':>4} {sign} ", line, style, width)


def _wrapped(head: str, line: str, style: str, width: int) -> list[Row]:
    pieces = wrap(line, width - len(head))
    heads = [head, *[" " * len(head)] * (len(pieces) - 1)]
    rows = [row((start, style or "faint"), (piece, style)) for start, piece in zip(heads, pieces, strict=True)]
    return [pad(one, width, style) if style else one for one in rows]
