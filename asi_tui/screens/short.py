"""What every screen shows in a window that is too small for it: the run, its state, what waits, the way out."""

from __future__ import annotations

from asi_tui import words
from asi_tui.lines import BLANK, Row, clip, fit, pad, paragraph, row
from asi_tui.model import Model
from asi_tui.presence import WARNING_SECONDS
from asi_tui.screens.header import phase_span

SMALLEST = (60, 16)
"""Below this many columns and lines every screen shows the short form."""


def situation(model: Model) -> str:
    """What goes on, in a sentence or two; the latch goes before everything that the engine has said."""
    facts = model.facts
    if facts.latched:
        return words.latched_situation(facts.latched, facts.puller, model.name)
    return words.situation(model.state, model.name)


def short_rows(model: Model, asked: list[Row], footer: Row | None, width: int, height: int) -> list[Row]:
    """The whole picture; `asked` and `footer` belong to an open question, else the last line says how to leave."""
    state = model.state
    line = "REPLAY" if model.replay is not None else "live" if model.connected else "NOT CONNECTED"
    name = fit(model.name, min(len(model.name), 14))
    head = pad(row((f" {name} {phase_span(model)[0]} {line}", "bar.strong")), width, "bar")
    room = max(0, height - 2)
    rows = [*asked, *paragraph(situation(model), width)]
    if model.deadman_left and model.deadman_left <= WARNING_SECONDS:
        rows.insert(0, row((f" dead-man {words.age(model.deadman_left)}: press any key", "warn")))
    if state.pending:
        rows.append(row((f" {words.plural(len(state.pending), 'approval')} waiting", "warn")))
    best = model.best()
    if best is not None and best.scored is not None:
        rows.append(row(" best ", (words.scored(best.scored), "strong"), f" {best.title}"))
    rows.append(row((f" more at {SMALLEST[0]}×{SMALLEST[1]} and above", "dim")))
    last = footer if footer is not None else row(("q leave", "bar"), (" ^\\ STOP ", "bar.bad"))
    rows = [clip(line, width) for line in rows[:room]]
    picture = [head, *rows, *[BLANK] * (room - len(rows)), pad(last, width, "bar")]
    return picture[:height] if height > 1 else [picture[-1]]
