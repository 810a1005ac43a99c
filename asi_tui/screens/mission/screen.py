"""How mission control is laid out: one column at 80, two from 130, a wall of three on a very wide screen."""

from __future__ import annotations

from asi_tui import words
from asi_tui.lines import BLANK, Row, beside, paragraph
from asi_tui.screens.base import Watch
from asi_tui.screens.ending import end_key
from asi_tui.screens.keys import Key
from asi_tui.screens.mission import gauges, work
from asi_tui.screens.short import situation
from asi_tui.screens.steering import vote_key

WIDE = 130
"""From this width on there are two columns."""

WALL = 200
"""And from here on three."""

GAP = 3


class MissionScreen(Watch):
    """Everything needed to decide whether one has to act."""

    NAME = "Mission"
    SHORT = "Mission"
    LINKS = True

    def body(self, width: int, height: int) -> list[Row]:
        """The picture for this width."""
        head = self._head(width)
        room = height - len(head)
        if width >= WALL:
            return [*head, *self._wall(width, room)]
        if width >= WIDE:
            return [*head, *self._two_columns(width, room)]
        return [*head, *self._one_column(width, room)]

    def keys(self) -> list[Key]:
        """Ending a trial, a vote on pausing."""
        return [*end_key(self), *vote_key(self)]

    def _head(self, width: int) -> list[Row]:
        model = self.model
        if not model.known:
            text = f"{'Reading the record' if model.replay else 'Waiting for the engine'} of {model.name}"
            reason = f": {model.lost_reason}" if model.lost_reason else "…"
            rows = [BLANK, *paragraph(text + reason, width, "strong")]
            if model.facts.latched:
                rows += paragraph(situation(model), width, "bad")
            elif model.lost_reason and model.facts.engine is None:
                text = f"It is not alive; `asi run {model.name}` starts it, and engine.log in its folder says why."
                rows += paragraph(text, width, "dim")
            return [*rows, BLANK]
        rows = paragraph(situation(model), width, "bad" if model.facts.latched else "strong")
        if not model.connected and not model.over:
            old = words.age(model.clock() - model.lost_at)
            text = f"No line to the engine ({model.lost_reason}). This picture is {old} old; trying again by itself."
            rows += paragraph(text, width, "bad")
            engine = model.facts.engine
            text = f"The engine is not alive: `asi run {model.name}` goes on where it was."
            rows += paragraph(text if engine is None else f"The engine (pid {engine}) is alive.", width, "dim")
        return [*rows, BLANK] if width >= WIDE else rows

    def _one_column(self, width: int, room: int) -> list[Row]:
        model = self.model
        needs, machine = work.needs(model, width, 3), gauges.machine(model, self._figures, width)
        flexible = room - len(needs) - len(machine)
        flight = work.flight(model, width, max(4, flexible * 2 // 5 + 1))
        results = work.results(model, width, max(3, (flexible - len(flight)) * 3 // 5 + 1))
        log = work.log(model, width, flexible - len(flight) - len(results))
        return [*flight, *results, *needs, *machine, *log]

    def _two_columns(self, width: int, room: int) -> list[Row]:
        model = self.model
        left_width = width * 3 // 5
        right_width = width - left_width - GAP
        left = [*work.flight(model, left_width, room // 2), BLANK]
        left += [*work.results(model, left_width, min(room - len(left), max(8, room // 4))), BLANK]
        left += work.best(model, left_width, room - len(left))
        right = [*work.needs(model, right_width, 6), BLANK, *gauges.machine(model, self._figures, right_width), BLANK]
        right += work.log(model, right_width, room - len(right))
        return beside(left, left_width, right, GAP)

    def _wall(self, width: int, room: int) -> list[Row]:
        model = self.model
        left_width, right_width = width * 2 // 5, width * 3 // 10
        middle_width = width - left_width - right_width - 2 * GAP
        left = [*work.flight(model, left_width, room // 2), BLANK]
        left += [*work.results(model, left_width, room - len(left)), BLANK]
        middle = [*work.best(model, middle_width, room // 2), BLANK]
        middle += gauges.curve(model, middle_width, min(30, room - len(middle)))
        right = [*work.needs(model, right_width, 8), BLANK, *gauges.machine(model, self._figures, right_width), BLANK]
        right += work.log(model, right_width, room - len(right))
        return beside(beside(left, left_width, middle, GAP), left_width + GAP + middle_width, right, GAP)

    @property
    def _figures(self) -> gauges.Figures:
        return gauges.Figures(self.asi.config, self.asi.emergency.witness, self.asi.who)
