"""Rows of styled text and the one widget that paints them.

A screen is a pure function from the model to rows; `Canvas` compares them with what is painted and repaints only the
lines that changed, so that the bytes sent to the terminal follow the information and not the area. All text enters
through `row` or `fit`, which clean it: nothing here is ever parsed as markup.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import zip_longest

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from rich.style import Style
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget

from asi_tui.safe import clean

Span = tuple[str, str]
"""A piece of clean text and the name of its style."""

Row = tuple[Span, ...]

BLANK: Row = ()

COLOURS: dict[str, Style] = {
    "": Style(color="#c9d1d6"),
    "dim": Style(color="#7f8b93"),
    "faint": Style(color="#4b565e"),
    "rule": Style(color="#39434b"),
    "strong": Style(color="#f0f3f5", bold=True),
    "title": Style(color="#8fbcc9", bold=True),
    "accent": Style(color="#7fb8c9"),
    "good": Style(color="#93c08a"),
    "warn": Style(color="#dbae6a"),
    "bad": Style(color="#e27f78"),
    "alarm": Style(color="#fff4f2", bgcolor="#8f2f2b", bold=True),
    "bar": Style(color="#aeb8be", bgcolor="#1b2228"),
    "bar.strong": Style(color="#f0f3f5", bgcolor="#1b2228", bold=True),
    "bar.dim": Style(color="#7f8b93", bgcolor="#1b2228"),
    "bar.good": Style(color="#93c08a", bgcolor="#1b2228", bold=True),
    "bar.warn": Style(color="#dbae6a", bgcolor="#1b2228", bold=True),
    "bar.bad": Style(color="#f09a93", bgcolor="#1b2228", bold=True),
    "cursor": Style(color="#f0f3f5", bgcolor="#263742", bold=True),
    "series.0": Style(color="#8fd0e3"),
    "series.1": Style(color="#d0a86c"),
    "series.2": Style(color="#8d8fa3"),
}
"""Style names and what they look like. Colour repeats what a word or a sign already says."""

PLAIN: dict[str, Style] = {
    name: Style(
        bold=name in ("strong", "title", "alarm", "bad", "warn", "bar.strong", "bar.good", "bar.warn", "bar.bad"),
        dim=name in ("dim", "faint", "rule", "series.2"),
        reverse=name.startswith("bar") or name in ("cursor", "alarm"),
    )
    for name in COLOURS
}
"""The same names without any colour, for `NO_COLOR`."""


def row(*parts: str | Span) -> Row:
    """Build a row; a bare string has the plain style. Empty pieces vanish."""
    spans = ((part, "") if isinstance(part, str) else part for part in parts)
    return tuple((clean(text), style) for text, style in spans if text)


def fit(text: str, width: int, align: str = "left") -> str:
    """Clean text and make it exactly `width` cells wide, cut with `…`; `align` is `left` or `right`."""
    text = clean(text, max(8, width * 2))
    wide = cell_len(text)
    if wide > width:
        return set_cell_size(text, width - 1) + "…" if width > 0 else ""
    return " " * (width - wide) + text if align == "right" else text + " " * (width - wide)


def width_of(line: Row) -> int:
    """Cells that a row takes."""
    return sum(cell_len(text) for text, _ in line)


def clip(line: Row, width: int) -> Row:
    """Cut a row to at most `width` cells, with `…` where something was cut."""
    if width_of(line) <= width:
        return line
    left, out = width, []
    for text, style in line:
        if cell_len(text) >= left:
            out.append((fit(text, left) if cell_len(text) > left else fit(text, left - 1) + "…", style))
            break
        out.append((text, style))
        left -= cell_len(text)
    return tuple(out)


def pad(line: Row, width: int, style: str = "") -> Row:
    """Clip or fill a row to exactly `width` cells."""
    line = clip(line, width)
    missing = width - width_of(line)
    return (*line, (" " * missing, style)) if missing > 0 else line


def spread(left: Row, right: Row, width: int, style: str = "") -> Row:
    """One row with a left and a right part; the left one is cut when they meet."""
    right = clip(right, width)
    return pad(pad(left, max(0, width - width_of(right)), style) + right, width, style)


def restyle(line: Row, style: str, width: int) -> Row:
    """The whole row in one style, filled to `width`: the cursor line."""
    return tuple((text, style) for text, _ in pad(line, width))


def rule(title: str, width: int, right: str = "") -> Row:
    """A section's head: its title in a thin line."""
    note = f" {clean(right, width)} " if right else ""
    head = f" {clean(title, width)} "
    filling = width - 2 - cell_len(head) - cell_len(note) - (2 if note else 0)
    if filling < 1:
        return clip((("──", "rule"), (head, "title")), width)
    parts = [("──", "rule"), (head, "title"), ("─" * filling, "rule")]
    if note:
        parts += [(note, "dim"), ("──", "rule")]
    return tuple(parts)


def beside(left: Sequence[Row], left_width: int, right: Sequence[Row], gap: int = 3) -> list[Row]:
    """Two columns; the left one is `left_width` cells wide."""
    between = " " * gap
    return [(*pad(a, left_width), (between, ""), *b) for a, b in zip_longest(left, right, fillvalue=BLANK)]


def wrap(text: str, width: int) -> list[str]:
    """Break one clean line into pieces of at most `width` cells, at spaces where there are some."""
    width = max(8, width)
    out: list[str] = []
    while cell_len(text) > width:
        taken = cut = 0
        for index, character in enumerate(text):
            taken += cell_len(character)
            if taken > width:
                break
            cut = index + 1
        space = text.rfind(" ", cut // 2, cut)
        cut = space + 1 if space > 0 else max(1, cut)
        out.append(text[:cut].rstrip())
        text = text[cut:]
    out.append(text)
    return out


def paragraph(text: str, width: int, style: str = "", indent: str = " ") -> list[Row]:
    """A text wrapped to `width`, each line indented."""
    return [row((indent + piece, style)) for piece in wrap(clean(text, 4_000), width - len(indent))]


def bar(share: float, width: int) -> str:
    """A progress bar of `width` cells."""
    full = round(max(0.0, min(1.0, share)) * width)
    return "█" * full + "░" * (width - full)


class Canvas(Widget, can_focus=False):
    """Paints rows, one per line of the screen, and repaints only those that changed."""

    ALLOW_SELECT = False
    DEFAULT_CSS = "Canvas { width: 100%; height: 100%; }"

    def __init__(self, palette: dict[str, Style]) -> None:
        super().__init__()
        self.rows: list[Row] = []
        self._palette = palette

    def show(self, rows: Iterable[Row]) -> None:
        """Take the new picture and refresh what differs from the old one."""
        new = list(rows)
        height = max(len(self.rows), len(new))
        changed = [
            index
            for index, (old, now) in enumerate(zip_longest(self.rows, new, fillvalue=None))
            if old != now and index < height
        ]
        self.rows = new
        if changed:
            self.refresh(*_regions(changed, self.size.width))

    def render_line(self, y: int) -> Strip:
        """The strip of one line."""
        width = self.size.width
        line = self.rows[y] if y < len(self.rows) else BLANK
        segments = [Segment(text, self._palette[style]) for text, style in line]
        return Strip(segments).adjust_cell_length(width)


def _regions(lines: list[int], width: int) -> list[Region]:
    """Neighbouring lines joined into regions."""
    regions: list[Region] = []
    for y in lines:
        if regions and regions[-1].bottom == y:
            last = regions.pop()
            regions.append(Region(0, last.y, width, last.height + 1))
        else:
            regions.append(Region(0, y, width, 1))
    return regions
