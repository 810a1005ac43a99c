"""The morning brief: what needs you, what changed since you last looked, what is left of the budget, what comes next.

On a screen of 24 lines a night's brief is one page; what does not fit is counted, and scrolled to with more lines.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from asi_tui import briefing, words
from asi_tui.briefing import Brief, Item, Situation
from asi_tui.forecast import Forecast
from asi_tui.lines import BLANK, Row, bar, beside, clip, fit, paragraph, row, rule, tagged
from asi_tui.screens.base import Watch
from asi_tui.screens.keys import Key
from asi_tui.screens.parts import VERDICT_TONES, interval, score_cell
from asi_tui.screens.short import situation
from asi_tui.seen import last_seen, remember_seen
from asi_tui.sizes import size_of

WIDE = 130
"""From this width on there are two columns."""

OLD_SECONDS = 5.0
"""How old a brief may be where nothing has changed that a person must know at once."""

Part = tuple[str, str, list[Row]]
"""A title, a note at its right, its rows."""


class BriefScreen(Watch):
    """One page for the one who comes back; `a` says that it was read."""

    NAME = "Brief"
    SHORT = "Brief"
    LINKS = True

    def __init__(self) -> None:
        super().__init__()
        self.since: float | None = None
        self.looked = False
        self.all = False
        self._disk: float | None = None
        self._made: tuple[object, Brief | None] = (None, None)
        self._cut = False

    def on_mount(self) -> None:
        """When one last looked, and how large the run is, are on the disk: a thread reads them."""
        self.run_worker(self._look())

    async def _look(self) -> None:
        since = await asyncio.to_thread(last_seen, self.asi.root)
        self.since = self.since if self.looked else since
        self.looked = True
        self.draw()
        self._disk = await asyncio.to_thread(size_of, self.asi.root)
        self.draw()

    def look_back(self, since: float) -> None:
        """Tell what changed since another time than that of the last look."""
        self.since, self.looked = since, True
        self.draw()

    def brief(self) -> Brief:
        """The brief as of now."""
        model = self.model
        latched = situation(model) if model.facts.latched else ""
        alive = model.connected or model.facts.engine is not None
        facts = Situation(latched, alive, self._disk)
        # Requests, the phase, the latch and what the person asked for show at once; all else may be a little old.
        stamp = (self.since, facts, model.state.phase, tuple(one.id for one in model.state.pending))
        old, made = self._made
        if made is None or old != stamp or not 0.0 <= model.now - made.now < OLD_SECONDS:
            made = briefing.brief(model.state, self.asi.config, model.now, self.since, facts)
            self._made = (stamp, made)
        return made

    # --- drawing ---------------------------------------------------------------------------------------------------

    def body(self, width: int, height: int) -> list[Row]:
        """The five parts."""
        if not self.model.known:
            text = self.model.lost_reason or "waiting for the engine …"
            return [rule("morning brief", width), row((f" {text}", "dim"))]
        found = self.brief()
        since = briefing.since_words(found) if self.looked else ""
        if width >= WIDE:
            half = (width - 3) // 2
            other = width - half - 3
            lessons = [line for one in found.learned for line in _whole(one, other)]
            left_parts = [*self._before(found, half, since), ("best so far", "press 5", self._board(found, half))]
            right_parts = [*self._after(found, other), ("learned", "", lessons or [row((" nothing yet", "dim"))])]
            left = self._column(left_parts, half, height)
            right = self._column(right_parts, other, height)
            rows = beside(left, half, right)
        else:
            rows = self._column([*self._before(found, width, since), *self._after(found, width)], width, height)
        self._cut = any("more lines" in text for line in rows for text, _ in line)
        return self.scrolled(rows, height) if self.all else rows[:height]

    def _before(self, found: Brief, width: int, since: str) -> list[Part]:
        needs = [_item(one, width, "! ") for one in found.needs]
        needs = needs or [row((" nothing waits for you", "dim"))]
        waiting = len(self.model.state.pending)
        note = f"{words.plural(waiting, 'request')}, press 2" if waiting else ""
        return [("needs you", note, needs), ("what changed", since, [_item(one, width) for one in found.changed])]

    def _after(self, found: Brief, width: int) -> list[Part]:
        strange = [_item(one, width) for one in found.anomalies] or [row((" none", "dim"))]
        return [
            ("spent", "forecasts at the pace of recent work", _spending(found.spending, width)),
            ("anomalies and cheats", "", strange),
            ("next", "", [_item(one, width) for one in found.next]),
        ]

    def _board(self, found: Brief, width: int) -> list[Row]:
        """The first ranks with their intervals, for screens that have the room."""
        known = self.model.state.experiments
        shown = [known[name] for name in found.leaders if name in known and known[name].scored is not None]
        extent = max((abs(one.scored.score) for one in shown if one.scored), default=1.0) * 1.5 or 1.0
        rows: list[Row] = []
        for place, one in enumerate(shown, start=1):
            event = one.scored
            assert event is not None
            verdict = words.verdict(event.low, event.high)
            tone = VERDICT_TONES.get(verdict, "dim")
            drawn = interval(event.score, event.low, event.high, extent, 21)
            line = row((f" {place:>2}  {fit(words.short_id(one), 6)} ", "dim"), (score_cell(event), "strong"),
                       (f" {drawn} ", tone), (f"{verdict:<6} ", tone), words.title(one))  # fmt: skip
            rows.append(tagged(clip(line, width), one.id))
        return rows or [row((" nothing is ranked yet", "dim"))]

    def _column(self, parts: Sequence[Part], width: int, height: int) -> list[Row]:
        """The parts below each other; where there is no room, the longest give way."""
        total = height - len(parts)
        shares = _shares([len(rows) for _, _, rows in parts], 10**6 if self.all else total)
        used = sum(shares) + len(parts)
        airy = height - used >= len(parts) - 1 or self.all
        out: list[Row] = []
        for (title, note, rows), share in zip(parts, shares, strict=True):
            if out and airy:
                out.append(BLANK)
            out.append(rule(title, width, note))
            shown = rows if len(rows) <= share else rows[: max(0, share - 1)]
            out += shown
            if len(shown) < len(rows) and share:
                out.append(row((f"   {len(rows) - len(shown)} more lines, m shows them", "dim")))
        return out

    # --- keys ------------------------------------------------------------------------------------------------------

    def keys(self) -> list[Key]:
        """Back, read, all of it."""
        keys = [Key(("escape", "backspace"), "Esc", "back", "back", self.app.pop_screen)]
        if self.looked and self.model.known:
            keys.append(Key(("a",), "a", "read", "I have read this: the next brief begins here", self._acknowledge))
        if self._cut or self.all:
            keys.append(Key(("m",), "m", "less" if self.all else "more", "all lines, or one page", self._more))
        if self.all:
            keys += [
                Key(("pagedown", "space"), "PgDn", "", "one page down", lambda: self.scroll_lines(self.page), False),
                Key(("pageup",), "PgUp", "", "one page up", lambda: self.scroll_lines(-self.page), False),
                Key(("home", "g"), "g", "", "to the beginning", lambda: self.scroll_lines(-(10**9)), False),
                Key(("end", "G"), "G", "", "to the end", lambda: self.scroll_lines(10**9), False),
            ]
        return keys

    def wheel(self, lines: int) -> None:
        """The wheel scrolls what is longer than the screen, else it moves the cursor."""
        if self.all:
            self.scroll_lines(lines)
        else:
            super().wheel(lines)

    def _more(self) -> None:
        self.all, self.top, self.links.chosen = not self.all, 0, None

    def _acknowledge(self) -> None:
        self.run_worker(self._remember(self.model.clock()))

    async def _remember(self, when: float) -> None:
        problem = await asyncio.to_thread(remember_seen, self.asi.root, when)
        if problem:
            self.say(f"not noted: {problem}", bad=True)
        else:
            self.since = when
            self.say("noted: the next brief tells what changes from now on")


def _item(one: Item, width: int, mark: str = "  ") -> Row:
    """One line of a part."""
    mark = mark if one.tone in ("bad", "warn") else "  "
    line = clip(row((" " + mark, one.tone), (one.text, one.tone)), width)
    return tagged(line, one.target) if one.target else line


def _whole(one: Item, width: int) -> list[Row]:
    """A line of a part, wrapped: what was learned is to be read."""
    first, *others = paragraph(one.text, width, "", "   ")
    return [tagged(line, one.target) for line in (first, *others)]


def _spending(found: Sequence[Forecast], width: int) -> list[Row]:
    """A line for each currency: used, of what, a bar, when the cap is reached."""
    if not found:
        return [row((" nothing yet", "dim"))]
    rows: list[Row] = []
    for one in found:
        tone = "bad" if one.share >= 1 else "warn" if one.share >= 0.8 else "accent"
        line = row((f"   {one.label:<13}", "dim"), f"{one.spent:<27} ")
        if one.cap:
            text = (one.text, tone if tone in ("bad", "warn") else "dim")
            line += row((bar(one.share, 8), tone), f" {one.share:4.0%}  ", text)
        else:
            line += row((one.text, "dim"))
        rows.append(clip(line, width))
    return rows


def _shares(wanted: Sequence[int], total: int) -> list[int]:
    """How many lines each part gets: what it wants, or where that is too much, the longest give way evenly."""
    shares = list(wanted)
    while sum(shares) > max(total, len(wanted)):
        longest = max(range(len(shares)), key=lambda index: (shares[index], index))
        if shares[longest] <= 1:
            break
        shares[longest] -= 1
    return shares
