"""Mission control's lists: what is in flight, the newest and best results, what needs a person, the log."""

from __future__ import annotations

from asi_tui import words
from asi_tui.lines import Row, Span, clip, fit, row, rule, spread, tagged
from asi_tui.model import Model
from asi_tui.screens.parts import VERDICT_TONES, interval, score_cell, table
from asi_tui.screens.progress import progress
from store.state import Experiment

BEST = 10
"""Rows of the leaderboard that are shown here."""


def flight(model: Model, width: int, height: int) -> list[Row]:
    """Open experiments and the step each is at."""
    found = model.in_flight()
    proposals = sum(one.origin != "baseline" for one in found)
    beside_them = f", {words.plural(len(found) - proposals, 'baseline')}" if len(found) > proposals else ""
    rows = [rule("in flight", width, f"{words.plural(proposals, 'proposal')}{beside_them}" if found else "")]
    if not found:
        return [*rows, row((" nothing: " + _idle_reason(model), "dim"))]
    doing_width = max(21, min(40, width // 4))
    columns = [("", 6, ""), ("", width - doing_width - 33, ""), ("", 9, ""), ("", doing_width, ""), ("", 8, "right")]
    shown = found[: height - 1] if len(found) <= height - 1 else found[: height - 2]
    busy = {trial.experiment for trial in model.state.running_trials}
    lines = table(columns, [_flight_cells(model, one, one.id in busy) for one in shown])
    rows += [tagged(line, one.id) for line, one in zip(lines, shown, strict=True)]
    if len(found) > len(shown):
        rows.append(row((f" and {len(found) - len(shown)} more", "dim")))
    return rows


def _flight_cells(model: Model, found: Experiment, busy: bool) -> list[Span | str]:
    waits = found.step == "train" and not busy
    word = "held" if found.held else "queued" if waits else words.STEPS[found.step]
    style = "warn" if found.held or found.step in ("gate", "repair") else "dim" if waits else "accent"
    return [
        (words.short_id(found), "dim"),
        words.origin_mark(found) + words.title(found),
        (word, style),
        (_doing(model, found), "dim"),
        (words.age(model.now - found.opened), "dim"),
    ]


def _doing(model: Model, found: Experiment) -> str:
    trials = [trial for trial in model.state.running_trials if trial.experiment == found.id]
    if trials:
        return ", ".join(progress(model, trial) for trial in trials)
    step = model.doing.get(found.id)
    if step is not None:
        return f"{step.doing} {words.age(model.now - step.since)}"
    return found.failure if found.step == "repair" else ""


def _idle_reason(model: Model) -> str:
    phase = model.state.phase
    reasons = {"created": "the engine starts", "armed": "the loop begins", "running": "the next one is on its way"}
    return reasons.get(phase, phase)


def results(model: Model, width: int, height: int) -> list[Row]:
    """The newest verdicts, with their intervals."""
    found = model.results()
    rows = [rule("newest results", width, "score: gain over the baseline in units of its seed noise")]
    if not found:
        return [*rows, row((" none yet: a result needs a vetted program, a trial and a baseline", "dim"))]
    return [*rows, *_scored_rows(model, found[: max(1, height - 1)], width)]


def best(model: Model, width: int, height: int) -> list[Row]:
    """The head of the leaderboard."""
    ranking = model.ranking()
    if height < 3 or not ranking:
        return []
    shown = ranking[: min(BEST, height - 1)]
    return [rule("best so far", width, "press 5"), *_scored_rows(model, shown, width)]


def _scored_rows(model: Model, shown: list[Experiment], width: int) -> list[Row]:
    axis = max(14, min(40, width - 86)) if width >= 100 else 14 if width >= 90 else 0
    title_width = width - 42 - (axis + 2 if axis else 0)
    columns = [("", 6, ""), ("", 12, ""), ("", 6, ""), *([("", axis, "")] if axis else []), ("", title_width, ""),
               ("", 8, "right")]  # fmt: skip
    extent = max((abs(one.scored.score) for one in shown if one.scored), default=1.0) * 1.5 or 1.0
    star = model.best()
    cells: list[list[Span | str]] = []
    for found in shown:
        event = found.scored
        assert event is not None
        word = words.verdict(event.low, event.high)
        tone = VERDICT_TONES.get(word, "dim")
        mark = "★ " if found is star else ""
        line: list[Span | str] = [(words.short_id(found), "dim"), (score_cell(event), "strong"), (word, tone)]
        if axis:
            line.append((interval(event.score, event.low, event.high, extent, axis), tone))
        line += [mark + words.origin_mark(found) + words.title(found), (words.plural(event.seeds, "seed"), "dim")]
        cells.append(line)
    return [tagged(line, one.id) for line, one in zip(table(columns, cells), shown, strict=True)]


def needs(model: Model, width: int, height: int) -> list[Row]:
    """Pending requests, the one that waits at the highest cost first."""
    pending = model.pending()
    rows = [rule("needs you", width, "press 2" if pending else "")]
    if not pending:
        return [*rows, row((" nothing waits for you", "dim"))]
    room = height if len(pending) <= height else height - 1
    for request in pending[:room]:
        text = f" ! {request.id}  {words.asked_about(model.state, request)}  ({request.rule or request.risk})"
        others = model.looked_at(request.id)
        by = f"{others[0]} looks at it, " if others else ""
        left = request.expires - model.now
        waits = f"  {by}waits {words.age(model.now - request.asked)}, {words.age(left)} left "
        rows.append(tagged(spread(row((text, "warn")), row((waits, "dim")), width), request.id))
    if len(pending) > room:
        rows.append(row((f"   and {len(pending) - room} more", "dim")))
    return rows


def log(model: Model, width: int, height: int) -> list[Row]:
    """What happened, newest first."""
    if height < 2:
        return []
    newest = list(model.happenings)[-(height - 1) :]
    rows = [rule("log", width, "newest first")]
    for one in reversed(newest):
        found = model.state.experiments.get(one.experiment)
        name = f"{words.title(found)}: " if found is not None and found.origin == "baseline" else ""
        shown = words.short_id(found) if found is not None else ""
        line = clip(row((f" {words.clock(one.time)}  ", "dim"), (fit(shown, 6) + "  ", "dim"), (name, "dim"),
                        (one.text, one.style)), width)  # fmt: skip
        rows.append(tagged(line, one.experiment) if found is not None else line)
    return rows
