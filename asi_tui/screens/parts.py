"""Pieces that several screens show: tables, facts, findings, predictions, intervals, devices."""

from __future__ import annotations

from collections.abc import Sequence

from asi_tui import words
from asi_tui.lines import Row, Span, bar, clip, fit, paragraph, row
from engine.client.protocol import Device
from store.events import ExperimentScored
from store.state import Experiment

TONES = {"info": "dim", "low": "", "medium": "warn", "high": "bad"}
"""How each severity of a finding looks."""

VERDICT_TONES = {"better": "good", "worse": "bad"}


def table(columns: Sequence[tuple[str, int, str]], cells: Sequence[Sequence[Span | str]], indent: int = 1) -> list[Row]:
    """Rows with aligned columns; `columns` are `(head, width, align)`, a head of empty strings is left out."""
    out: list[Row] = []
    space = " " * indent
    if any(head for head, _, _ in columns):
        out.append(row((space + "  ".join(fit(head, width, align) for head, width, align in columns), "dim")))
    for line in cells:
        spans: list[Span] = [(space, "")]
        for index, ((_, width, align), cell) in enumerate(zip(columns, line, strict=True)):
            text, style = cell if isinstance(cell, tuple) else (cell, "")
            spans.append((("  " if index else "") + fit(text, width, align), style))
        out.append(tuple(spans))
    return out


def fact(name: str, text: str, width: int) -> list[Row]:
    """A named fact, wrapped under itself."""
    lines = paragraph(text, max(20, width - 14), "", "")
    return [(*row((f" {name if index == 0 else '':<12} ", "dim")), *line) for index, line in enumerate(lines)]


def finding_rows(found: Experiment, width: int) -> list[Row]:
    """The findings of an experiment, the gravest first."""
    rows: list[Row] = []
    for one in sorted(found.findings, key=lambda f: -words.SEVERITIES.index(f.severity)):
        where = f" (line {one.line})" if one.line else ""
        lines = paragraph(f"{one.kind}: {one.message}{where}", width - 10, "", "")
        for index, line in enumerate(lines):
            rows.append((*row((f" {one.severity if index == 0 else '':<8} ", TONES[one.severity])), *line))
    return rows or [row((" none", "dim"))]


def prediction_rows(found: Experiment, width: int) -> list[Row]:
    """Predictions, and beside each what came out, where it is known."""
    outcomes = {outcome.task: outcome for outcome in found.outcomes}
    rows: list[Row] = []
    for one in found.predictions:
        about = f" by about {one.size:g}" if one.size else ""
        spans: list[Span] = [(f" {one.task:<18} ", ""), (f"{one.direction}{about}", "strong")]
        outcome = outcomes.get(one.task)
        if outcome is not None:
            tone = {"held": "good", "not held": "bad"}.get(outcome.verdict, "dim")
            spans += [("   ", ""), (outcome.verdict, tone), (f", measured {words.signed(outcome.measured)}", "")]
        rows.append(clip(row(*spans), width))
        if one.reason:
            rows += paragraph(one.reason, width, "dim", " " * 20)
    return rows or [row((" none", "dim"))]


def interval(value: float, low: float, high: float, extent: float, width: int) -> str:
    """An interval drawn around zero: `├──●──┤`, with `│` at zero."""
    cells = [" "] * width

    def place(x: float) -> int:
        return max(0, min(width - 1, round((x / extent + 1) / 2 * (width - 1))))

    cells[place(0.0)] = "│"
    if words.known(low, high):
        first, last = place(low), place(high)
        for index in range(first + 1, last):
            cells[index] = "─"
        cells[first], cells[last] = "├", "┤"
    cells[place(value)] = "●"
    return "".join(cells)


def score_cell(event: ExperimentScored) -> str:
    """A score with its margin, in 12 cells."""
    return words.score_cell(event.score, event.low, event.high)


def device_row(device: Device, width: int) -> Row:
    """One GPU in a line."""
    return clip(row((" gpu ", "dim"), (bar(device.utilisation, 8), "accent"), f" {device.utilisation:4.0%}",
                    ("   memory ", "dim"), f"{device.memory_used / 2**30:.1f} of {words.size(device.memory_total)}",
                    (f"   {device.temperature:.0f} °C {device.power:.0f} W  ", "dim"), (device.name, "dim")),
                width)  # fmt: skip
