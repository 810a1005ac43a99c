"""The parts of a transcript: a head in our own words, and below it, behind a bar, what somebody else wrote."""

from __future__ import annotations

from typing import Literal

from asi_tui import words
from asi_tui.lines import Row, Span, Tag, fit, row
from asi_tui.longtext import Line, LongText
from asi_tui.streams import ENGINE, Heard

Kind = Literal["prompt", "reply", "live", "output", "proposal"]

OUTPUT = "trial output"
BLOCK = "block:"
"""What a click on a head leads to, before the block's key."""

TONES: dict[Kind, tuple[str, str]] = {
    "prompt": ("faint", "dim"), "reply": ("accent", ""), "live": ("accent", ""), "output": ("series.1", ""),
    "proposal": ("accent", ""),
}  # fmt: skip
"""The colours of the bar and of the text behind it."""


class Block:
    """One prompt, reply, live stream or output; folded it is its head alone."""

    def __init__(self, key: str, kind: Kind, role: str, time: float, experiment: str) -> None:
        self.key, self.kind, self.role, self.time, self.experiment = key, kind, role, time, experiment
        self.agent = ""
        self.seconds = 0.0
        self.note = ""
        self.bad = False
        self.text: LongText | None = None
        self.source = ""
        self.folded = kind in ("prompt", "output")
        self.chosen = False
        bar, self._style = TONES[kind]
        self._gutter: Row = (("   ", ""), ("│ ", bar))

    @property
    def dropped(self) -> int:
        """Lines that a live text has lost at its beginning."""
        return self.text.dropped if self.text is not None else 0

    def take(self, text: str | None) -> None:
        """Take the text where it is another one than before."""
        if text is not None and (self.text is None or text is not self.source):
            if self.text is None or text != self.source:
                self.text = LongText(text)
            self.source = text

    def __len__(self) -> int:
        """The head; the text and a blank line where it is open."""
        return 1 if self.folded else 2 + (len(self.text) if self.text is not None else 1)

    def line(self, index: int) -> Line:
        """The head, or a line of the text."""
        if index == 0:
            return Line("", row=self.head())
        if index == len(self) - 1:
            return Line("", row=())
        if self.text is None:
            return Line("", row=row(("   on its way …", "dim")))
        return Line(self.text.line(index - 1), self._style, self._gutter, self._gutter)

    def raw(self, index: int) -> str:
        """A line of the text for searching; nothing for what is ours."""
        return self.text.lines[index - 1] if self.text is not None and 0 < index <= len(self.text) else ""

    def head(self) -> Row:
        """When, who, what, how long: in our own words."""
        target = BLOCK + self.key
        tone = "cursor" if self.chosen else "warn" if self.bad else "dim" if self.kind == "prompt" else "title"
        much = ""
        if self.text is not None:
            lost = f"{self.text.dropped:,} earlier ones dropped" if self.text.dropped else ""
            much = ", ".join(part for part in (words.plural(len(self.text), "line"), lost) if part)
        spent = words.span(self.seconds) if self.seconds and self.kind == "reply" else ""
        details = " · ".join(part for part in (self.agent, spent, much, self.note) if part)
        parts: list[Span] = [
            (f" {'▸' if self.folded else '▾'} {words.clock(self.time)} ", tone),
            (f"{fit(self.role, 12)} {fit(self.kind, 8)} ", tone),
            (details, "cursor" if self.chosen else "warn" if self.bad else "dim"),
        ]  # fmt: skip
        return row(*((text, Tag(style, target)) for text, style in parts))

    def whole(self) -> str:
        """The head and the text, for the pager and the clipboard."""
        body = self.text.text() if self.text is not None else "(not read from the engine yet)"
        return f"== {''.join(text for text, _ in self.head())[3:].rstrip()}\n{body}\n"


class HeardBlock:
    """One entry of the view of all streams: its columns say who, and only foreign text stands behind a bar."""

    def __init__(self, heard: Heard) -> None:
        self.heard = heard
        self.key = f"heard{heard.number}"

    @property
    def dropped(self) -> int:
        """Lines that it has lost at its beginning."""
        return self.heard.text.dropped

    def __len__(self) -> int:
        return max(1, len(self.heard.text))

    def line(self, index: int) -> Line:
        """A line with its columns; those below the first one repeat only the bar."""
        one = self.heard
        text = one.text.line(index) if index < len(one.text) else ""
        ours = one.role == ENGINE
        bar: Span = ("  ", "") if ours else ("│ ", "accent")
        columns = f" {words.clock(one.time)} {fit(one.experiment, 6)} "
        first = row((columns, "dim"), (f"{fit(one.role, 10)} ", "dim" if ours else "title"), bar)
        rest = row(" " * (len(columns) + 11), bar)
        return Line(text, one.style if ours else "", rest if index else first, rest)

    def raw(self, index: int) -> str:
        """A line for searching."""
        return self.heard.text.lines[index] if index < len(self.heard.text) else ""

    def whole(self) -> str:
        """Its lines, each with its columns."""
        one = self.heard
        head = f"{words.clock(one.time)} {one.experiment:<6} {one.role:<10} "
        return "\n".join(f"{head}{'' if one.role == ENGINE else '| '}{line}" for line in one.text.lines)
