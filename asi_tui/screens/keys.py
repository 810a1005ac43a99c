"""What can be pressed and what can be asked: the two small things that every screen speaks in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from asi_tui.lines import Row


class Key(NamedTuple):
    """One thing that can be pressed now: its key names, how it is shown, a word for the footer, a line for help.

    footer: whether it has a place there. click: whether a click on that place is as good as the key.
    """

    names: tuple[str, ...]
    shown: str
    word: str
    help: str
    run: Callable[[], object]
    footer: bool = True
    click: bool = True


class Question(NamedTuple):
    """A one-line question at the foot of the screen; Enter answers it, Esc drops it. Nothing else is blocked.

    text: what is asked; `short` where there is no room for it.
    rows: what is shown above the screen's own content while it is open, for a width and at most a height.
    dropped: what is said when it is dropped.
    typed: what stands in the answer at first.
    changed: told of every change of the answer, for searches that find while one types.
    completes: what Tab makes of what was typed. history: earlier answers, the oldest first, for up and down.
    """

    text: str
    answer: Callable[[str], object]
    short: str = ""
    rows: Callable[[int, int], list[Row]] = lambda width, height: []
    dropped: str = ""
    typed: str = ""
    changed: Callable[[str], object] = lambda typed: None
    completes: Callable[[str], str] | None = None
    history: Sequence[str] = ()


def typed_on(question: Question, typed: str, recalled: int, key: str, character: str) -> tuple[str, int]:
    """What a key makes of a half-typed answer; `recalled` counts back into the question's history."""
    if key == "backspace":
        return typed[:-1], recalled
    if key == "tab" and question.completes is not None:
        return question.completes(typed), recalled
    if key in ("up", "down") and question.history:
        back = max(0, min(len(question.history), recalled + (1 if key == "up" else -1)))
        return question.history[-back] if back else "", back
    if key == "ctrl+u":
        return "", recalled
    if key == "ctrl+w":
        return " ".join(typed.split()[:-1]), recalled
    return (typed + character if character.isprintable() else typed), recalled
