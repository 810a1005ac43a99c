"""Long texts without long waits: raw lines are kept, and only those in view are cleaned and wrapped.

A place in a text is a line and a wrapped piece of it, never a count of wrapped rows: nobody has to know how high a
hundred thousand lines are to show fifty of them.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple, Protocol

from rich.cells import cell_len, get_character_cell_size

from asi_tui.lines import Row
from asi_tui.safe import clean

LINE_LIMIT = 4_000
"""Characters of one line that are kept; the rest is counted."""

MOST_LINES = 200_000
MOST_CHARACTERS = 16_000_000
NARROWEST = 8


class LongText:
    """Lines of a text that may grow at its end and is cut at its beginning when it gets too long."""

    def __init__(self, text: str = "", lines: int = MOST_LINES, characters: int = MOST_CHARACTERS) -> None:
        self.lines: list[str] = []
        self.dropped = 0
        self.characters = 0
        self._most_lines, self._most_characters = lines, characters
        self._open = False  # the last line may go on
        self._lost = 0  # characters of the last line that are not kept
        if text:
            self.append(text)

    def __len__(self) -> int:
        return len(self.lines)

    def append(self, text: str) -> None:
        """Take more text; what is there already is not touched, but for the line that it goes on."""
        first, *rest = text.replace("\r\n", "\n").split("\n")
        if self._open and self.lines:
            self._continue(first)
        elif first or rest:
            self._begin(first)
        if rest:
            self._finish()
            last = rest.pop()
            whole = [one if len(one) <= LINE_LIMIT else _bounded(one) for one in rest]
            self.lines += whole
            self.characters += sum(map(len, whole))
            if last:
                self._begin(last)
            self._open = bool(last)
        elif first:
            self._open = True
        self._cut()

    def _begin(self, piece: str) -> None:
        self.lines.append(piece[:LINE_LIMIT])
        self._lost = max(0, len(piece) - LINE_LIMIT)
        self.characters += min(len(piece), LINE_LIMIT)

    def _continue(self, piece: str) -> None:
        room = max(0, LINE_LIMIT - len(self.lines[-1]))
        if room:
            self.lines[-1] += piece[:room]
        self._lost += max(0, len(piece) - room)
        self.characters += min(len(piece), room)

    def _finish(self) -> None:
        if self._lost:
            self.lines[-1] += f" … {self._lost:,} more characters"
            self._lost = 0

    def _cut(self) -> None:
        over = len(self.lines) - self._most_lines
        if over <= 0 and self.characters <= self._most_characters:
            return
        # An eighth at a time, so that a full text does not move all its lines for each one that comes.
        count = max(over, 0) + len(self.lines) // 8
        self.characters -= sum(map(len, self.lines[:count]))
        del self.lines[:count]
        self.dropped += count

    def line(self, index: int) -> str:
        """One line, with a mark where some of it is not kept."""
        if index == len(self.lines) - 1 and self._lost:
            return f"{self.lines[index]} … {self._lost:,} more characters"
        return self.lines[index]

    def text(self) -> str:
        """All that is kept."""
        return "\n".join(self.lines)


def _bounded(line: str) -> str:
    return f"{line[:LINE_LIMIT]} … {len(line) - LINE_LIMIT:,} more characters"


def pieces_of(text: str, width: int) -> list[str]:
    """One raw line as clean pieces of at most `width` cells, broken at spaces where there are some."""
    width = max(NARROWEST, width)
    line = clean(text, LINE_LIMIT + 40)  # the mark of what is not kept is part of it
    plain = line.isascii()
    out: list[str] = []
    start = 0
    while start < len(line):
        end = start + width if plain else _reach(line, start, width)
        if end >= len(line):
            break
        space = line.rfind(" ", start + (end - start) // 2, end)
        end = space + 1 if space > 0 else end
        out.append(line[start:end].rstrip())
        start = end
    out.append(line[start:])
    return out


def _reach(line: str, start: int, width: int) -> int:
    """How far `width` cells reach, at least one character."""
    taken = 0
    for index in range(start, len(line)):
        taken += get_character_cell_size(line[index])
        if taken > width:
            return max(index, start + 1)
    return len(line)


class Line(NamedTuple):
    """A line to be drawn: what stands before its first piece and before the others, its raw text, its style.

    A line with `row` is drawn as that and not wrapped.
    """

    text: str
    style: str = ""
    gutter: Row = ()
    rest: Row = ()
    row: Row | None = None


class Item(Protocol):
    """A part of a document."""

    key: str

    def __len__(self) -> int:
        """How many raw lines it has now."""

    @property
    def dropped(self) -> int:
        """How many lines it has lost at its beginning: their places do not change."""

    def line(self, index: int) -> Line:
        """One of them."""

    def raw(self, index: int) -> str:
        """Its text alone, for searching."""


class Place(NamedTuple):
    """Where the top of the view is: an item, one of its lines as counted from its first ever, a piece of it."""

    item: str = ""
    line: int = 0
    piece: int = 0


class Document:
    """Items below each other, with the lines of all counted through."""

    def __init__(self, items: Sequence[Item]) -> None:
        self.items = items
        self.ends = list(accumulate(len(item) for item in items))
        self._index = {item.key: number for number, item in enumerate(items)}

    @property
    def total(self) -> int:
        """Raw lines of all items."""
        return self.ends[-1] if self.ends else 0

    def start(self, number: int) -> int:
        """The first line of an item."""
        return self.ends[number - 1] if number else 0

    def find_item(self, key: str) -> int | None:
        """The number of an item."""
        return self._index.get(key)

    def at(self, line: int) -> tuple[int, int]:
        """The item that a line belongs to, and which of its lines that is."""
        number = bisect_right(self.ends, line)
        return number, line - self.start(number)

    def line(self, line: int) -> Line:
        """One line of all."""
        number, index = self.at(line)
        return self.items[number].line(index)

    def place(self, line: int, piece: int = 0) -> Place:
        """A line as a place that stays with its text."""
        if not self.total:
            return Place()
        number, index = self.at(max(0, min(self.total - 1, line)))
        return Place(self.items[number].key, index + self.items[number].dropped, piece)

    def resolve(self, place: Place) -> tuple[int, int]:
        """The line and piece that a place is now; the beginning where its item is gone."""
        number = self._index.get(place.item)
        if number is None or not len(self.items[number]):
            return 0, 0
        index = place.line - self.items[number].dropped
        inside = max(0, min(len(self.items[number]) - 1, index))
        return self.start(number) + inside, place.piece if inside == index else 0

    # --- rows ------------------------------------------------------------------------------------------------------

    def rows_of(self, line: int, width: int) -> list[Row]:
        """One line, cleaned and wrapped."""
        found = self.line(line)
        if found.row is not None:
            return [found.row]
        room = width - sum(cell_len(text) for text, _ in found.gutter)
        return [
            (*(found.rest if number else found.gutter), (piece, found.style))
            for number, piece in enumerate(pieces_of(found.text, room))
        ]

    def rows(self, line: int, piece: int, width: int, height: int) -> list[tuple[int, Row]]:
        """At most `height` rows from a place on, each with the line that it belongs to."""
        out: list[tuple[int, Row]] = []
        while len(out) < height and line < self.total:
            out += [(line, one) for one in self.rows_of(line, width)[piece:]]
            line, piece = line + 1, 0
        return out[:height]

    def move(self, line: int, piece: int, by: int, width: int) -> tuple[int, int]:
        """The place `by` rows further down, or up; stays inside."""
        if not self.total:
            return 0, 0
        piece += by
        while piece < 0:
            if line == 0:
                return 0, 0
            line -= 1
            piece += len(self.rows_of(line, width))
        while piece >= (high := len(self.rows_of(line, width))):
            if line == self.total - 1:
                return line, high - 1
            line, piece = line + 1, piece - high
        return line, piece

    def last(self, width: int, height: int) -> tuple[int, int]:
        """The place from which the end of the text fills the view."""
        if not self.total:
            return 0, 0
        end = self.total - 1
        return self.move(end, len(self.rows_of(end, width)) - 1, 1 - height, width)

    def search(self, words: str, line: int, step: int) -> int | None:
        """The next line after (or, with -1, before) `line` that reads `words` in any case; goes round once."""
        folded, total = words.lower(), self.total
        for offset in range(1, total + 1):
            at = (line + step * offset) % total
            number = bisect_right(self.ends, at)
            if folded in self.items[number].raw(at - self.start(number)).lower():
                return at
        return None
