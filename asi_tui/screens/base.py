"""What all screens share: drawing, scrolling, links, searching, one-line questions, keys and the mouse.

A screen is a pure function from the model to rows (`body`). What a piece of text leads to stands in its style
(`lines.Tag`), so that Enter, a click and the cursor need to know nothing about where a screen put it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, cast

from rich.cells import cell_len
from textual import events
from textual.app import ComposeResult
from textual.screen import Screen

from asi_tui.lines import (
    BLANK,
    Canvas,
    Row,
    Span,
    marked,
    pad,
    paragraph,
    row,
    spread,
    target_at,
    text_of,
    width_of,
)
from asi_tui.model import Model
from asi_tui.screens.footer import STOP_TARGET, footer_row, question_row, stop_label
from asi_tui.screens.header import header_row
from asi_tui.screens.keys import Key, Question, typed_on
from asi_tui.screens.links import LinkCursor
from asi_tui.screens.short import SMALLEST, short_rows

if TYPE_CHECKING:
    from asi_tui.app import AsiApp

MESSAGE_SECONDS = 4.0
READING_SPEED = 20.0
"""A message stays for the first, and a second more for so many characters."""

LONGEST_MESSAGE = 4

LONGEST_ANSWER = 2_000

WHEEL_LINES = 3


class Watch(Screen[None]):
    """A screen that is drawn from the model: `body` gives its rows, `keys` what can be pressed.

    SCROLLS: its body is one long text, cut by `scrolled`. LINKS: a cursor goes over the tagged places of the body.
    SEARCHES: `/` finds words in it.
    """

    NAME = ""
    SHORT = ""
    SCROLLS = False
    LINKS = False
    SEARCHES = False
    AUTO_FOCUS = None

    def __init__(self) -> None:
        super().__init__()
        self.canvas: Canvas | None = None
        self.top = 0
        self.page = 1
        self.question: Question | None = None
        self.typed = ""
        self._recalled = 0  # how far back in a question's history
        self.sought = ""
        self.last_key = 0.0
        self.links = LinkCursor()
        self._text: Sequence[Row] = ()
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
        self.canvas = Canvas(lambda: self.asi.palette)
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

    def open(self, target: str) -> None:
        """Go where a tagged place leads; by Enter on the cursor or by a click."""
        self.asi.open(target)

    def find(self, text: str, step: int) -> bool:
        """Go to the next (or, with -1, previous) place that reads `text`; False where there is none."""
        rows, folded = self._text, text.lower()
        places = [index for index, line in enumerate(rows) if folded in text_of(line).lower()]
        after = [index for index in places if (index > self.top if step > 0 else index < self.top)]
        if not places:
            return False
        self.top = (after or places)[0 if step > 0 else -1]
        return True

    def copied(self) -> str:
        """What `y` copies: the whole text of a screen that scrolls, else what is in view."""
        rows = self._text if self._text else (self.canvas.rows[1:-1] if self.canvas else [])
        return "\n".join(text_of(line).rstrip() for line in rows)

    # --- drawing ---------------------------------------------------------------------------------------------------

    def draw(self) -> None:
        """Paint the picture as it is now."""
        width, height = self.size
        if self.canvas is None or not width or not height:
            return
        if width < SMALLEST[0] or height < SMALLEST[1]:
            room = max(0, height - 2)
            asked = self.question.rows(width, room) if self.question is not None else []
            footer = self.footer(width) if self.question is not None else None
            self.canvas.show(short_rows(self.model, asked, footer, width, height))
            return
        said = self._long_message(width)
        room = height - 2 - len(said)
        asked = self.question.rows(width, room) if self.question is not None else []
        own = self.body(width, room - len(asked)) if room > len(asked) else []
        if self.sought:
            own = [marked(line, self.sought) for line in own]
        rows = [*asked, *own][:room]
        rows += [BLANK] * (room - len(rows))
        picture = [self.header(width), *rows, *said, self.footer(width)]
        self.canvas.show(self.links.show(picture) if self.LINKS else picture)

    def scrolled(self, rows: Sequence[Row], height: int, follow: bool = False) -> list[Row]:
        """The part of `rows` that is in view; keeps the scroll position inside."""
        self.page, self._text = max(1, height), rows
        last = max(0, len(rows) - height)
        self.top = last if follow else max(0, min(self.top, last))
        return list(rows[self.top : self.top + height])

    def position(self, total: int) -> str:
        """Where one is in a long text."""
        if total <= self.page:
            return ""
        return f"{self.top + 1:,}–{min(total, self.top + self.page):,} of {total:,}"

    def header(self, width: int) -> Row:
        """Run, state, sandbox, approvals, progress, best, connection."""
        return header_row(self.model, self.asi.config, width)

    def footer(self, width: int) -> Row:
        """A question, a message, or the keys; always the stop key at the right."""
        stop = stop_label(self.model, width)
        room = width - width_of(stop)
        if self.question is not None:
            return spread(question_row(self.question, self.typed, room), stop, width, "bar")
        said = self._said
        if said[0] and cell_len(said[0]) < room:
            return spread(row((" " + said[0], said[1])), stop, width, "bar")
        own = [*self.keys(), *self.link_keys()]
        return footer_row(own, self.asi.screen_forms(), self.asi.shared_keys(), stop, width)

    @property
    def _said(self) -> Span:
        """The message, while it is shown."""
        return self._message if time.monotonic() < self._message_until else ("", "")

    def _long_message(self, width: int) -> list[Row]:
        """A message that does not fit beside the stop key stands above the footer, in full."""
        text, style = self._said
        if not text or cell_len(text) < width - width_of(stop_label(self.model, width)):
            return []
        return [pad(line, width, "bar") for line in paragraph(text, width, style)][:LONGEST_MESSAGE]

    def link_keys(self) -> list[Key]:
        """The cursor over what leads somewhere, where the screen has one."""
        links = self.links
        if not self.LINKS or not links.links:
            return []
        chosen = links.chosen is not None
        return [
            Key(("enter",), "Enter", "open", "open what the cursor is on", self._open_link, chosen),
            Key(("up", "k"), "↑", "", "the cursor up", lambda: links.step(-1), False),
            Key(("down", "j", "tab"), "↓", "choose", "the cursor down", lambda: links.step(1)),
            Key(("left", "h", "shift+tab"), "←", "", "the cursor to the left", lambda: links.cross(-1), False),
            Key(("right", "l"), "→", "", "the cursor to the right", lambda: links.cross(1), False),
        ]

    def _open_link(self) -> None:
        if self.links.chosen is not None:
            self.open(self.links.chosen.target)

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
        self.question, self.typed, self._recalled = question, question.typed, 0
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
            Key(("pageup", "ctrl+b"), "PgUp", "", "one page up", lambda: self.scroll_lines(-self.page), False),
            Key(("pagedown", "space", "ctrl+f"), "PgDn", "", "one page down", lambda: self.scroll_lines(self.page),
                False),
            Key(("ctrl+u",), "^U", "", "half a page up", lambda: self.scroll_lines(-(self.page // 2)), False),
            Key(("ctrl+d",), "^D", "", "half a page down", lambda: self.scroll_lines(self.page // 2), False),
            Key(("home", "g"), "Home", "", "to the beginning", by(-(10**9)), False),
            Key(("end", "G"), "End", "", "to the end", by(10**9), False),
        ]  # fmt: skip

    def search_keys(self) -> list[Key]:
        """Searching, where the screen can be searched."""
        if not self.SEARCHES:
            return []
        keys = [Key(("/",), "/", "find", "find words on this screen", self._ask_words, False)]
        if self.sought:
            keys += [
                Key(("n",), "n", "next", f"the next “{self.sought[:20]}”", lambda: self.seek(self.sought, 1), False),
                Key(("N",), "N", "", f"the previous “{self.sought[:20]}”", lambda: self.seek(self.sought, -1), False),
            ]
        return keys

    def _ask_words(self) -> None:
        self.put(Question("find:", lambda typed: self.seek(typed, 1)))

    def seek(self, text: str, step: int) -> None:
        """Go to where `text` stands next; nothing typed ends the search."""
        self.sought = text
        if text and not self.find(text, step):
            self.sought = ""
            self.say(f"“{text}” is not here", bad=True)

    def scroll_lines(self, lines: int) -> None:
        """Scroll; the next drawing keeps the position inside the text."""
        self.top = max(0, self.top + lines)

    def all_keys(self) -> list[Key]:
        """Everything that can be pressed now, this screen's own keys first."""
        own = [*self.keys(), *self.link_keys(), *self.scroll_keys(), *self.search_keys()]
        return [*own, *self.asi.shared_keys(), *self.asi.screen_keys()]

    def on_key(self, event: events.Key) -> None:
        """Hand the key to the question or to the first key that wants it."""
        event.stop()
        self.asi.person_acted()
        if event.key in self.asi.preferences.stop_keys:  # where the driver has not taken it already
            self.asi.emergency.press()
        elif self.question is not None:
            self._type(event)
        else:
            name = event.character if event.character and event.character.isprintable() else event.key
            self._press("space" if name == " " else name)
        self.last_key = time.monotonic()
        if self.is_current:
            self.draw()

    def _press(self, name: str) -> None:
        key = next((key for key in self.all_keys() if name in key.names), None)
        if key is not None:
            key.run()

    def on_click(self, event: events.Click) -> None:
        """A click presses what it hits in the footer, and opens what leads somewhere."""
        event.stop()
        self.asi.person_acted()
        rows = self.canvas.rows if self.canvas is not None else []
        target = target_at(rows[event.y], event.x) if 0 <= event.y < len(rows) else ""
        if target == STOP_TARGET:
            self.asi.emergency.press()
        elif self.question is not None:
            pass  # what is being typed must not be lost to a stray click
        elif target.startswith("key:"):
            self._press(target.removeprefix("key:"))
        elif target:
            self.open(target)
        if self.is_current:
            self.draw()

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        """The wheel scrolls."""
        self._wheel(event, WHEEL_LINES)

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        """The wheel scrolls."""
        self._wheel(event, -WHEEL_LINES)

    def _wheel(self, event: events.MouseEvent, lines: int) -> None:
        event.stop()
        self.wheel(lines)
        self.draw()

    def wheel(self, lines: int) -> None:
        """What the wheel moves."""
        if self.SCROLLS:
            self.scroll_lines(lines)
        elif self.LINKS:
            self.links.step(1 if lines > 0 else -1)

    def on_paste(self, event: events.Paste) -> None:
        """Paste into a question; anywhere else a paste does nothing."""
        event.stop()
        if self.question is not None:
            self._typed(self.typed + " ".join(event.text.split()))
            self.draw()

    def _typed(self, text: str) -> None:
        self.typed = text[:LONGEST_ANSWER]
        if self.question is not None:
            self.question.changed(self.typed)

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
        else:
            typed, self._recalled = typed_on(question, self.typed, self._recalled, event.key, event.character or "")
            if typed != self.typed:
                self._typed(typed)
