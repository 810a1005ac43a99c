"""Screen 9, what the run knows: its own lessons, listed or looked for by words."""

from __future__ import annotations

import re
import time

from asi_tui import words
from asi_tui.lines import BLANK, Row, beside, clip, fit, paragraph, restyle, row, rule, tagged
from asi_tui.screens.base import Watch
from asi_tui.screens.keys import Key
from engine.client.protocol import Knowledge

WIDE = 110
"""From this width on the text stands beside the list."""

MOST = 1_000
"""So many entries are listed; words find the others."""

FRESH_SECONDS = 2.0

EMPTY = (
    "Nothing is known yet. When an experiment is analysed, what it taught is kept here, and the next proposals are "
    "given the lessons that are nearest to what they try."
)


class KnowledgeScreen(Watch):
    """A list of entries and the text of the chosen one."""

    NAME = "Knowledge"
    SHORT = "Know"

    def __init__(self) -> None:
        super().__init__()
        self.words = ""
        self.cursor = 0
        self.down = 0
        self._asked: tuple[float, int] = (0.0, -1)
        self._found: list[Knowledge] = []

    def _fetch(self) -> tuple[bool, str]:
        """Ask for the entries; whether an answer has come, and what went wrong."""
        seq, now = self.model.state.seq, time.monotonic()
        if seq != self._asked[1] and now - self._asked[0] >= FRESH_SECONDS:
            self._asked = (now, seq)
        entry = self.asi.library.knowledge(self._asked[1], self.words, MOST)
        if entry.value is not None and entry.value is not self._found:
            chosen = self.chosen.id if self.chosen is not None else ""
            self._found = entry.value
            places = [index for index, one in enumerate(self._found) if one.id == chosen]
            self.cursor = places[0] if places else max(0, min(self.cursor, len(self._found) - 1))
        return entry.value is not None, entry.error

    @property
    def chosen(self) -> Knowledge | None:
        """The entry that the cursor is on."""
        return self._found[self.cursor] if self.cursor < len(self._found) else None

    # --- drawing ---------------------------------------------------------------------------------------------------

    def body(self, width: int, height: int) -> list[Row]:
        """The list, and the chosen entry beside or below it."""
        come, error = self._fetch()
        found = self._found if come else []
        title = f"knowledge: “{self.words}”" if self.words else "knowledge"
        note = self._note(len(found))
        if not found:
            return [rule(title, width, note), *self._empty(come, error, width)]
        if width >= WIDE:
            left = width * 2 // 5
            right = width - left - 3
            rows = self._list(found, left, height - 1)
            return [rule(title, width, note), *beside(rows, left, self._entry(found[self.cursor], right, height - 1))]
        above = max(3, min(len(found), (height - 2) // 2))
        rows = self._list(found, width, above)
        text = self._entry(found[self.cursor], width, height - 2 - above)
        return [rule(title, width, note), *rows, rule(found[self.cursor].id, width), *text]

    def _note(self, count: int) -> str:
        number = "1 entry" if count == 1 else f"{count:,} entries"
        if not count:
            return ""
        if count >= MOST:
            return f"the {'nearest' if self.words else 'newest'} {MOST:,}, / finds others"
        return f"{number}, {'best match' if self.words else 'newest'} first"

    def _empty(self, come: bool, error: str, width: int) -> list[Row]:
        if error and not come:
            return paragraph(f"not there: {error}", width, "warn")
        if not come:
            return [row((" on its way …" if self.model.connected else " waiting for the engine …", "dim"))]
        if self.words:
            return [row((" nothing known has to do with these words; Esc lists everything", "dim"))]
        return [BLANK, *paragraph(EMPTY, min(width, 90), "dim")]

    def _list(self, found: list[Knowledge], width: int, room: int) -> list[Row]:
        self.page = max(1, room)
        self.top = max(0, min(max(self.top, self.cursor - room + 1), self.cursor, max(0, len(found) - room)))
        rows = []
        name_width = 12
        for index in range(self.top, min(len(found), self.top + room)):
            one = found[index]
            text = fit(one.text, max(8, width - name_width - 4))
            line = row(" ", (fit(self._origin(one), name_width), "dim"), "  ", text)
            line = restyle(clip(line, width), "cursor", width) if index == self.cursor else clip(line, width)
            rows.append(tagged(line, f"entry:{index}"))
        return rows + [BLANK] * (room - len(rows))

    def _origin(self, one: Knowledge) -> str:
        """Where an entry comes from, short."""
        experiment = self._experiment(one)
        if experiment:
            return words.short_id(self.model.state.experiments[experiment])
        return one.source or one.id

    def _entry(self, one: Knowledge, width: int, room: int) -> list[Row]:
        """The chosen entry: its text, why it came up, where it comes from."""
        rows = paragraph(one.title or one.id, width, "strong")
        rows += [BLANK, *paragraph(one.text, width), BLANK]
        if one.why:
            rows += paragraph(f"why here: {one.why}", width, "dim")
        rows += paragraph(f"source: {one.source or one.id}", width, "dim")
        experiment = self._experiment(one)
        if experiment:
            entry = self.model.state.experiments[experiment]
            score = f", scored {words.scored(entry.scored)}" if entry.scored is not None else ""
            line = paragraph(f"experiment {entry.id} {words.title(entry)}{score}; Enter opens it", width, "accent")
            rows += [tagged(part, experiment) for part in line]
        last = max(0, len(rows) - max(1, room))
        self.down = min(self.down, last)
        return rows[self.down : self.down + max(0, room)]

    def _experiment(self, one: Knowledge) -> str:
        """The experiment that an entry names; empty where it names none."""
        known = self.model.state.experiments
        for text in (one.source, one.id):
            for word in re.split(r"[\s,/]+", text[:200]):
                if word in known:
                    return word
        return ""

    # --- keys ------------------------------------------------------------------------------------------------------

    def keys(self) -> list[Key]:
        """Searching, moving, opening."""
        keys = []
        if self.words:
            keys.append(Key(("escape",), "Esc", "all", "list everything again", lambda: self._search("")))
        if self.chosen is not None:
            keys.append(Key(("enter",), "Enter", "open", "open the experiment that taught it", self._open_chosen,
                            bool(self._experiment(self.chosen))))  # fmt: skip
        keys.append(Key(("/",), "/", "search", "find what has to do with some words", self._ask_search))
        keys += [
            Key(("up", "k"), "↑", "", "one entry up", lambda: self._move(-1), False),
            Key(("down", "j", "tab"), "↓", "", "one entry down", lambda: self._move(1), False),
            Key(("pageup", "ctrl+b"), "PgUp", "", "one page up", lambda: self._move(-self.page), False),
            Key(("pagedown", "space", "ctrl+f"), "PgDn", "", "one page down", lambda: self._move(self.page), False),
            Key(("home", "g"), "g", "", "to the first entry", lambda: self._move(-(10**9)), False),
            Key(("end", "G"), "G", "", "to the last entry", lambda: self._move(10**9), False),
            Key(("ctrl+d",), "^D", "", "a long text down", lambda: self._read(5), False),
            Key(("ctrl+u",), "^U", "", "a long text up", lambda: self._read(-5), False),
        ]
        return keys

    def copied(self) -> str:
        """The whole text of the chosen entry."""
        one = self.chosen
        return f"{one.title}\n\n{one.text}\n\n{one.source}" if one is not None else ""

    def _ask_search(self) -> None:
        self.ask("what has to do with:", self._search)

    def _search(self, typed: str) -> None:
        self.words = " ".join(typed.split())
        self.cursor = self.top = self.down = 0
        self._found, self._asked = [], (0.0, -1)

    def _move(self, by: int) -> None:
        self.cursor = max(0, min(len(self._found) - 1, self.cursor + by))
        self.down = 0

    def _read(self, by: int) -> None:
        self.down = max(0, self.down + by)

    def wheel(self, lines: int) -> None:
        """The wheel moves the cursor."""
        self._move(1 if lines > 0 else -1)

    def open(self, target: str) -> None:
        """A click chooses an entry, or opens the experiment of the chosen one."""
        if target.startswith("entry:"):
            self.cursor, self.down = int(target.removeprefix("entry:")), 0
        else:
            self.asi.open(target)

    def _open_chosen(self) -> None:
        one = self.chosen
        experiment = self._experiment(one) if one is not None else ""
        if experiment:
            self.asi.open(experiment)
        else:
            self.say("no experiment of this run taught it")
