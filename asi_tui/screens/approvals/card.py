"""The card of one request: what is asked, what could go wrong, what was promised, what it costs, and the program."""

from __future__ import annotations

from typing import NamedTuple

from asi_tui import words
from asi_tui.lines import BLANK, Row, beside, clip, paragraph, row, rule
from asi_tui.model import Model
from asi_tui.screens.parts import TONES, diff_rows, fact, finding_rows, prediction_rows, source_rows
from store.events import Finding
from store.state import Experiment, Request

WIDE = 130
"""From this width on the facts stand beside the program."""

GAP = 3


class Texts(NamedTuple):
    """The program that is asked about and what it is compared with; None while they are on their way."""

    new: str | None
    old: str | None
    whole: bool


def card_rows(model: Model, request: Request, texts: Texts, width: int) -> list[Row]:
    """The whole card, for the screen to scroll."""
    found = model.state.experiments[request.experiment]
    if width < WIDE:
        return [*_asked(model, request, found, width), *_evidence(found, width), BLANK, *_program(found, texts, width)]
    facts_width = width * 2 // 5
    facts = [*_asked(model, request, found, facts_width), *_evidence(found, facts_width)]
    program = _program(found, texts, width - facts_width - GAP)
    return beside(facts, facts_width, program, GAP)


def _asked(model: Model, request: Request, found: Experiment, width: int) -> list[Row]:
    others = model.looked_at(request.id)
    rows = paragraph(words.title(found), width, "strong")
    if others:
        rows += paragraph(f"{', '.join(others)} looks at this request too", width, "warn")
    rows += fact("asked by", f"rule {request.rule}, tier {request.tier}", width)
    code = request.program[:16]
    rows += fact("program", f"{code}… (approval holds for these bytes, at this tier, until it expires)", width)
    cost = f"about {words.span(found.predicted_cpu_seconds)} of cpu, {words.count(found.parameters)} parameters, "
    rows += fact("cost", f"{cost}{words.count(found.state_floats)} state floats", width)
    rows += fact("change", found.change or "not described", width)
    rows += fact("motivation", found.motivation or "not given", width)
    rows += fact("hypothesis", found.hypothesis, width) if found.hypothesis else []
    return rows


def _evidence(found: Experiment, width: int) -> list[Row]:
    rows = [BLANK, rule("findings", width, _counted(found.findings)), *finding_rows(found, width)]
    rows += [BLANK, rule("predictions, made before the run", width), *prediction_rows(found, width)]
    passed = sum(gate.passed for gate in found.gates)
    rows += [BLANK, rule("vetting", width, f"{passed} of {len(found.gates)} gates passed" if found.gates else "")]
    failed = [gate for gate in found.gates if not gate.passed]
    for gate in failed:
        rows += paragraph(f"✗ {gate.gate}: {gate.evidence}", width, "bad")
    if found.gates:
        names = ", ".join(gate.gate for gate in found.gates if gate.passed)
        rows += paragraph(f"✓ {names}; cost grows with length to the power {found.cost_exponent:.2f}", width, "dim")
    return rows


def _counted(findings: list[Finding]) -> str:
    """How many findings there are of each severity, the gravest first."""
    counts = [(level, sum(one.severity == level for one in findings)) for level in reversed(words.SEVERITIES)]
    return ", ".join(f"{count} {level}" for level, count in counts if count)


def _program(found: Experiment, texts: Texts, width: int) -> list[Row]:
    compared = bool(found.parent) and not texts.whole
    title = f"program against its parent {found.parent}" if compared else "the whole program"
    if texts.new is None or texts.old is None:
        return [rule(title, width), row((" on its way …", "dim"))]
    notes = finding_notes(found.findings, width)
    unplaced = "" if all(one.line for one in found.findings) else "findings without a line stand above"
    rows = [rule(title, width, unplaced)]
    return rows + (diff_rows(texts.old, texts.new, width, notes) if compared else source_rows(texts.new, width, notes))


def finding_notes(findings: list[Finding], width: int) -> dict[int, list[Row]]:
    """Findings as rows to stand below the lines that they speak of, by line number."""
    notes: dict[int, list[Row]] = {}
    for one in findings:
        if one.line:
            tone = TONES[one.severity] or "strong"
            text = f"line {one.line}: {one.severity}, {one.kind}: {one.message}"
            notes.setdefault(one.line, []).append(clip(row(("      ▲ " + text, tone)), width))
    return notes
