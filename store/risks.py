"""What a risk finding may speak of, and how deliberate a decision about it must be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from store.events import Finding, Risk

Severity = Literal["info", "low", "medium", "high"]
SEVERITIES: tuple[Severity, ...] = ("info", "low", "medium", "high")

Concern = Literal["stop", "harness", "capability", "resources", "science", "change", "isolation", "form"]

KINDS: dict[str, Concern] = {
    # engine, guard, audit or stop path
    "stop_path": "stop",
    # torch, or what trains and scores the program
    "harness": "harness",
    "patch": "harness",
    "global_state": "harness",
    "override": "harness",
    # what the program could do beside computing
    "import": "capability",
    "dynamic": "capability",
    "attribute": "capability",
    "file": "capability",
    "process": "capability",
    "network": "capability",
    "literal": "capability",
    "obfuscation": "capability",
    "hook": "capability",
    "global": "capability",
    # what it would use up
    "resources": "resources",
    "memory": "resources",
    "tokens": "resources",
    "money": "resources",
    # whether its score would mean something
    "leak": "science",
    "quadratic": "science",
    "fft": "science",
    "near_duplicate": "science",
    "dead_parameters": "science",
    "cost_growth": "science",
    "state_growth": "science",
    # what is asked for, beside what was approved before
    "stage": "change",
    "drift": "change",
    # what would stand between it and the machine
    "isolation": "isolation",
    # whether it is a program as it should be
    "syntax": "form",
    "size": "form",
    "contract": "form",
}
"""Every kind of finding, with what it concerns."""


def worst(findings: Sequence[Finding]) -> int:
    """The worst severity, as its place in `SEVERITIES`; -1 without findings."""
    return max((SEVERITIES.index(finding.severity) for finding in findings), default=-1)


def risk_of(findings: Sequence[Finding]) -> Risk:
    """How deliberate a decision must be, R1 to R4 (see `store.events.Risk`).

    A kind that is not in the table counts as a capability.
    """
    concerns = {KINDS.get(finding.kind, "capability") for finding in findings}
    if "stop" in concerns:
        return "R4"
    if "harness" in concerns:
        return "R3"
    able = any(f.severity == "high" and KINDS.get(f.kind, "capability") == "capability" for f in findings)
    return "R2" if able else "R1"
