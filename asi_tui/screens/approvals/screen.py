"""Screen 2, approvals: the queue above, the card of one request below, how people have decided of late at the foot.

A card stays until the person moves on: one that is decided elsewhere says so in its place, and a new request only joins
the queue, so that no key meets another request than the one that was read.
"""

from __future__ import annotations

import time

from asi_tui import words
from asi_tui.briefing import meter_words
from asi_tui.difference import compare
from asi_tui.lines import BLANK, Row, Span, clip, paragraph, row, rule, tagged, text_of
from asi_tui.screens.approvals.card import (
    SIDE,
    WIDE,
    View,
    card_rows,
    code_of,
    finding_notes,
    needs_code,
    program_width,
    views,
)
from asi_tui.screens.approvals.deciding import Deciding
from asi_tui.screens.approvals.queue import matches, queue_row
from asi_tui.screens.approvals.votes import standing_rows, tested, vote_rows
from asi_tui.screens.diff import side_rows, source_rows, unified_rows
from asi_tui.screens.kept import Kept
from asi_tui.screens.keys import Key, Question
from store.attention import attention
from store.state import Experiment, Request

QUEUE = 4
"""Rows of the queue at least, where so many wait."""


class ApprovalsScreen(Deciding):
    """A queue of requests and the card of one of them."""

    NAME = "Approvals"
    SHORT = "Approvals"
    SCROLLS = True
    SEARCHES = True

    def __init__(self) -> None:
        super().__init__()
        self.view = 0
        self.side = False
        self.filter = ""
        self._to_program = self._on_its_way = False
        self._card: tuple[object, list[Row]] = (None, [])
        self._programs: Kept[list[Row]] = Kept(self)

    def on_screen_resume(self) -> None:
        """Coming back to the card starts the quiet period anew; what was decided meanwhile is put away."""
        if self.open_request is None:
            self.choose("")
        self.shown_since = time.monotonic()
        if self.chosen:
            self.reading(self.chosen).begin(self.shown_since)
        super().on_screen_resume()

    def on_screen_suspend(self) -> None:
        """Nobody looks at the card any more."""
        if self.chosen:
            self.reading(self.chosen).end(time.monotonic())
        self.asi.look("")

    def waiting(self) -> list[Request]:
        """The requests that the filter leaves, in the order of the queue."""
        pending = self.model.pending()
        return [one for one in pending if matches(self.model.state, one, self.filter)] if self.filter else pending

    def choose(self, request: str) -> None:
        """Show the card of one request; the quiet period begins anew."""
        if request != self.chosen:
            now = time.monotonic()
            if self.chosen:
                self.reading(self.chosen).end(now)
            self.chosen, self.shown_since, self.top, self.view = request, now, 0, 0
            if request and self.is_current:
                self.reading(request).begin(now)

    # --- drawing ---------------------------------------------------------------------------------------------------

    def body(self, width: int, height: int) -> list[Row]:
        """The queue, the card, the meter."""
        waiting = self.waiting()
        if self.request is None:
            self.choose(waiting[0].id if waiting else "")
        request = self.request
        meter = self._meter(width)
        if request is None:
            return [*self._history(width, height - len(meter)), *meter]
        self.asi.look(request.id if request.decision is None else "")
        self.prepare_rule()
        rows = self._queue(waiting, request, width, max(QUEUE, height // 8))
        standing = [*standing_rows(self.model, request, self.me, width), *self.question_rows(request, width)]
        card = self._card_rows(request, width)
        self._show_program(request, card)
        room = height - len(rows) - 1 - len(standing) - len(meter)
        view = self.scrolled(card, room)
        if self.is_current and self.question is None:
            self.reading(request.id).view(self._card[0], self.top, room, len(card))
        about = f"{request.id} for {request.experiment}" if request.experiment else request.id
        code = f", code {code_of(request)}" if needs_code(self.model, request) else ""
        risk = f", risk {request.risk}" if request.subject == "program" else ""
        head = rule(f"{about}{risk}{code}", width, self.position(len(card)))
        return [*rows, head, *standing, *view, *[BLANK] * (room - len(view)), *meter]

    def _queue(self, waiting: list[Request], request: Request, width: int, most: int) -> list[Row]:
        shown = waiting[:most]
        if request not in shown:
            shown = [*shown[: most - 1], request]
        note = f"{len(waiting)} in all, ← → chooses" if len(waiting) > 1 else ""
        if self.filter:
            note = f"{len(waiting)} of {len(self.model.pending())}: “{self.filter[:30]}”, f changes"
        marks = {one.id for one in self.marks()}
        return [
            rule("waiting", width, f"{len(marks)} marked, {note}" if marks else note),
            *(queue_row(self.model, one, one.id == self.chosen, one.id in marks, self.me, width) for one in shown),
        ]

    def _meter(self, width: int) -> list[Row]:
        found = attention(self.model.state, self.model.now)
        if found.warning:
            return paragraph(f"! {found.warning}", width, "warn")[:2]
        told = meter_words(found)
        return paragraph(told, width, "dim")[:2] if told else []

    def _card_rows(self, request: Request, width: int) -> list[Row]:
        if request.subject != "program":
            rows = vote_rows(self.model.state, request, self.me, width)
            self._card = ((request.id, width), rows)
            return rows
        found = self.model.state.experiments[request.experiment]
        view = self._view(request)
        side = self.side and width >= SIDE and bool(view.base)
        program = self._program(request, found, view, side, program_width(width, side))
        self._on_its_way = program is None
        others = tuple(self.model.looked_at(request.id))
        key = (request.id, width, program is None, len(found.findings), view, side, others, found.held)
        if self._card[0] != key:
            self._card = (key, card_rows(self.model, request, view, program, side, width))
        return self._card[1]

    def _view(self, request: Request) -> View:
        offered = views(self.model, request)
        return offered[self.view % len(offered)]

    def _program(self, request: Request, found: Experiment, view: View, side: bool, width: int) -> list[Row] | None:
        """The rows of the program, made in a thread; None while they are on their way."""
        new = self.asi.library.blob(request.program)
        old = self.asi.library.blob(view.base) if view.base else ""
        if new is None or old is None:
            return None
        notes = finding_notes(found.findings, width)

        def work() -> list[Row]:
            if not view.base:
                return source_rows(new, width, notes)
            difference = compare(old, new)
            return side_rows(difference, width, notes) if side else unified_rows(difference, width, notes)

        return self._programs.get((request.program, view.base, width, side, tuple(found.findings)), work)

    def _history(self, width: int, height: int) -> list[Row]:
        empty = f" nothing that waits has to do with “{self.filter[:40]}”: f changes the filter"
        waits = bool(self.filter and self.model.pending())
        rows = [rule("waiting", width), row((empty if waits else " nothing waits for you", "dim")), BLANK]
        decided = [one for one in self.model.state.requests.values() if one.decision is not None]
        if decided:
            rows.append(rule("decided", width))
            for one in sorted(decided, key=lambda r: -r.decided)[: max(0, height - len(rows))]:
                tone = "good" if one.decision == "approve" else "warn"
                test = ("a test of attention  ", "warn") if tested(self.model.state, one) else ("", "")
                parts: list[Span] = [(f" {words.clock(one.decided)}  ", "dim"), (f"{one.id}  ", ""),
                                     (f"{words.DECIDED[one.decision or 'defer']:<8}  ", tone),
                                     (f"{words.person(one.who)}  ", "dim"), test,
                                     (words.asked_about(self.model.state, one), "")]  # fmt: skip
                rows.append(tagged(clip(row(*parts, (f"  {one.reason}", "dim")), width), one.experiment))
        return rows + [BLANK] * (height - len(rows))

    # --- keys ------------------------------------------------------------------------------------------------------

    def keys(self) -> list[Key]:
        """Deciding is offered only while there is something to decide."""
        request = self.request
        if request is None:
            return self._filter_keys()
        keys = self.deciding_keys()
        others = [one for one in self.waiting() if one.id != self.chosen]
        if others:
            keys.append(Key(("right", "l", "tab"), "→", "next", "the next request", lambda: self.step(1)))
            keys.append(Key(("left", "h", "shift+tab"), "←", "", "the previous request", lambda: self.step(-1), False))
        elif request.decision is not None:
            keys.append(Key(("escape", "right", "l"), "Esc", "back", "put this card away", lambda: self.choose("")))
        if request.subject == "program":
            keys += self._looking_keys(request)
        return [*keys, *self._filter_keys()]

    def _looking_keys(self, request: Request) -> list[Key]:
        keys = []
        if len(views(self.model, request)) > 1:
            about = "against what was approved before, against the parent, or the whole program"
            keys.append(Key(("w",), "w", "whole", about, self._turn, False))
        if self._view(request).base:
            keys.append(Key(("s",), "s", "side", "the difference side by side, or in one column", self._sides, False))
        return [
            *keys,
            Key(("x",), "x", "story", "the experiment's whole story", lambda: self.open(request.experiment), False),
            Key(("t",), "t", "talk", "what the agents said about it", lambda: self._talk(request), False),
        ]

    def _filter_keys(self) -> list[Key]:
        if not self.model.pending() and not self.filter:
            return []
        about = "show only requests with some words: title, origin, rule, finding, severity, risk, subject"
        return [Key(("f",), "f", "filter", about, self._ask_filter, False)]

    def _ask_filter(self) -> None:
        self.put(Question("show only requests about (nothing: all):", self._set_filter, "only:", typed=self.filter))

    def _set_filter(self, typed: str) -> None:
        self.filter = " ".join(typed.split())
        if self.open_request not in self.waiting():
            self.choose("")

    def _turn(self) -> None:
        self.view, self.top, self._to_program = self.view + 1, 0, True

    def _show_program(self, request: Request, card: list[Row]) -> None:
        """After a change of view, begin where the program does: in a narrow window that is far below the facts."""
        if self._to_program and request.subject == "program":
            title = self._view(request).title
            at = next((index for index, line in enumerate(card) if title in text_of(line)), 0)
            self.top = at if self.size.width < WIDE else 0
        self._to_program = self._to_program and self._on_its_way

    def _sides(self) -> None:
        if self.size.width < SIDE:
            self.say(f"side by side needs a window of {SIDE} columns; this one has {self.size.width}", bad=True)
        else:
            self.side = not self.side

    def _talk(self, request: Request) -> None:
        """The transcript: from the answer to one's question on where there is one, else from its beginning."""
        answer = self.answer_to_question(request)
        self.asi.read(request.experiment, f"reply {answer.role} {answer.started}" if answer is not None else "")

    def step(self, by: int) -> None:
        """The next card or the previous one; from a decided card on to the first that waits."""
        ids = [one.id for one in self.waiting()]
        if self.chosen in ids:
            self.choose(ids[(ids.index(self.chosen) + by) % len(ids)])
        elif ids:
            self.choose(ids[0])
