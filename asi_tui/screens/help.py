"""The keys of a screen, and what the words on it mean."""

from __future__ import annotations

from asi_tui.lines import BLANK, Row, beside, fit, paragraph, row, rule
from asi_tui.screens.base import Watch
from asi_tui.screens.keys import Key

GLOSSARY = (
    ("score", "gain over the baseline, in units of the baseline's own seed-to-seed noise; ± is half a 95 % interval"),
    ("better / worse", "the interval excludes zero; open: it does not, more seeds are needed"),
    ("noise floor", "how much the baseline differs from itself over seeds; known from five seeds on"),
    ("candidate", "a proposal's program on its way: written, compared, vetted, assessed, approved, trained, judged"),
    ("baseline", "a known architecture trained in the same way; scores are differences to the first of them"),
    ("control", "a proposal whose parent was drawn at random: shows whether choosing parents helps"),
    ("seed", "one training with its own random numbers; more seeds make the interval narrower"),
    ("vetting", "causality, shapes, cost and more, tested in the sandbox before any score counts"),
    ("tier", "the scale of a trial: sizes, tasks and steps"),
    ("Pareto", "nothing else is better in one of the two measures without being worse in the other"),
    ("exponent", "how cost grows with the length of the sequence: 1 is linear, 2 is quadratic"),
    ("duplicate", "repeats an earlier program, in its text, its behaviour or its motivation; it is not trained"),
    ("cheat", "the sealed checks disagree with what a trial reported; it has no score"),
    ("reserved", "what work in flight will still use, by prediction; budgets count it"),
    ("forecast", "when a cap is reached at the pace of the last two hours of work"),
    ("chain", "each record holds the hash of the one before: a changed journal shows when it is verified"),
    ("L3 … L0", "the measured sandbox level: L3 and L2 full isolation, L1 partial, L0 none"),
    ("latched", "the emergency stop was pulled: nothing starts until somebody re-arms, with a reason and a new drill"),
    ("A0 … A4", "autonomy: proposes only, asks for every program, as the policy says, asks for risk, free in budget"),
    ("R1 … R4", "risk: one person with time to undo; a code and two people; reasons and a wait too; never approved"),
    ("blind", "where two people decide, neither is shown the other's answer before giving an own one"),
    ("dead-man", "where it is set, the run pauses or freezes when no person has pressed a key for too long"),
    ("witness", "two words known only to this terminal: the real stop screen carries them"),
)


WIDE = 140
"""From this width on the words stand beside the keys."""

GAP = 3


class HelpScreen(Watch):
    """Lists what can be pressed on the screen it was called from."""

    NAME = "Help"
    SCROLLS = True

    def __init__(self, about: str, listed: list[Key]) -> None:
        super().__init__()
        self._about = about
        self._listed = listed

    def body(self, width: int, height: int) -> list[Row]:
        """Keys, then words."""
        if width < WIDE:
            return self.scrolled([*self._keys(width), BLANK, *_words(width)], height)
        half = (width - GAP) // 2
        return self.scrolled(beside(self._keys(half), half, _words(half), GAP), height)

    def _keys(self, width: int) -> list[Row]:
        rows = [rule(f"keys on {self._about}", width)]
        shown = (key for key in self._listed if key.names != ("?",))
        for key in shown:
            first, *others = paragraph(key.help, width - 9, "", "") or [BLANK]
            rows.append((*row((f"   {fit(key.shown, 6)}", "strong")), *first))
            rows += [(*row(" " * 9), *line) for line in others]
        stop = "or F12: EMERGENCY STOP. Freezes everything at once, kills after 10 s; pressed again it kills now. "
        first, *others = paragraph(stop + "Works without the engine.", width - 11, "", "")
        rows += [(*row(("   Ctrl+\\ ", "bad")), *first), *((*row(" " * 11), *line) for line in others)]
        return [*rows, BLANK, row("   this terminal's witness: ", (self.asi.emergency.witness, "strong"))]

    def keys(self) -> list[Key]:
        """Back to where one came from."""
        return [Key(("escape", "?", "enter"), "Esc", "back", "back", self.app.pop_screen)]


def _words(width: int) -> list[Row]:
    """What the words on the screens mean."""
    rows = [rule("words", width)]
    for word, meaning in GLOSSARY:
        first, *others = paragraph(meaning, width - 18, "dim", "")
        rows.append((*row((f"   {fit(word, 15)}", "")), *first))
        rows += [(*row(" " * 18), *line) for line in others]
    return rows
