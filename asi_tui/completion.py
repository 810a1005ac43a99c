"""What Tab makes of a line after `:`, and the words that could stand there."""

from __future__ import annotations

import argparse
import functools
from collections.abc import Iterable
from typing import TYPE_CHECKING

from asi_tui.arguments import parser
from asi_tui.lines import Row, clip, row

if TYPE_CHECKING:
    from asi_tui.app import AsiApp

OWN: dict[str, str] = {
    "set": "theme, ascii, mouse, bell, alerts, signing_key",
    "screenshot": "this screen as an SVG file",
    "help": "the keys of this screen",
    "quit": "leave; the run goes on",
}
"""Words that only the app has."""

SETTINGS: dict[str, tuple[str, ...]] = {
    "theme": ("dark", "light", "plain"),
    "ascii": ("on", "off"),
    "mouse": ("on", "off"),
    "bell": ("on", "off"),
    "alerts": ("auto", "osc9", "osc777", "off"),
}
"""What `set` sets, and to what."""

MOST_SHOWN = 40


@functools.cache
def _shell_words() -> dict[str, str]:
    """The shell command's words and what they are for."""
    for action in parser()._actions:
        if isinstance(action, argparse._SubParsersAction):
            return {choice.dest: choice.help or "" for choice in action._choices_actions}
    return {}


SHELL = frozenset(_shell_words())
"""The shell command's words."""


def about(word: str) -> str:
    """What a word does, in a few words."""
    return OWN.get(word) or _shell_words().get(word, "")


def candidates(app: AsiApp, typed: str) -> list[str]:
    """What the last word of a line could be."""
    *before, last = typed.split(" ") if typed else [""]
    return [name for name in _possible(app, [word for word in before if word]) if name.startswith(last)]


def _possible(app: AsiApp, before: list[str]) -> Iterable[str]:
    state = app.model.state
    if not before:
        return [*sorted(SHELL | OWN.keys()), *(request.id for request in state.pending), *state.experiments]
    word = before[0]
    if word == "set":
        return SETTINGS if len(before) == 1 else SETTINGS.get(before[1], ()) if len(before) == 2 else ()
    if word in ("approve", "reject", "defer"):
        return [name for request in state.pending for name in (request.id, request.experiment)]
    if word in ("show", "transcript"):
        return state.experiments
    if word == "end":
        return [trial.id for trial in state.running_trials]
    return ()


def complete(app: AsiApp, typed: str) -> str:
    """The line with its last word completed as far as there is no choice."""
    found = candidates(app, typed)
    last = typed.rpartition(" ")[2]
    if not found:
        return typed
    first, final = min(found), max(found)
    common = next((first[:place] for place, letter in enumerate(first) if final[place : place + 1] != letter), first)
    if len(found) == 1:
        common += " "
    return typed[: len(typed) - len(last)] + common if len(common) > len(last) else typed


def rows(app: AsiApp, width: int) -> list[Row]:
    """One line above the screen while one types: what could stand there, or what the one word does."""
    typed = app.front.typed if app.front is not None else ""
    word = typed.split(" ")[0]
    if " " in typed and word in SHELL | OWN.keys():
        names = candidates(app, typed)[:MOST_SHOWN]
        return [clip(row((f" {word}: {about(word)}   ", "dim"), (" ".join(names), "accent")), width)]
    names = candidates(app, typed)
    if len(names) == 1 and about(names[0]):
        return [clip(row((f" {names[0]}", "accent"), (f": {about(names[0])}", "dim")), width)]
    return [clip(row((" " + " ".join(names[:MOST_SHOWN]), "dim")), width)] if names else []
