"""The one boundary between text that somebody else wrote and the terminal.

Models, candidate programs and training processes write what this terminal shows. To them the screen must be out of
reach: no markup (a `[@click=...]` would run an action), no control or escape characters (they would set the clipboard,
the title, or repaint the screen), no bidirectional or invisible characters (they would make a line read as what it is
not). `clean` turns each of them into a visible mark and bounds the length; `safe` makes content for stock widgets from
it; `ControlFilter` is the second wall, over everything that the whole app paints.
"""

from __future__ import annotations

import re

from rich.cells import cell_len
from rich.segment import Segment
from textual.color import Color
from textual.content import Content
from textual.filter import LineFilter

LIMIT = 2_000
"""Characters that one piece of text may have where the caller names no other bound."""

_INVISIBLE = (
    "\u00ad\u034f\u061c\u070f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U000110bd\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
_HOSTILE = re.compile(f"[\x00-\x1f\x7f-\x9f\ud800-\udfff{_INVISIBLE}]")
_STACKED = re.compile(
    "([\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f]{3})"
    "[\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f]+"
)


def _mark(match: re.Match[str]) -> str:
    code = ord(match.group())
    if code == 0x09:
        return "    "
    if code < 0x20:
        return chr(0x2400 + code)
    if code == 0x7F:
        return "\u2421"
    return f"⟨{code:x}⟩"


def clean(text: str, limit: int = LIMIT) -> str:
    """Return one line of inert text of at most `limit` characters; what was cut off is marked by `…`.

    Tabs become spaces, line ends and every other control character become their visible picture (`␛`, `␊`), C1, bidi
    and invisible characters and lone surrogates become their code in brackets (`⟨202e⟩`), and no more than three
    combining marks stay on a letter.
    """
    cut = text[:limit]
    if not cut.isascii() or not cut.isprintable():
        cut = _STACKED.sub(r"\1", _HOSTILE.sub(_mark, cut))
    if len(text) > limit or len(cut) > limit:
        return cut[: max(0, limit - 1)] + "…"
    return cut


def clean_lines(text: str, limit: int = 200_000, line_limit: int = LIMIT) -> list[str]:
    """Split text at its line ends and clean each line; at most `limit` characters are read."""
    lines = text[:limit].replace("\r\n", "\n").split("\n")
    if len(text) > limit:
        lines.append(f"… {len(text) - limit:,} more characters are not shown")
    return [clean(line, line_limit) for line in lines]


def safe(text: str, limit: int = LIMIT) -> Content:
    """Content for a stock widget: cleaned, bounded, and never parsed as markup."""
    return Content(clean(text, limit))


class ControlFilter(LineFilter):
    """Replaces every hostile character that reaches a painted line, whoever forgot to clean it."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        """Return the segments with each hostile character replaced by `�`; clean segments pass untouched."""
        return [
            Segment(_HOSTILE.sub("\ufffd", segment.text), segment.style) if _HOSTILE.search(segment.text) else segment
            for segment in segments
        ]


_ASCII = str.maketrans(
    {"─": "-", "━": "=", "╍": "-", "┈": ".", "│": "|", "┤": "|", "├": "|", "└": "`", "┌": ",", "▸": ">", "▾": "v",
     "●": "*", "○": "o", "■": "#", "█": "#", "▓": "#", "░": ".", "▏": "_", "…": "~", "★": "*", "✓": "+", "✗": "x",
     "×": "x", "±": "~", "–": "-", "→": ">", "←": "<", "↑": "^", "↓": "v", "·": ".", "•": "*", "“": '"', "”": '"',
     "Δ": "d", "≈": "~", "≤": "<", "≥": ">", "°": " ", "▁": "_", "▂": "_", "▃": "-", "▄": "-", "▅": "=",
     "▆": "=", "▇": "#"}
)  # fmt: skip


def to_ascii(text: str) -> str:
    """The text with every character that has one replaced by its nearest ASCII sign, all others by `?`.

    Every cell stays a cell: a braille dot pattern becomes `:`, a wide character two signs.
    """
    if text.isascii():
        return text
    out = []
    for character in text.translate(_ASCII):
        if character.isascii():
            out.append(character)
        elif "\u2800" <= character <= "\u28ff":
            out.append(" " if character == "\u2800" else ":")
        else:
            out.append("?" * cell_len(character))
    return "".join(out)


class AsciiFilter(LineFilter):
    """For terminals without Unicode: lines, dots and signs in ASCII."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        """Return the segments in ASCII, each cell in its place."""
        return [Segment(to_ascii(segment.text), segment.style) for segment in segments]


class ColourlessFilter(LineFilter):
    """For `NO_COLOR`: not even the terminal's own colours are set; bold, dim and reverse stay."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        """Return the segments without any colour."""
        return [Segment(text, style and style.without_color, control) for text, style, control in segments]
