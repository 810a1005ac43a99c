"""Everything that can be done, by name: keys, screens, commands, experiments and requests, found by a few letters."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from textual import events

from asi_tui import words
from asi_tui.lines import BLANK, Row, Span, clip, fit, restyle, row, rule, spread, tagged, width_of
from asi_tui.safe import clean
from asi_tui.screens.base import LONGEST_ANSWER, Watch
from asi_tui.screens.footer import hint, stop_label
from asi_tui.screens.keys import Key
from asi_tui.screens.short import SMALLEST
from asi_tui.wordline import run_line

MOST = 200
"""Most experiments and requests that are offered for one filter."""

COMMANDS: tuple[tuple[str, str], ...] = (
    ("pause", "start nothing new; running trials finish"),
    ("freeze", "stop every trial in place"),
    ("park", "take the trials off the device; they run again on resume"),
    ("resume", "go on after pause, freeze or park"),
    ("set theme dark", "colours for a dark terminal"),
    ("set theme light", "colours for a light terminal"),
    ("set theme plain", "no colours"),
    ("set ascii on", "no character beyond ASCII"),
    ("set ascii off", "lines, dots and signs as they are"),
    ("set bell on", "ring for approvals, anomalies, the end"),
    ("set bell off", "never ring"),
    ("set alerts auto", "desktop notifications where the terminal is known to show them"),
    ("set alerts off", "no desktop notifications"),
    ("screenshot", "this screen as an SVG file in the working directory"),
    ("audit --verify", "check chain, blobs and approvals of the whole run"),
    ("doctor", "what this machine offers: isolation, drill, versions"),
    ("ps", "all runs, engines and sandboxes of this user"),
)
"""Lines of the command line that are offered by name; `stop` is offered by its key, which asks first."""


MOTIONS = frozenset(("enter", "up", "down", "left", "right", "tab", "ctrl+p"))
"""Keys that mean nothing by name, and the one that leads here."""


class Choice(NamedTuple):
    """One thing to choose: its name, what it is, how it is shown at the right, what it does."""

    name: str
    about: str
    shown: str
    run: Callable[[], object]


class Thing(NamedTuple):
    """An experiment or a request that can be opened: its id, title, kind, and both in lower case for finding."""

    id: str
    title: str
    kind: str
    folded: str


class PaletteScreen(Watch):
    """A filter and what it leaves."""

    NAME = "Palette"

    def __init__(self, listed: list[Key]) -> None:
        super().__init__()
        self.filter = ""
        self.cursor = 0
        kept = [key for key in listed if key.click and key.word and not MOTIONS.intersection(key.names)]
        # Keys with Shift do what is dangerous: nothing that Enter does at once stands first.
        self._keys = sorted((key for key in kept if key.word != "approve"), key=lambda key: key.names[0].isupper())
        self._things: list[Thing] = []
        self._found: tuple[str | None, list[Choice]] = (None, [])

    def on_mount(self) -> None:
        """What can be opened is what there is now: a list that moves while one types would be no help."""
        state = self.model.state
        requests = [(one.id, words.name_of(state, one.experiment), "request") for one in state.pending]
        entries = [(one.id, words.title(one), "experiment") for one in reversed(state.experiments.values())]
        self._things = [Thing(*one, f"{one[0]} {one[1]}".lower()) for one in [*requests, *entries]]
        self._found = (None, [])

    def choices(self) -> list[Choice]:
        """What the filter leaves, the best first."""
        if self._found[0] != self.filter:
            self._found = (self.filter, self._choose(" ".join(self.filter.lower().split())))
        return self._found[1]

    def _choose(self, wanted: str) -> list[Choice]:
        fixed = [self._of_key(key) for key in self._keys]
        fixed += [Choice(name, about, ":", self._line(name)) for name, about in COMMANDS]
        if not wanted:
            return [*fixed, *(self._of_thing(one) for one in self._things[:MOST])]
        scored = [(rank(wanted, f"{one.name} {one.about}".lower()), one) for one in fixed]
        kept = [(place, one) for place, one in scored if place is not None]
        kept += [(place, self._of_thing(one)) for place, one in best_things(wanted, self._things)]
        return [one for _, one in sorted(kept, key=lambda pair: pair[0])]

    def _of_key(self, key: Key) -> Choice:
        about = "go to this screen" if key.help == key.word.lower() else key.help
        return Choice(key.word, about, key.shown, key.run)

    def _of_thing(self, one: Thing) -> Choice:
        return Choice(one.id, one.title, one.kind, lambda: self.asi.open(one.id))

    def _line(self, text: str) -> Callable[[], object]:
        return lambda: run_line(self.asi, text)

    # --- drawing ---------------------------------------------------------------------------------------------------

    def body(self, width: int, height: int) -> list[Row]:
        """The filter, then the list."""
        found = self.choices()
        self.cursor = max(0, min(self.cursor, len(found) - 1))
        room = max(1, height - 2)
        self.page = room
        self.top = max(0, min(max(self.top, self.cursor - room + 1), self.cursor, max(0, len(found) - room)))
        note = f"{self.cursor + 1} of {len(found)}" if found else ""
        typed: Span = (clean(self.filter)[-(width - 6) :], "strong")
        advice: Span = ("type a few letters of what you look for", "faint")
        head = row((" › ", "accent"), typed, ("▏", "accent"), advice if not self.filter else "")
        rows = [rule("everything that can be done", width, note), head]
        if not found:
            return [*rows, BLANK, row((" nothing has these letters in this order", "dim"))]
        shown = found[self.top : self.top + room]
        return rows + [self._row(one, index, width) for index, one in enumerate(shown, self.top)]

    def _row(self, one: Choice, index: int, width: int) -> Row:
        name_width, shown_width = 22 if width < 100 else 30, 10
        about = max(8, width - name_width - shown_width - 5)
        line = row(" ", (fit(one.name, name_width), "strong"), "  ", fit(one.about, about), "  ",
                   (fit(one.shown, shown_width, "right"), "dim"))  # fmt: skip
        line = clip(line, width)
        return tagged(restyle(line, "cursor", width) if index == self.cursor else line, f"choice:{index}")

    # --- keys ------------------------------------------------------------------------------------------------------

    def keys(self) -> list[Key]:
        """For the footer: everything else that is typed goes into the filter."""
        return [
            Key(("enter",), "Enter", "do it", "do it", self._do),
            Key(("up",), "↑", "", "up", lambda: self._move(-1), False),
            Key(("down",), "↓", "choose", "down", lambda: self._move(1)),
            Key(("escape",), "Esc", "close", "close", self.app.pop_screen),
        ]

    def all_keys(self) -> list[Key]:
        """Only its own: a letter is a letter here."""
        return self.keys()

    def footer(self, width: int) -> Row:
        """Its own keys and no others: the rest would be typed."""
        stop = stop_label(self.model, width)
        if self._said[0]:
            return super().footer(width)
        line = tuple(span for key in self.keys() if key.footer for span in hint(key))
        return spread(line, stop, width, "bar") if width_of(line) < width else super().footer(width)

    def on_key(self, event: events.Key) -> None:
        """Type into the filter, move, do, close."""
        event.stop()
        event.prevent_default()  # the base class has a handler of its own, which would be called too
        self.asi.person_acted()
        moves = {"up": -1, "ctrl+p": -1, "shift+tab": -1, "down": 1, "ctrl+n": 1, "tab": 1, "pageup": -self.page,
                 "pagedown": self.page, "home": -(10**6), "end": 10**6}  # fmt: skip
        if event.key == "escape":
            self.app.pop_screen()
        elif event.key == "enter":
            self._do()
        elif event.key in moves:
            self._move(moves[event.key])
        elif event.key == "backspace":
            self._filter(self.filter[:-1])
        elif event.key == "ctrl+u":
            self._filter("")
        elif event.key == "ctrl+w":
            self._filter(" ".join(self.filter.split()[:-1]))
        elif event.character and event.character.isprintable():
            self._filter(self.filter + event.character)
        if self.is_current:
            self.draw()

    def on_paste(self, event: events.Paste) -> None:
        """A paste goes into the filter."""
        event.stop()
        event.prevent_default()
        self._filter(self.filter + " ".join(event.text.split()))
        self.draw()

    def _filter(self, text: str) -> None:
        self.filter, self.cursor, self.top = text[:LONGEST_ANSWER], 0, 0

    def _move(self, by: int) -> None:
        self.cursor = max(0, min(len(self.choices()) - 1, self.cursor + by))

    def wheel(self, lines: int) -> None:
        """The wheel moves the cursor."""
        self._move(1 if lines > 0 else -1)

    def open(self, target: str) -> None:
        """A click chooses, and does what is chosen already."""
        index = int(target.removeprefix("choice:"))
        if index == self.cursor:
            self._do()
        else:
            self.cursor = index

    def _do(self) -> None:
        width, height = self.size
        found = self.choices()
        self.app.pop_screen()
        if not found or width < SMALLEST[0] or height < SMALLEST[1]:  # what cannot be seen is not chosen
            return
        found[self.cursor].run()
        if self.asi.front is not None:
            self.asi.front.draw()


Place = tuple[int, int, int]
"""How well something fits: the kind of the match, where it begins, how long the text is. Smaller is better."""


def rank(wanted: str, text: str) -> Place | None:
    """How well a filter fits a text in lower case; None where the letters are not all there in this order."""
    place = text.find(wanted)
    if place == 0:
        return (0, 0, len(text))
    if place > 0:
        return (1 if text[place - 1] in " -_/" or f" {wanted}" in text else 2, place, len(text))
    found = _in_order(wanted).search(text)
    return (3, found.end() - found.start(), found.start()) if found else None


def _in_order(wanted: str) -> re.Pattern[str]:
    """Matches text that has the letters in this order; each gap ends where the next letter first stands."""
    first, *others = [re.escape(letter) for letter in wanted if letter != " "]
    return re.compile(first + "".join(f"[^{letter}]*{letter}" for letter in others))


def best_things(wanted: str, things: Sequence[Thing]) -> list[tuple[Place, Thing]]:
    """The experiments and requests that fit best, at most `MOST`; letters apart are only looked for where they must."""
    held = [one for one in things if wanted in one.folded][: 10 * MOST]
    if len(held) < MOST:
        search = _in_order(wanted).search
        held += [one for one in things if wanted not in one.folded and search(one.folded)][: 10 * MOST]
    scored = [(place, one) for one in held if (place := rank(wanted, one.folded)) is not None]
    return sorted(scored, key=lambda pair: pair[0])[:MOST]
