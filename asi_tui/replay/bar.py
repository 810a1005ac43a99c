"""The line above a replay, and its keys: nobody can take it for a live run."""

from __future__ import annotations

from collections.abc import Callable

from asi_tui import words
from asi_tui.lines import Row, bar, clip, fit, row, width_of
from asi_tui.model import Model
from asi_tui.replay.line import ReplayLine
from asi_tui.replay.places import HELP
from asi_tui.screens.keys import Key, Question

SMALLEST_BAR, LONGEST_BAR = 6, 60


def pace(speed: float) -> str:
    """A speed: `60×`, `10,000×`."""
    return f"{speed:,.0f}×"


class ReplayBar:
    """What the model's `replay` is: draws where the replay is, and offers its keys."""

    def __init__(self, model: Model, line: ReplayLine, put: Callable[[Question], object]) -> None:
        self.model = model
        self.line = line
        self._put = put

    # --- the bar ---------------------------------------------------------------------------------------------------

    @property
    def _pace(self) -> str:
        player, book = self.line.player, self.line.book
        if not book.complete and (not book.total or not player.seq):
            return f"reading {book.share:.0%}"
        if player.ended and book.complete:
            return "‖ at the end"
        return f"▸ {pace(player.speed)}" if player.playing else f"‖ paused ({pace(player.speed)})"

    def bar(self, width: int) -> Row:
        """The bar in `width` cells: what is dropped first is what is worth least."""
        player, book = self.line.player, self.line.book
        total = book.total
        end = book.time_of(total)
        share = player.seq / total if total else 0.0
        begin = book.time_of(1)
        more = "" if book.complete else "+"
        name = fit(self.model.name, min(len(self.model.name), 24 if width >= 100 else 12))
        state = self.model.state
        phase = words.phase_word(state.phase, True, self.model.known)
        waiting = len(state.pending)
        clock = words.clock(player.at) if total else "nothing is recorded" if book.complete else "…"
        passed = f"{words.age(player.at - begin)} of {words.age(end - begin)}{more}"
        record = f"record {player.seq:,} of {total:,}{more}"
        damage = "DAMAGED after it" if player.ended else "damaged at its end"
        parts = [
            (90, "REPLAY"), (60, name), (50, clock), (42, f"it was {phase}"), (20, passed), (47, record),
            (55, f"{share:.0%}"), (80, self._pace),
        ]  # fmt: skip
        if waiting:
            parts.append((30, f"{words.plural(waiting, 'approval')} waited"))
        if book.damage:
            parts.append((85, f"journal {damage}"))
        while len(parts) > 1 and width_of(_joined(parts)) > width - (SMALLEST_BAR + 3 if width >= 60 else 0):
            parts.remove(min(parts))
        line = _joined(parts)
        room = min(LONGEST_BAR, width - width_of(line) - 2)
        if room >= SMALLEST_BAR:
            line += row((f" {bar(share, room)} ", "replay"))
        return clip(line, width)

    # --- keys ------------------------------------------------------------------------------------------------------

    def keys(self) -> list[Key]:
        """Play, pause, faster, slower, jump."""
        player = self.line.player
        word = "again" if player.ended else "pause" if player.playing else "play"
        return [
            Key((".",), ".", word, "play or pause; at the end, play again from the start", self._toggle),
            Key((">", "+"), "<>", "speed", f"faster, up to {pace(10_000)}", lambda: self._faster(1), True, False),
            Key(("<", "-"), "<", "", f"slower, down to {pace(1)}", lambda: self._faster(-1), False),
            Key(("]",), "[]", "event", "to the next event that matters", lambda: self._event(1), True, False),
            Key(("[",), "[", "", "to the previous event that matters", lambda: self._event(-1), False),
            Key(("}",), "}", "", "to the next experiment", lambda: self._experiment(1), False),
            Key(("{",), "{", "", "to the previous experiment", lambda: self._experiment(-1), False),
            Key(("J",), "J", "jump", f"to a place: {HELP}", self._ask_place),
        ]

    def _toggle(self) -> None:
        if self.line.player.ended and self.line.book.complete:
            self.line.player.playing = True
            self.line.jump(1)
        else:
            self.line.player.toggle()

    def _faster(self, steps: int) -> None:
        self.line.player.faster(steps)

    def _event(self, step: int) -> None:
        self.line.player.playing = False
        self.line.jump(self.line.book.matters(self.line.seq, step))

    def _experiment(self, step: int) -> None:
        self.line.player.playing = False
        self.line.jump(self.line.book.opening(self.line.seq, step))

    def _ask_place(self) -> None:
        self._put(Question(f"Jump to ({HELP}):", self.line.jump_to, "Jump to:"))


def _joined(parts: list[tuple[int, str]]) -> Row:
    return row((" " + "  ".join(text for _, text in parts), "replay"))
