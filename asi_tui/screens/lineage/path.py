"""The way from a root to one experiment: what each step changed in the program, and what it gained."""

from __future__ import annotations

import asyncio
from itertools import pairwise

from asi_tui import words
from asi_tui.lines import BLANK, Row, clip, paragraph, row, rule
from asi_tui.screens.base import Watch
from asi_tui.screens.diff import diff_rows
from asi_tui.screens.keys import Key
from asi_tui.screens.lineage.lines import gain_span
from asi_tui.screens.parts import VERDICT_TONES
from store.state import Experiment

ASKED = 8
"""So many programs are asked for at a time: a long way must not push everything else out of the library."""

COMPARED = 400_000
"""Characters of a pair of programs beyond which they are not compared: a thread would be busy for minutes."""


class PathScreen(Watch):
    """One long page: a section per step, from the root on."""

    NAME = "Path"
    SCROLLS = True
    SEARCHES = True

    def __init__(self, path: list[str]) -> None:
        super().__init__()
        self.path = path
        self._texts: dict[str, str] = {}
        self._errors: dict[str, str] = {}
        self._diffs: dict[tuple[str, str], list[Row]] = {}
        self._diff_width = 0
        self._comparing = False
        self._starts: list[int] = []

    def body(self, width: int, height: int) -> list[Row]:
        """All steps, scrolled."""
        steps = [found for name in self.path if (found := self.model.state.experiments.get(name)) is not None]
        if len(steps) < 2:
            return [rule("path", width), row((" this experiment has no parent in the run", "dim"))]
        self._fetch(steps)
        self._compare(steps, width)
        rows: list[Row] = []
        self._starts = []
        for number, (parent, found) in enumerate(pairwise(steps), start=1):
            self._starts.append(len(rows))
            rows += self._section(number, parent, found, width)
        view = self.scrolled(rows, height - 1)
        title = f"{words.short_id(steps[0])} → {steps[-1].id}, {words.plural(len(steps) - 1, 'step')}"
        return [rule(title, width, self.position(len(rows))), *view]

    def keys(self) -> list[Key]:
        """Back, and from step to step."""
        return [
            Key(("escape", "backspace"), "Esc", "back", "back to the tree", self.app.pop_screen),
            Key(("tab", "right", "l"), "→", "next step", "to the next step", lambda: self._step(1)),
            Key(("shift+tab", "left", "h"), "←", "step before", "to the step before", lambda: self._step(-1)),
        ]

    def _step(self, by: int) -> None:
        here = [start for start in self._starts if (start > self.top if by > 0 else start < self.top)]
        if here:
            self.top = here[0 if by > 0 else -1]

    def _section(self, number: int, parent: Experiment, found: Experiment, width: int) -> list[Row]:
        gain, tone = gain_span(found, True)
        event = found.scored
        about = " ".join((words.short_id(parent), "→", found.id))
        rows = [rule(f"{number}. {about}", width), *paragraph(words.title(found), width, "strong")]
        if event is not None:
            known = words.verdict(event.low, event.high)
            line = [(f" score {words.scored(event)} ", VERDICT_TONES.get(known, "")), (known, "dim")]
            if gain:
                line += [("   against its parent ", "dim"), (" ".join(gain.split()), tone)]
            rows.append(clip(row(*line), width))
        else:
            rows.append(row((f" {found.outcome or words.STEPS[found.step]}", "dim")))
        rows += paragraph(found.change, width, "dim") if found.change else []
        return [*rows, *self._diff(parent, found), BLANK]

    def _diff(self, parent: Experiment, found: Experiment) -> list[Row]:
        for sha in (parent.program, found.program):
            if not sha:
                return [row((" there is no program yet", "dim"))]
            if sha in self._errors and sha not in self._texts:
                return [row((f" its program is not there: {self._errors[sha]}", "warn"))]
        return self._diffs.get((parent.program, found.program)) or [row((" on its way …", "dim"))]

    # --- programs --------------------------------------------------------------------------------------------------

    def _fetch(self, steps: list[Experiment]) -> None:
        """Ask for the next few programs that are not here."""
        missing = [sha for sha in dict.fromkeys(found.program for found in steps) if sha and sha not in self._texts]
        for sha in missing[:ASKED]:
            entry = self.asi.library.get("blob", sha, "", str)
            if entry.value is not None:
                self._texts[sha] = entry.value
                self._errors.pop(sha, None)
            elif entry.error:
                self._errors[sha] = entry.error

    def _compare(self, steps: list[Experiment], width: int) -> None:
        """Have the next pair of programs compared by a thread."""
        if width != self._diff_width:
            self._diffs, self._diff_width = {}, width
        pairs = [(parent.program, found.program) for parent, found in pairwise(steps)]
        ready = [pair for pair in pairs if pair not in self._diffs and all(sha in self._texts for sha in pair)]
        if ready and not self._comparing:
            self._comparing = True
            self.run_worker(self._work(ready, width))

    async def _work(self, pairs: list[tuple[str, str]], width: int) -> None:
        try:
            for pair in pairs:
                old, new = (self._texts[sha] for sha in pair)
                rows = [row((" too long to be compared here", "dim"))]
                if len(old) + len(new) < COMPARED:
                    rows = await asyncio.to_thread(diff_rows, old, new, width)
                if width != self._diff_width:
                    return
                self._diffs[pair] = rows
        finally:
            self._comparing = False
            if self.is_current:
                self.draw()
