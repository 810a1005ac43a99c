"""The last line of every screen: a question, a message, or what can be pressed; the stop key always at its right."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len

from asi_tui.lines import Row, Span, fit, row, spread, tagged, width_of
from asi_tui.model import Model
from asi_tui.screens.keys import Key, Question

TYPING_ROOM = 10
"""Cells that stay for the answer before a question takes its short form."""

LEAST_TYPING_ROOM = 5
"""Cells that stay for it in any case, whatever of the question has to go."""

STOP_TARGET = "key:stop"


def question_row(question: Question, typed: str, room: int) -> Row:
    """A question and what has been typed; its end stays in view."""
    text = question.text
    if question.short and cell_len(text) + TYPING_ROOM > room:
        text = question.short
    if cell_len(text) + LEAST_TYPING_ROOM > room:
        text = fit(text, max(1, room - LEAST_TYPING_ROOM))
    tail = max(8, room - cell_len(text) - 4)
    return row((f" {text} ", "bar.strong"), (typed[-tail:], "bar"), ("▏", "bar.strong"))


def stop_label(model: Model, width: int) -> Row:
    """The stop key, and how else to stop where the engine is not connected."""
    if model.replay is not None:
        return row((" replay: nothing to stop " if width >= 100 else " replay ", "bar.dim"))
    if model.connected:
        label: Span = (" ^\\ STOP ", "bar.bad")
    elif model.ever_connected and not model.over:
        command = f"asi kill {model.name}"
        long = f" not connected: ^\\ STOP or `{command}` "
        label = (long if width >= 100 else f" ^\\ or `{command}` ", "alarm")
    else:
        label = (" ^\\ STOP ", "bar.dim")
    return tagged(row(label), STOP_TARGET)


def hint(key: Key) -> Row:
    """One key in the footer; a click on it presses it, where that is allowed."""
    line = row((f" {key.shown}", "bar.strong"), (f" {key.word}", "bar"))
    return tagged(line, f"key:{key.names[0]}") if key.click else line


def footer_row(
    keys: Sequence[Key], screens: Sequence[Sequence[Key]], shared: Sequence[Key], stop: Row, width: int
) -> Row:
    """The keys that fit: the screen's own, the numbered screens (in the longest of their forms), the shared ones.

    Where nothing fits, the screen's last keys go first: help lists them all, so help itself stays.
    """
    room = width - width_of(stop)
    own = [key for key in keys if key.footer]
    common = [key for key in shared if key.footer]
    forms = [(own, form) for form in screens] + [(own[:count], screens[-1]) for count in reversed(range(len(own)))]
    line: Row = ()
    for some, form in forms:
        line = tuple(span for key in (*some, *form, *common) for span in hint(key))
        if width_of(line) <= room:
            break
    return spread(line, stop, width, "bar")
