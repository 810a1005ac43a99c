"""Three curves and their sentences, measured by a thread and drawn from what it found."""

from __future__ import annotations

import asyncio
import time

from asi_tui.growth import Clock, Growth, Outcome, measure, observe
from asi_tui.lines import BLANK, Row, beside, paragraph, row, rule
from asi_tui.screens.base import Watch
from asi_tui.screens.keys import Key
from asi_tui.screens.scaling.charts import TITLES, VIEWS, Look, View, picture
from asi_tui.screens.scaling.sentences import EMPTY, sentences

WIDE = 150
BESIDE = 110
LOWEST, TALLEST = 11, 32
"""Rows that a picture has at least and at most, its legend included."""

LEAST_SECONDS = 2.0
REST = 10.0
"""A new measurement waits so many seconds, or so many times as long as the last one took."""


class ScalingScreen(Watch):
    """Screen 7, scaling."""

    NAME = "Scaling"
    SHORT = "Scale"
    SCROLLS = True

    def __init__(self) -> None:
        super().__init__()
        self.clock: Clock = "hours"
        self.logarithmic = False
        self.view: View = "count"
        self.in_words = False
        self.growth: Growth | None = None
        self._outcomes: list[Outcome] | None = None
        self._measured_seq = -1
        self._measuring = False
        self._next = 0.0
        self._drawn: tuple[object, list[Row]] = (None, [])

    # --- data ------------------------------------------------------------------------------------------------------

    def _keep_up(self) -> None:
        """Have a thread measure what is new, not too often."""
        if self._measuring or not self.model.known or self.model.state.seq == self._measured_seq:
            return
        if time.monotonic() >= self._next:
            self._measuring = True
            self.run_worker(self._measure())

    async def _measure(self) -> None:
        began, seq = time.monotonic(), self.model.state.seq
        try:
            outcomes = await asyncio.to_thread(observe, self.model.state)
            if outcomes != self._outcomes:
                self.growth = await asyncio.to_thread(measure, outcomes) if outcomes else None
                self._outcomes = outcomes
            self._measured_seq = seq
        finally:
            self._measuring = False
            self._next = time.monotonic() + max(LEAST_SECONDS, REST * (time.monotonic() - began))
        if self.is_current:
            self.draw()

    # --- drawing ---------------------------------------------------------------------------------------------------

    def body(self, width: int, height: int) -> list[Row]:
        """All three pictures where they fit, else one; or the sentences alone."""
        self._keep_up()
        growth = self.growth
        if growth is None:
            text = EMPTY if self._outcomes is not None or not self.model.known else "The curves are being computed …"
            return [rule("scaling", width), *paragraph(text, min(width, 100), "dim")]
        look = Look(self.clock if growth.search.hours + growth.controls.hours > 0 else "experiments", self.logarithmic)
        key = (id(growth), look, self.view, width, height, self.in_words)
        if self._drawn[0] != key:
            self._drawn = (key, self._rows(growth, look, width, height))
        rows = self._drawn[1]
        if self.in_words:
            view = self.scrolled(rows, height - 1)
            return [rule("scaling, in words", width, self.position(len(rows))), *view]
        self._text = ()
        return rows

    def _rows(self, growth: Growth, look: Look, width: int, height: int) -> list[Row]:
        if self.in_words:
            return self._words(growth, look, width)
        if width < WIDE:
            return self._one(growth, look, width, height)
        third = (width - 4) // 3
        told = [_said(growth, view, look, third) for view in VIEWS]
        room = max(height // 2, min(height - 1 - max(map(len, told)), TALLEST))
        columns = [
            [self._title(view, look, third), *(drawn := picture(growth, view, look, third, room)),
             *[BLANK] * (room - len(drawn)), *_cut(said, height - 1 - room)]
            for view, said in zip(VIEWS, told, strict=True)
        ]  # fmt: skip
        return beside(beside(columns[0], third, columns[1], 2), 2 * third + 2, columns[2], 2)

    def _title(self, view: View, look: Look, width: int) -> Row:
        scale = "log " if look.log else ""
        return rule(TITLES[view], width, f"by {scale}{'CPU time' if look.clock == 'hours' else 'experiments'}")

    def _words(self, growth: Growth, look: Look, width: int) -> list[Row]:
        rows: list[Row] = []
        for view in VIEWS:
            rows += [row((f" {TITLES[view]}", "title")), *_said(growth, view, look, min(width, 100)), BLANK]
        return rows[:-1]

    def _one(self, growth: Growth, look: Look, width: int, height: int) -> list[Row]:
        """One picture with its sentences below it, or beside it."""
        title = self._title(self.view, look, width)
        if width >= BESIDE:
            left = width * 3 // 5
            drawn = picture(growth, self.view, look, left, min(height - 1, TALLEST))
            told = _said(growth, self.view, look, width - left - 2)
            return [title, *beside(drawn, left, _cut(told, height - 1), 2)]
        told = _said(growth, self.view, look, width)
        room = min(max(height - 1 - len(told), LOWEST), height - 4, TALLEST)
        drawn = picture(growth, self.view, look, width, room)
        return [title, *drawn, *_cut(told, height - 1 - len(drawn))]

    # --- keys ------------------------------------------------------------------------------------------------------

    def keys(self) -> list[Key]:
        """Another picture, another axis."""
        if self.growth is None:
            return []
        if self.in_words:
            return [Key(("w", "escape"), "w", "curves", "back to the curves", self._toggle_words)]
        keys = []
        if self.size.width < WIDE:
            keys.append(Key(("t", "tab"), "t", "next curve", "count, best score, children against parents", self._turn))
        clock = "experiments" if self.clock == "hours" else "CPU time"
        if self.growth.search.hours + self.growth.controls.hours > 0:
            keys.append(Key(("x",), "x", clock, f"draw against {clock}", self._other_clock))
        word = "linear" if self.logarithmic else "log"
        keys.append(Key(("l",), "l", word, "a linear or a logarithmic x axis", self._toggle_log))
        keys.append(Key(("w",), "w", "words", "all that the curves say, in words", self._toggle_words))
        return keys

    def scroll_keys(self) -> list[Key]:
        """Only the sentences scroll."""
        return super().scroll_keys() if self.in_words else []

    def _turn(self) -> None:
        self.view = VIEWS[(VIEWS.index(self.view) + 1) % len(VIEWS)]

    def _other_clock(self) -> None:
        self.clock = "experiments" if self.clock == "hours" else "hours"

    def _toggle_log(self) -> None:
        self.logarithmic = not self.logarithmic

    def _toggle_words(self) -> None:
        self.in_words, self.top = not self.in_words, 0


def _said(growth: Growth, view: View, look: Look, width: int) -> list[Row]:
    """The sentences of one picture; the first one is the answer."""
    rows: list[Row] = []
    for index, sentence in enumerate(sentences(growth, view, look)):
        rows += paragraph(sentence, width, "strong" if index == 0 else "")
    return rows


def _cut(rows: list[Row], height: int) -> list[Row]:
    """At most `height` rows; what is missing is said."""
    if len(rows) <= height:
        return rows
    return [*rows[: max(0, height - 1)], row((" … w shows all of it", "faint"))][: max(0, height)]
