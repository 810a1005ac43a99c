"""What could go wrong with a program, as findings with evidence. Findings decide nothing; the policy reads them."""

from __future__ import annotations

from collections.abc import Iterable

from engine.domain import SourceFinding, VetReport
from store.events import Finding

LEVELS = ("L0", "L1", "L2", "L3")
DEAR_CPU_SECONDS = 300.0


def assess(
    source: Iterable[SourceFinding], report: VetReport, cpu_seconds: float, level: str, wanted_level: str
) -> list[Finding]:
    """Findings from the source, the vetting report, the predicted cost and the sandbox's level, worst first."""
    found = [Finding(item.kind, "high" if item.error else "low", item.message, item.line) for item in source]
    if report.dead_parameters:
        names = ", ".join(report.dead_parameters[:4])
        found.append(Finding("dead_parameters", "low", f"{len(report.dead_parameters)} never get a gradient: {names}"))
    for gate in report.gates:
        if gate.gate == "complexity" and report.cost_exponent > 1.2:
            found.append(Finding("cost_growth", "low", f"cost grows as T^{report.cost_exponent:.2f}: {gate.evidence}"))
    if cpu_seconds > DEAR_CPU_SECONDS:
        found.append(Finding("resources", "medium", f"one trial is predicted to take {cpu_seconds:.0f} CPU-seconds"))
    if LEVELS.index(level) < LEVELS.index(wanted_level):
        text = f"the sandbox is {level} on this machine, {wanted_level} was asked for"
        found.append(Finding("isolation", "high" if level == "L0" else "medium", text))
    order = ("high", "medium", "low", "info")
    return sorted(found, key=lambda finding: (order.index(finding.severity), finding.line))
