"""The card of one request: what is asked, what could go wrong, what was promised, what it costs, and the program."""

from __future__ import annotations

from typing import NamedTuple

from asi_tui import words
from asi_tui.lines import BLANK, Row, beside, clip, paragraph, row, rule
from asi_tui.model import Model
from asi_tui.screens.approvals.votes import BLIND, people
from asi_tui.screens.parts import TONES, fact, finding_rows, prediction_rows
from store.events import Finding
from store.state import Experiment, Request

WIDE = 130
"""From this width on the facts stand beside the program."""

SIDE = 150
"""From this width on the old program can stand beside the new one."""

GAP = 3
CODE_LENGTH = 4


class View(NamedTuple):
    """What of the program is shown: whole, or against another one (`base`, its hash), which `title` tells."""

    title: str
    base: str


def views(model: Model, request: Request) -> list[View]:
    """The ways to look at a program: against what was approved before, against its parent, whole."""
    found = model.state.experiments[request.experiment]
    parent = model.state.experiments.get(found.parent)
    out = []
    if request.approved and request.approved != request.program:
        out.append(View(f"program against {request.approved[:8]}…, which was approved before", request.approved))
    if parent is not None:
        out.append(View(f"program against its parent {found.parent}", parent.program))
    return [*out, View("the whole program", "")]


def code_of(request: Request) -> str:
    """What has to be typed where approving needs a code: letters of the program's hash."""
    return request.program[:CODE_LENGTH]


def needs_code(model: Model, request: Request) -> bool:
    """Whether approving needs a code: by its risk, or for a finding of high severity."""
    found = model.state.experiments.get(request.experiment)
    high = found is not None and words.severity(found.findings) == "high"
    return request.subject == "program" and (request.risk >= "R2" or high)


def card_rows(
    model: Model, request: Request, view: View, program: list[Row] | None, side: bool, width: int
) -> list[Row]:
    """The whole card, for the screen to scroll; `program` are the rows for `program_width`, None on their way."""
    found = model.state.experiments[request.experiment]
    below = program_width(width, side) == width
    notes = "" if all(one.line for one in found.findings) else "findings without a line stand above"
    text = [rule(view.title, program_width(width, side), notes)]
    text += program if program is not None else [row((" on its way …", "dim"))]
    if width < WIDE:
        return [*_asked(model, request, found, width), *_evidence(found, width), *text]
    left = (width - GAP) // 2 if below else width * 2 // 5
    if below:
        right = width - GAP - left
        facts = beside(_asked(model, request, found, left), left, _evidence(found, right), GAP)
        return [*facts, BLANK, *text]
    facts = [*_asked(model, request, found, left), *_evidence(found, left)]
    return beside(facts, left, text, GAP)


def program_width(width: int, side: bool) -> int:
    """How wide the program is shown: beside the facts, or below them."""
    return width if width < WIDE or side else width - width * 2 // 5 - GAP


def _asked(model: Model, request: Request, found: Experiment, width: int) -> list[Row]:
    others = model.looked_at(request.id)
    rows = paragraph(words.title(found), width, "strong")
    if others:
        rows += paragraph(f"{', '.join(others)} looks at this request too", width, "warn")
    if found.held:
        rows += paragraph("HELD: nothing new starts for it, whatever is decided here", width, "warn")
    rows += fact("policy", f"rule “{request.rule or 'default'}” asks: {_how(model, request)}", width)
    if request.risk == "R4":
        rows += paragraph("R4: this touches engine, guard, audit or stop path and can never be approved", width, "bad")
    scope = f", up to {words.span(request.cpu_seconds)} of cpu in all" if request.cpu_seconds else ""
    rows += fact("approval", f"for program {request.program[:8]}… at tier {request.tier}{scope}; unanswered until "
                 f"{words.clock(request.expires)} it is a refusal", width)  # fmt: skip
    rows += finding_block(found, width)
    rows += fact("cost", _cost(found), width)
    new = f"; novelty {found.novelty:.2f} of 1" if found.novelty < 1 else ""
    rows += fact("change", f"{found.change or 'not described'}{new}", width)
    rows += fact("motivation", found.motivation or "not given", width)
    rows += fact("hypothesis", found.hypothesis, width) if found.hypothesis else []
    if request.approved and found.diagnoses:
        rows += fact("repair", found.diagnoses[-1], width)
    return rows


def _how(model: Model, request: Request) -> str:
    """How deliberate the decision must be."""
    parts = [request.risk, people(request.people) + (f" of {request.of}" if request.of else "")]
    if needs_code(model, request):
        parts.append(f"type the code {code_of(request)}" + (" and a reason" if request.risk == "R3" else ""))
    if request.risk == "R3":
        parts.append("then a wait before it takes effect")
    return ", ".join(parts) + (f"; {BLIND}" if request.people > 1 else "")


def _cost(found: Experiment) -> str:
    cpu = f"about {words.span(found.predicted_cpu_seconds)} of cpu a trial"
    if found.predicted_cpu_high > found.predicted_cpu_low:
        cpu += f" ({words.span(found.predicted_cpu_low)} to {words.span(found.predicted_cpu_high)})"
    return f"{cpu}, {words.count(found.parameters)} parameters, {words.count(found.state_floats)} state floats"


def finding_block(found: Experiment, width: int) -> list[Row]:
    """The findings under their own head."""
    return [rule("findings", width, _counted(found.findings)), *finding_rows(found, width), rule("proposal", width)]


def _evidence(found: Experiment, width: int) -> list[Row]:
    rows = [rule("predictions, made before the run", width), *prediction_rows(found, width)]
    passed = sum(gate.passed for gate in found.gates)
    rows.append(rule("vetting", width, f"{passed} of {len(found.gates)} gates passed" if found.gates else ""))
    for gate in [gate for gate in found.gates if not gate.passed]:
        rows += paragraph(f"✗ {gate.gate}: {gate.evidence}", width, "bad")
    if found.gates:
        names = ", ".join(gate.gate for gate in found.gates if gate.passed)
        rows += paragraph(f"✓ {names}; cost grows with length to the power {found.cost_exponent:.2f}", width, "dim")
    return rows


def _counted(findings: list[Finding]) -> str:
    """How many findings there are of each severity, the gravest first."""
    counts = [(level, sum(one.severity == level for one in findings)) for level in reversed(words.SEVERITIES)]
    return ", ".join(f"{count} {level}" for level, count in counts if count)


def finding_notes(findings: list[Finding], width: int) -> dict[int, list[Row]]:
    """Findings as rows to stand below the lines that they speak of, by line number."""
    notes: dict[int, list[Row]] = {}
    for one in findings:
        if one.line:
            tone = TONES[one.severity] or "strong"
            text = f"line {one.line}: {one.severity}, {one.kind}: {one.message}"
            notes.setdefault(one.line, []).append(clip(row(("      ▲ " + text, tone)), width))
    return notes
