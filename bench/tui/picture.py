"""What a terminal shows, from the bytes that it is sent: only as much of a terminal as the app uses.

Places the cursor, writes text, clears; keeps for every cell its character and the colours it is written in. Everything
else (modes, titles, queries) is skipped.
"""

from __future__ import annotations

import codecs
import re

from rich.cells import get_character_cell_size

_PIECE = re.compile(
    r"\x1b\[(?P<private>[?<>=]?)(?P<numbers>[\d;:$ ]*)(?P<final>[@-~])"
    r"|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)"
    r"|\x1b[P_^][^\x1b]*\x1b\\"
    r"|\x1b[()][A-Za-z0-9]|\x1b[=>78cDEHM]"
    r"|(?P<control>[\x00-\x1a\x1c-\x1f])"
    r"|(?P<text>[^\x00-\x1f]+)"
)


class Picture:
    """A grid of cells that is fed with output."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self._cells = [[" "] * width for _ in range(height)]
        self._styles = [[""] * width for _ in range(height)]
        self._x = self._y = 0
        self._style = ""
        self._rest = ""
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode

    def feed(self, data: bytes) -> None:
        """Take output, cut anywhere."""
        text = self._rest + self._decode(data)
        done = 0
        while match := _PIECE.match(text, done):
            done = match.end()
            if match["text"]:
                self._write(match["text"])
            elif match["control"]:
                self._control(match["control"])
            elif match["final"] and not match["private"]:
                self._sequence(match["numbers"], match["final"])
        self._rest = text[done:][-4096:]

    def lines(self) -> list[str]:
        """The picture as text."""
        return ["".join(line) for line in self._cells]

    def text(self) -> str:
        """The picture as one text."""
        return "\n".join(self.lines())

    def lines_in(self, colour: str) -> list[int]:
        """Lines with a cell whose colours hold `colour`, as SGR numbers."""
        return [y for y, line in enumerate(self._styles) if any(colour in style for style in line)]

    def _write(self, text: str) -> None:
        for character in text:
            wide = get_character_cell_size(character)
            if self._x < self.width and self._y < self.height and wide:
                self._cells[self._y][self._x] = character
                self._styles[self._y][self._x] = self._style
            self._x += wide

    def _control(self, control: str) -> None:
        if control == "\n":
            self._y = min(self.height - 1, self._y + 1)
        elif control == "\r":
            self._x = 0

    def _sequence(self, numbers: str, final: str) -> None:
        if final == "m":
            self._style = "" if numbers in ("", "0") else numbers
        elif final in "Hf":
            row, _, column = numbers.partition(";")
            self._y, self._x = int(row or 1) - 1, int(column or 1) - 1
        elif final == "J":
            for line, styles in zip(self._cells, self._styles, strict=True):
                line[:], styles[:] = [" "] * self.width, [""] * self.width
