"""Which programs may train without asking: ordered rules over typed fields, decisions as data.

First match wins; nothing matched means `ask`. Rules never see rendered text. What touches engine, guard, audit or stop
path is denied whatever a policy says, and how much the run may do by itself (`store.events.Autonomy`) is applied after
the rules: it can turn `allow` into `ask` and the other way round, and never softens `deny`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import NamedTuple, get_args

from store.events import Autonomy, Origin, Risk
from store.policy_file import (
    BUILT_IN,
    BUILT_IN_NAMES,
    PolicyError,
    built_in,
    default_name,
    load_policy,
    parse_policy,
    rule_for,
    with_rule,
)
from store.policy_rules import Case, Policy, Rule, Verdict, answer, conditions, expired, matches
from store.risks import KINDS, SEVERITIES, Severity, risk_of, worst

__all__ = [
    "BUILT_IN", "BUILT_IN_NAMES", "KINDS", "SEVERITIES", "Case", "Policy", "PolicyError", "Rule", "Ruling", "Severity",
    "Verdict", "built_in", "decide", "default_name", "explain", "load_policy", "parse_policy", "risk_of", "rule_for",
    "warning", "with_rule",
]  # fmt: skip

NEVER = "R4: never"
PROPOSE_ONLY = "A0: propose only"
SEES_ALL = "A1: a person sees every program"


class Ruling(NamedTuple):
    """What becomes of a proposal, and by which rule.

    people: so many must agree, of the `of` who are listed (0: whoever comes); both 0 where nobody is asked.
    expires_minutes: how long the request stays open, 0: as configured. risk: R0 where nobody is asked.
    """

    verdict: Verdict
    rule: str
    people: int
    of: int
    expires_minutes: float
    risk: Risk


def decide(policy: Policy, case: Case, autonomy: Autonomy = "A2") -> Ruling:
    """The first rule that matches decides; risk and autonomy have their say after it."""
    risk = risk_of(case.findings)
    if risk == "R4":
        return Ruling("deny", NEVER, 0, 0, 0.0, risk)
    rule = next((rule for rule in policy.rule if matches(rule, case)), None)
    name = rule.name if rule is not None else "default"
    verdict, people, of = answer(rule.then if rule is not None else policy.default)
    if verdict == "deny":
        return Ruling("deny", name, 0, 0, 0.0, risk)
    held = case.origin != "baseline" and autonomy in ("A0", "A1")
    if verdict == "allow" and not held:
        return Ruling("allow", name, 0, 0, 0.0, "R0")
    people = max(people, 2 if risk in ("R2", "R3") else 1)
    if _goes_without(case, people, risk, autonomy):
        return Ruling("allow", f"{autonomy}: goes without asking ({name})", 0, 0, 0.0, "R0")
    if held and autonomy == "A0":
        name = PROPOSE_ONLY
    elif held and verdict == "allow":
        name = SEES_ALL
    minutes = rule.expires_minutes if rule is not None and verdict == "ask" else None
    return Ruling("ask", name, people, max(of, people) if of else 0, minutes or 0.0, risk)


def _goes_without(case: Case, people: int, risk: Risk, autonomy: Autonomy) -> bool:
    """Whether an `ask` becomes `allow`. A sandbox weaker than configured asks at every level."""
    if people > 1 or any(KINDS.get(finding.kind) == "isolation" for finding in case.findings):
        return False
    return (autonomy == "A3" and worst(case.findings) <= SEVERITIES.index("low")) or (autonomy == "A4" and risk == "R1")


def explain(policy: Policy, case: Case, autonomy: Autonomy = "A2") -> list[str]:
    """One sentence for each rule up to the one that matches, then what risk and autonomy make of it."""
    lines = list(_told(policy, case))
    ruling = decide(policy, case, autonomy)
    if ruling.rule == NEVER:
        return ["It touches engine, guard, audit or stop path (R4): denied, whatever a policy says."]
    if ruling.rule.startswith(f"{autonomy}: "):
        lines.append(f"Autonomy {ruling.rule}: {in_words(ruling)}.")
    elif ruling.verdict == "ask":
        lines.append(f"The risk is {ruling.risk}: {in_words(ruling)}.")
    return lines


def _told(policy: Policy, case: Case) -> Iterator[str]:
    for number, rule in enumerate(policy.rule, start=1):
        found = list(conditions(rule, case))
        failed = next((words for holds, words in found if not holds), None)
        named = f'Rule {number} "{rule.name}"'
        if failed is None:
            because = ", ".join(words for _, words in found) or "it matches everything"
            note = f" ({rule.note})" if rule.note else ""
            yield f"{named} matches: {because}; it says {rule.then}{note}."
            return
        yield f"{named} does not match: {failed}."
    yield f"No rule matches; the default is {policy.default}."


def in_words(ruling: Ruling) -> str:
    """What a ruling comes to, such as `ask 2 of 3 people`."""
    if ruling.verdict != "ask":
        return ruling.verdict
    of = f" of {ruling.of}" if ruling.of else ""
    noun = "person" if ruling.people == 1 and not of else "people"
    return f"ask {ruling.people}{of} {noun}"


def warning(policy: Policy, moment: float | None = None) -> str:
    """What is odd about a policy, in one line; empty when nothing is. `moment`: seconds since the epoch, None: now."""
    now = time.time() if moment is None else moment
    found = []
    free = [origin for origin in get_args(Origin) if origin != "baseline" and _ungated(policy, origin, now)]
    if len(free) == len(get_args(Origin)) - 1:
        found.append("it allows everything: no person will see any proposal")
    elif free:
        found.append(f"it allows everything that comes from {', '.join(free)}")
    end = next((n for n, rule in enumerate(policy.rule) if rule.until is None and _unconditional(rule)), None)
    if end is not None and policy.rule[end + 1 :]:
        never = _listed([rule.name for rule in policy.rule[end + 1 :]])
        found.append(f'nothing comes past rule "{policy.rule[end].name}", which matches everything: {never}')
    if gone := [rule.name for rule in policy.rule if expired(rule, now)]:
        found.append(f"expired: {_listed(gone)}")
    names = [rule.name for rule in policy.rule]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        found.append(f"more than one rule is called {_listed(twice)}")
    return "; ".join(found)


def _ungated(policy: Policy, origin: str, now: float) -> bool:
    """Whether no rule in force could ever ask about or deny what comes from there."""
    for rule in policy.rule:
        if expired(rule, now) or (rule.origin is not None and origin not in rule.origin):
            continue
        if answer(rule.then).verdict != "allow":
            return False
        if _unconditional(rule, but_origin=True):
            return True
    return answer(policy.default).verdict == "allow"


def _unconditional(rule: Rule, but_origin: bool = False) -> bool:
    """Whether it matches everything (that comes from its origins)."""
    free = {"name", "then", "until", "expires_minutes", "note"} | ({"origin"} if but_origin else set())
    return all(getattr(rule, field) is None for field in rule.__struct_fields__ if field not in free)


def _listed(names: list[str]) -> str:
    shown = ", ".join(f'"{name}"' for name in names[:5])
    return shown + (f" and {len(names) - 5} more" if len(names) > 5 else "")
