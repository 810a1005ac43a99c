"""Rows of styled text and the one widget that paints them.

A screen is a pure function from the model to rows; `Canvas` compares them with what is painted and repaints only the
lines that changed, so that the bytes sent to the terminal follow the information and not the area. All text enters
through `row` or `fit`, which clean it: nothing here is ever parsed as markup.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import zip_longest

from rich.cells import cell_len, set_cell_size
from rich.console import Console, RenderableType
from rich.control import Control
from rich.segment import Segment
from textual._compositor import ChopsUpdate
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget

from asi_tui.safe import clean
from asi_tui.theme import Palette


class Tag(str):
    """The name of a style, and what the text in it leads to: an experiment, a request, a key (`key:X`)."""

    target: str

    def __new__(cls, style: str, target: str) -> Tag:
        """A style's name with a target."""
        made = super().__new__(cls, style)
        made.target = target
        return made


Span = tuple[str, str]
"""A piece of clean text and the name of its style, perhaps a `Tag`."""

Row = tuple[Span, ...]

BLANK: Row = ()

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


def tagged(line: Row, target: str) -> Row:
    """The row with every piece of it leading to `target`."""
    return tuple((text, Tag(style, target)) for text, style in line)


def target_at(line: Row, x: int) -> str:
    """What the cell `x` of a row leads to; empty where nothing does."""
    for text, style in line:
        x -= cell_len(text)
        if x < 0:
            return style.target if isinstance(style, Tag) else ""
    return ""


def marked(line: Row, words: str) -> Row:
    """The row with every place that reads `words`, in any case, in the style of something found."""
    out: list[Span] = []
    for text, style in line:
        folded, needle, done = text.lower(), words.lower(), 0
        # Where folding changes lengths, places do not agree: such a piece stays unmarked.
        while needle and len(folded) == len(text) and (place := folded.find(needle, done)) >= 0:
            out += [(text[done:place], style), (text[place : place + len(needle)], "found")]
            done = place + len(needle)
        out.append((text[done:], style))
    return tuple(span for span in out if span[0])


def text_of(line: Row) -> str:
    """What a row reads."""
    return "".join(text for text, _ in line)


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

    def __init__(self, palette: Callable[[], Palette]) -> None:
        super().__init__()
        self.rows: list[Row] = []
        self.damage: dict[int, tuple[int, int]] = {}
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
        width = self.size.width
        for index in changed:
            old, now = (rows[index] if index < len(rows) else BLANK for rows in (self.rows, new))
            first, end = changed_cells(old, now, width)
            known = self.damage.get(index, (first, end))
            self.damage[index] = (min(first, known[0]), max(end, known[1]))
        self.rows = new
        if changed:
            self.refresh(*_regions(changed, self.size.width))

    def render_line(self, y: int) -> Strip:
        """The strip of one line."""
        width = self.size.width
        line = self.rows[y] if y < len(self.rows) else BLANK
        palette = self._palette()
        segments = [Segment(text, palette[style]) for text, style in line]
        return Strip(segments).adjust_cell_length(width)


def changed_cells(old: Row, new: Row, width: int) -> tuple[int, int]:
    """The cells of a line, first and end, outside of which two rows look the same."""
    before, after = _characters(old, width), _characters(new, width)
    same = min(len(before), len(after))
    head = next((index for index in range(same) if before[index] != after[index]), same)
    tail = next((index for index in range(same - head) if before[-1 - index] != after[-1 - index]), same - head)
    first = sum(cell_len(character) for character, _ in after[:head])
    return first, width - sum(cell_len(character) for character, _ in after[len(after) - tail :])


def _characters(line: Row, width: int) -> list[Span]:
    """A row character by character, up to the end of the line."""
    found = [(character, str(style)) for text, style in line for character in text]
    return found + [(" ", "end")] * max(0, width - width_of(line))


class TightUpdate(ChopsUpdate):
    """Textual's update of some lines, cut to the cells that changed: its own begins every line at the left."""

    def __init__(self, update: ChopsUpdate, damage: dict[int, tuple[int, int]]) -> None:
        super().__init__(update.chops, update.spans, update.chop_ends)
        self.damage = damage

    def render_segments(self, console: Console) -> str:
        """The sequences to write."""
        written = []
        for y, start, end in self.spans:
            first, last = self.damage.get(y, (start, end))
            for x, strip in self.chops[y].items():
                if strip is not None:
                    part = strip.crop(max(0, max(start, first) - x), max(0, min(end, last) - x))
                    if part.cell_length:
                        written.append(Control.move_to(max(start, first, x), y).segment.text + part.render(console))
        return "".join(written)


def tight(update: RenderableType | None, canvas: Canvas) -> RenderableType | None:
    """An update of lines cut to what changed on the canvas; any other update paints everything anyway."""
    damage, canvas.damage = canvas.damage, {}
    return TightUpdate(update, damage) if type(update) is ChopsUpdate else update


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
