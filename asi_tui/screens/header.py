"""The first line of every screen: the run, its state, the sandbox and its last drill, what waits, the connection.

Each part has forms from long to short, and each form says what it is worth. While the line is too long, the part whose
form is worth least takes its next one; so the state, the approvals and the connection are the last to give way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from asi_tui import words
from asi_tui.lines import Row, Span, fit, pad, row, spread, width_of
from asi_tui.model import Model
from asi_tui.presence import WARNING_SECONDS
from store.config import RunConfig

ALWAYS = 100

AUTONOMY = {
    "A0": "proposes only",
    "A1": "asks always",
    "A2": "by the policy",
    "A3": "asks for risk",
    "A4": "free in budget",
}
"""The levels of autonomy in a word or two."""

BETWEEN: Span = (" │ ", "bar.dim")


class Form(NamedTuple):
    """One way to say a part, and what saying it this way is worth."""

    worth: int
    spans: tuple[Span, ...]


def arrange(parts: Sequence[Sequence[Form]], width: int) -> Row:
    """The parts in the longest forms that fit beside each other; a last form without spans drops its part."""
    left = [list(forms) for forms in parts if forms]
    while True:
        shown = [forms[0].spans for forms in left if forms[0].spans]
        line = tuple(span for index, spans in enumerate(shown) for span in ((BETWEEN, *spans) if index else spans))
        shorter = [forms for forms in left if len(forms) > 1]
        if width_of(line) <= width or not shorter:
            return row(*line)
        min(shorter, key=lambda forms: forms[0].worth).pop(0)


def header_row(model: Model, config: RunConfig, width: int) -> Row:
    """The header in `width` cells."""
    if model.replay is not None:
        return pad(model.replay.bar(width), width, "replay")
    line = line_state(model, width)
    parts = [
        _state(model, width), _deadman(model), _sandbox(model), _autonomy(model), _approvals(model),
        _count(model, config), _best(model), _people(model), _leaks(model), _agents(model),
    ]  # fmt: skip
    return spread(arrange(parts, width - width_of(line)), line, width, "bar")


def line_state(model: Model, width: int) -> Row:
    """The connection to the engine."""
    if model.connected:
        return row((" ● live ", "bar.good"))
    if model.over:
        return row((" ○ engine ended ", "bar.dim"))
    if not model.ever_connected:
        return row((" ○ connecting ", "bar.warn"))
    old = words.age(model.clock() - model.lost_at)
    return row((f" NOT CONNECTED, picture {old} old " if width >= 100 else " NOT CONNECTED ", "alarm"))


def phase_span(model: Model) -> Span:
    """The state in a word or two."""
    latched = model.facts.latched
    phase = words.phase_word(model.state.phase, model.connected, model.known, latched)
    return (phase, "bar.bad" if latched or phase == "KILLED" else "bar.good" if phase == "RUNNING" else "bar.warn")


def _state(model: Model, width: int) -> list[Form]:
    forms = []
    for worth, cells in ((95, 40 if width >= 100 else 12), (ALWAYS, 8)):
        name = fit(model.name, min(len(model.name), cells))
        forms.append(Form(worth, ((f" {name} ", "bar.strong"), phase_span(model))))
    return forms


def _deadman(model: Model) -> list[Form]:
    left = model.deadman_left
    if not left or left > WARNING_SECONDS:
        return []
    text = f"dead-man {words.age(left)}"
    return [
        Form(45, ((f"{text}: press any key", "bar.warn"),)),
        Form(70, ((f"{text}!", "bar.warn"),)),
        Form(0, ()),
    ]


def _sandbox(model: Model) -> list[Form]:
    armed = model.state.armed
    if armed is None:
        return [Form(60, (("not armed", "bar.dim"),))]
    word = words.LEVELS.get(armed.level, armed.level)
    name = f"{armed.level} {word}"
    if armed.level in ("L0", "L1"):
        return [
            Form(10, ((name, "bar.bad"), (f" · {words.drill(armed)}", "bar"))),
            Form(ALWAYS, ((name, "bar.bad"),)),
        ]
    forms = [
        f"{name} · {words.drill(armed)}", f"{name} · drill {armed.killed_ms:.0f} ms",
        f"{armed.level} drill {armed.killed_ms:.0f} ms", armed.level,
    ]  # fmt: skip
    return [Form(worth, ((text, "bar"),)) for worth, text in zip((12, 14, 16, 60), forms, strict=True)]


def _autonomy(model: Model) -> list[Form]:
    """How much the run may do by itself."""
    level = model.state.autonomy
    tone = "bar.warn" if level in ("A3", "A4") else "bar"
    return [Form(9, ((f"{level} {AUTONOMY[level]}", tone),)), Form(ALWAYS, ((level, tone),))]


def _approvals(model: Model) -> list[Form]:
    pending = len(model.state.pending)
    return [Form(ALWAYS, ((f"{pending} to approve{'!' if pending else ''}", "bar.warn" if pending else "bar.dim"),))]


def _count(model: Model, config: RunConfig) -> list[Form]:
    proposals = model.state.proposals
    done = sum(not found.open for found in proposals)
    total = config.loop.experiments or config.budget.experiments or len(proposals)
    long = f"{done} of {total} done, {len(proposals) - done} open"
    short = f"{done}/{total}"
    forms = [Form(worth, ((text, "bar"),)) for worth, text in ((10, long), (18, f"{short} done"), (30, short))]
    return [*forms, Form(0, ())]


def _people(model: Model) -> list[Form]:
    """How many terminals watch, where there is more than this one."""
    here = len(model.supervisors())
    return [Form(25, ((f"{here} here", "bar"),)), Form(0, ())] if here > 1 else []


def _leaks(model: Model) -> list[Form]:
    """Processes of the run that belong to nothing alive."""
    strays = model.load.strays if model.load is not None and model.connected else None
    return [Form(ALWAYS, ((f"LEAK {len(strays)}", "bar.bad"),))] if strays else []


def _agents(model: Model) -> list[Form]:
    """Who proposes: the offline evolver, or which models."""
    who = model.state.agents
    return [Form(11, ((f"by {fit(who, min(len(who), 32))}", "bar"),)), Form(0, ())] if who else []


def _best(model: Model) -> list[Form]:
    best = model.best()
    if best is None or best.scored is None:
        return []
    return [Form(20, (("best ", "bar.dim"), (words.scored(best.scored), "bar.strong"))), Form(0, ())]
