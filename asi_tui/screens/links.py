"""The cursor over those places of a picture that lead somewhere, wherever a screen has put them."""

from __future__ import annotations

from typing import NamedTuple

from rich.cells import cell_len

from asi_tui.lines import Row, Span, Tag


class Link(NamedTuple):
    """A place of the picture that leads somewhere: its line, its first cell, what it leads to."""

    y: int
    x: int
    target: str


class LinkCursor:
    """Stays with what it points at while rows move; points at nothing until it is first moved."""

    def __init__(self) -> None:
        self.links: list[Link] = []
        self.chosen: Link | None = None

    def show(self, picture: list[Row]) -> list[Row]:
        """Take down where the picture leads (header and footer apart), and paint the cursor into it."""
        self.links = [link for y, line in enumerate(picture[1:-1], 1) for link in _links(y, line)]
        chosen = self.chosen
        if chosen is None or not self.links:
            return picture
        same = [link for link in self.links if link.target == chosen.target] or self.links
        self.chosen = now = min(same, key=lambda link: (abs(link.y - chosen.y), abs(link.x - chosen.x)))
        picture[now.y] = _restyled(picture[now.y], now)
        return picture

    def step(self, by: int) -> None:
        """Move up or down over the places of the same column."""
        if not self.links:
            return
        if self.chosen is None:
            self.chosen = self.links[0 if by > 0 else -1]
            return
        column = [link for link in self.links if link.x == self.chosen.x]
        at = column.index(self.chosen) if self.chosen in column else 0
        self.chosen = column[max(0, min(len(column) - 1, at + by))]

    def cross(self, by: int) -> None:
        """Move to the nearest place in another column."""
        chosen = self.chosen
        if chosen is None:
            self.step(1)
            return
        beside = [link for link in self.links if (link.x - chosen.x) * by > 0]
        if beside:
            self.chosen = min(beside, key=lambda link: (abs(link.x - chosen.x), abs(link.y - chosen.y)))


def _links(y: int, line: Row) -> list[Link]:
    """The places of one line that lead somewhere, each at its first cell."""
    found: list[Link] = []
    x, last = 0, ""
    for text, style in line:
        target = style.target if isinstance(style, Tag) else ""
        if target and target != last and not target.startswith("key:"):
            found.append(Link(y, x, target))
        x, last = x + cell_len(text), target
    return found


def _restyled(line: Row, link: Link) -> Row:
    """The line with the link's place in the style of the cursor."""
    out: list[Span] = []
    x = 0
    for text, style in line:
        here = isinstance(style, Tag) and style.target == link.target and x >= link.x
        out.append((text, Tag("cursor", link.target) if here else style))
        x += cell_len(text)
    return tuple(out)
