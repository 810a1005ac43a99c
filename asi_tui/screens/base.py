"""What all screens share: the footer, scrolling, one-line questions, and the small-window form."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple, cast

from rich.cells import cell_len
from textual import events
from textual.app import ComposeResult
from textual.screen import Screen

from asi_tui import words
from asi_tui.lines import BLANK, Canvas, Row, Span, clip, fit, pad, paragraph, row, spread, width_of
from asi_tui.model import Model
from asi_tui.presence import WARNING_SECONDS
from asi_tui.screens.header import header_row, phase_span

if TYPE_CHECKING:
    from asi_tui.app import AsiApp

SMALLEST = (60, 16)
"""Below this many columns and lines every screen shows the short form."""

MESSAGE_SECONDS = 4.0
READING_SPEED = 20.0
"""A message stays for the first, and a second more for so many characters."""

LONGEST_MESSAGE = 4

TYPING_ROOM = 10
"""Cells that stay for the answer before a question takes its short form."""


class Key(NamedTuple):
    """One thing that can be pressed now: its key names, how it is shown, a word for the footer, a line for help."""

    names: tuple[str, ...]
    shown: str
    word: str
    help: str
    run: Callable[[], object]
    footer: bool = True


class Question(NamedTuple):
    """A one-line question at the foot of the screen; Enter answers it, Esc drops it. Nothing else is blocked.

    text: what is asked; `short` where there is no room for it.
    rows: what is shown above the screen's own content while it is open, for a width and at most a height.
    dropped: what is said when it is dropped.
    """

    text: str
    answer: Callable[[str], object]
    short: str = ""
    rows: Callable[[int, int], list[Row]] = lambda width, height: []
    dropped: str = ""


class Watch(Screen[None]):
    """A screen that is drawn from the model: `body` gives its rows, `keys` what can be pressed."""

    NAME = ""
    SHORT = ""
    SCROLLS = False
    AUTO_FOCUS = None

    def __init__(self) -> None:
        super().__init__()
        self.canvas: Canvas | None = None
        self.top = 0
        self.page = 1
        self.question: Question | None = None
        self.typed = ""
        self.last_key = 0.0
        self._message: Span = ("", "")
        self._message_until = 0.0

    @property
    def asi(self) -> AsiApp:
        """The app, by its own type."""
        return cast("AsiApp", self.app)

    @property
    def model(self) -> Model:
        """What is drawn."""
        return self.asi.model

    def compose(self) -> ComposeResult:
        """One canvas for everything."""
        self.canvas = Canvas(self.asi.palette)
        yield self.canvas

    def on_screen_resume(self) -> None:
        """Draw at once when the screen comes up."""
        self.draw()

    def on_resize(self) -> None:
        """Draw at once in a new size."""
        self.draw()

    # --- to be filled by each screen -------------------------------------------------------------------------------

    def body(self, width: int, height: int) -> list[Row]:
        """The rows between header and footer."""
        raise NotImplementedError

    def keys(self) -> list[Key]:
        """This screen's own keys that apply now."""
        return []

    # --- drawing ---------------------------------------------------------------------------------------------------

    def draw(self) -> None:
        """Paint the picture as it is now."""
        width, height = self.size
        if self.canvas is None or not width or not height:
            return
        if width < SMALLEST[0] or height < SMALLEST[1]:
            self.canvas.show(self._short_form(width, height))
            return
        said = self._long_message(width)
        room = height - 2 - len(said)
        asked = self.question.rows(width, room) if self.question is not None else []
        own = self.body(width, room - len(asked)) if room > len(asked) else []
        rows = [*asked, *own][:room]
        rows += [BLANK] * (room - len(rows))
        self.canvas.show([self.header(width), *rows, *said, self.footer(width)])

    def scrolled(self, rows: Sequence[Row], height: int, follow: bool = False) -> list[Row]:
        """The part of `rows` that is in view; keeps the scroll position inside."""
        self.page = max(1, height)
        last = max(0, len(rows) - height)
        self.top = last if follow else max(0, min(self.top, last))
        return list(rows[self.top : self.top + height])

    def position(self, total: int) -> str:
        """Where one is in a long text."""
        if total <= self.page:
            return ""
        return f"{self.top + 1}–{min(total, self.top + self.page)} of {total}"

    def header(self, width: int) -> Row:
        """Run, state, sandbox, approvals, progress, best, connection."""
        return header_row(self.model, self.asi.config, width)

    def footer(self, width: int) -> Row:
        """A question, a message, or the keys; always the stop key at the right."""
        stop = self._stop_label(width)
        room = width - width_of(stop)
        if self.question is not None:
            return spread(question_row(self.question, self.typed, room), stop, width, "bar")
        said = self._said
        if said[0] and cell_len(said[0]) < room:
            return spread(row((" " + said[0], said[1])), stop, width, "bar")
        own = [key for key in self.keys() if key.footer]
        shared = [key for key in self.asi.shared_keys() if key.footer]
        for screens in (*self.asi.screen_names(), [("1-5", "screens")]):
            hints = [*((key.shown, key.word) for key in own), *screens, *((key.shown, key.word) for key in shared)]
            line = row(*(span for shown, word in hints for span in ((f" {shown}", "bar.strong"), (f" {word}", "bar"))))
            if width_of(line) <= room:
                break
        return spread(line, stop, width, "bar")

    @property
    def _said(self) -> Span:
        """The message, while it is shown."""
        return self._message if time.monotonic() < self._message_until else ("", "")

    def _long_message(self, width: int) -> list[Row]:
        """A message that does not fit beside the stop key stands above the footer, in full."""
        text, style = self._said
        if not text or cell_len(text) < width - width_of(self._stop_label(width)):
            return []
        return [pad(line, width, "bar") for line in paragraph(text, width, style)][:LONGEST_MESSAGE]

    def _stop_label(self, width: int) -> Row:
        if self.model.connected:
            return row((" ^\\ STOP ", "bar.bad"))
        if self.model.ever_connected and not self.model.over:
            command = f"asi kill {self.model.name}"
            label = f"not connected: ^\\ STOP or `{command}`" if width >= 100 else f"^\\ or `{command}`"
            return row((f" {label} ", "alarm"))
        return row((" ^\\ STOP ", "bar.dim"))

    def _short_form(self, width: int, height: int) -> list[Row]:
        """What fits into a window that is too small for the screen."""
        model, state = self.model, self.model.state
        line = "live" if model.connected else "NOT CONNECTED"
        name = fit(model.name, min(len(model.name), 14))
        head = pad(row((f" {name} {phase_span(model)[0]} {line}", "bar.strong")), width, "bar")
        room = max(0, height - 2)
        rows = self.question.rows(width, room) if self.question is not None else []
        rows = [*rows, *paragraph(situation(model), width)]
        if model.deadman_left and model.deadman_left <= WARNING_SECONDS:
            rows.insert(0, row((f" dead-man {words.age(model.deadman_left)}: press any key", "warn")))
        if state.pending:
            rows.append(row((f" {words.plural(len(state.pending), 'approval')} waiting", "warn")))
        best = model.best()
        if best is not None and best.scored is not None:
            rows.append(row(" best ", (words.scored(best.scored), "strong"), f" {best.title}"))
        rows.append(row((f" more at {SMALLEST[0]}×{SMALLEST[1]} and above", "dim")))
        last = self.footer(width) if self.question is not None else row(("q leave", "bar"), (" ^\\ STOP ", "bar.bad"))
        rows = [clip(line, width) for line in rows[:room]]
        picture = [head, *rows, *[BLANK] * (room - len(rows)), pad(last, width, "bar")]
        return picture[:height] if height > 1 else [picture[-1]]

    # --- keys ------------------------------------------------------------------------------------------------------

    def say(self, text: str, bad: bool = False) -> None:
        """Show a message in the footer for a few seconds."""
        self._message = (text, "bar.warn" if bad else "bar.strong")
        self._message_until = time.monotonic() + MESSAGE_SECONDS + len(text) / READING_SPEED
        self.draw()

    def ask(self, text: str, answer: Callable[[str], object]) -> None:
        """Put a question into the footer."""
        self.put(Question(text, answer))

    def put(self, question: Question) -> None:
        """Put a question into the footer, with all that belongs to it."""
        self.question, self.typed = question, ""
        self.draw()

    def scroll_keys(self) -> list[Key]:
        """Scrolling, where the screen scrolls."""
        if not self.SCROLLS:
            return []

        def by(lines: int) -> Callable[[], object]:
            return lambda: self.scroll_lines(lines)

        return [
            Key(("up", "k"), "↑", "", "one line up", by(-1), False),
            Key(("down", "j"), "↓", "", "one line down", by(1), False),
            Key(("pageup",), "PgUp", "", "one page up", lambda: self.scroll_lines(-self.page), False),
            Key(("pagedown", "space"), "PgDn", "", "one page down", lambda: self.scroll_lines(self.page), False),
            Key(("home", "g"), "Home", "", "to the beginning", by(-(10**9)), False),
            Key(("end", "G"), "End", "", "to the end", by(10**9), False),
        ]

    def scroll_lines(self, lines: int) -> None:
        """Scroll; the next drawing keeps the position inside the text."""
        self.top = max(0, self.top + lines)

    def all_keys(self) -> list[Key]:
        """Everything that can be pressed now, this screen's own keys first."""
        return [*self.keys(), *self.scroll_keys(), *self.asi.shared_keys(), *self.asi.screen_keys()]

    def on_key(self, event: events.Key) -> None:
        """Hand the key to the question or to the first key that wants it."""
        event.stop()
        self.asi.person_acted()
        if self.question is not None:
            self._type(event)
        else:
            name = event.character if event.character and event.character.isprintable() else event.key
            if name == " ":
                name = "space"
            for key in self.all_keys():
                if name in key.names:
                    key.run()
                    break
        self.last_key = time.monotonic()
        if self.is_current:
            self.draw()

    def on_paste(self, event: events.Paste) -> None:
        """Paste into a question; anywhere else a paste does nothing."""
        event.stop()
        if self.question is not None:
            self.typed = (self.typed + " ".join(event.text.split()))[:500]
            self.draw()

    def _type(self, event: events.Key) -> None:
        question = self.question
        assert question is not None
        if event.key == "escape":
            self.question = None
            if question.dropped:
                self.say(question.dropped)
        elif event.key == "enter":
            self.question = None
            question.answer(self.typed.strip())
        elif event.key == "backspace":
            self.typed = self.typed[:-1]
        elif event.key == "ctrl+u":
            self.typed = ""
        elif event.character and event.character.isprintable():
            self.typed = (self.typed + event.character)[:500]


def situation(model: Model) -> str:
    """What goes on, in a sentence or two; the latch goes before everything that the engine has said."""
    facts = model.facts
    if facts.latched:
        return words.latched_situation(facts.latched, facts.puller, model.name)
    return words.situation(model.state, model.name)


def question_row(question: Question, typed: str, room: int) -> Row:
    """A question and what has been typed; its end stays in view."""
    text = question.text
    if question.short and cell_len(text) + TYPING_ROOM > room:
        text = question.short
    tail = max(8, room - cell_len(text) - 4)
    return row((f" {text} ", "bar.strong"), (typed[-tail:], "bar"), ("▏", "bar.strong"))


def table(columns: Sequence[tuple[str, int, str]], cells: Sequence[Sequence[Span | str]], indent: int = 1) -> list[Row]:
    """Rows with aligned columns; `columns` are `(head, width, align)`, a head of empty strings is left out."""
    out: list[Row] = []
    space = " " * indent
    if any(head for head, _, _ in columns):
        out.append(row((space + "  ".join(fit(head, width, align) for head, width, align in columns), "dim")))
    for line in cells:
        spans: list[Span] = [(space, "")]
        for index, ((_, width, align), cell) in enumerate(zip(columns, line, strict=True)):
            text, style = cell if isinstance(cell, tuple) else (cell, "")
            spans.append((("  " if index else "") + fit(text, width, align), style))
        out.append(tuple(spans))
    return out
