"""Which programs may train without asking: ordered rules over typed fields, decisions as data.

First match wins; nothing matched means `ask`. Rules never see rendered text.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from store.events import Finding

Verdict = Literal["allow", "ask", "deny"]
Severity = Literal["info", "low", "medium", "high"]
SEVERITIES: tuple[Severity, ...] = ("info", "low", "medium", "high")
BUILT_IN = Path(__file__).with_name("policies")


class PolicyError(ValueError):
    """The policy file cannot be used; one line says why."""


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One rule; a field that is absent matches everything."""

    name: str
    then: Verdict
    origin: list[str] | None = None
    tier: list[str] | None = None
    finding: list[str] | None = None
    severity: Severity | None = None
    cpu_seconds_over: float | None = None


class Policy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """policy.toml."""

    version: int
    name: str
    default: Verdict = "ask"
    rule: list[Rule] = []


class Case(msgspec.Struct, frozen=True):
    """What a rule may look at."""

    origin: str
    tier: str
    findings: list[Finding]
    cpu_seconds: float


def load_policy(path: Path) -> Policy:
    """Read a policy file. Raises `PolicyError` with one line."""
    try:
        policy = msgspec.toml.decode(path.read_bytes(), type=Policy)
    except (OSError, ValueError) as error:
        raise PolicyError(f"{path.name}: {error}; see the comments of a built-in policy for the fields") from error
    if policy.version != 1:
        raise PolicyError(f"{path.name}: version {policy.version} is not known here; this program reads version 1")
    return policy


def decide(policy: Policy, case: Case) -> tuple[Verdict, str]:
    """The verdict and the name of the rule that gave it."""
    for rule in policy.rule:
        if _matches(rule, case):
            return rule.then, rule.name
    return policy.default, "default"


def _matches(rule: Rule, case: Case) -> bool:
    if rule.origin is not None and case.origin not in rule.origin:
        return False
    if rule.tier is not None and case.tier not in rule.tier:
        return False
    if rule.finding is not None and not any(finding.kind in rule.finding for finding in case.findings):
        return False
    if rule.severity is not None:
        worst = max((SEVERITIES.index(finding.severity) for finding in case.findings), default=-1)
        if worst < SEVERITIES.index(rule.severity):
            return False
    return rule.cpu_seconds_over is None or case.cpu_seconds > rule.cpu_seconds_over
