"""policy.toml: read with errors that name line and column, found by name, and given further rules."""

from __future__ import annotations

import datetime
import json
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import get_args

import msgspec

from store.events import Origin
from store.policy_rules import Case, Policy, Rule, Tier, answer, window
from store.risks import KINDS, SEVERITIES, risk_of, worst
from store.toml_errors import Key, TomlError, TomlFile, nearest, read_text

VERSION = 1
MOST_RULES = 500
NAME_LENGTH = 100
BUILT_IN = Path(__file__).with_name("policies")
BUILT_IN_NAMES: tuple[str, ...] = ("cautious", "trusting", "paranoid")

_RESERVED = re.compile(r"(default|R4:.*|A[0-4]:.*)\Z")
"""Names under which the record tells of what is decided beside the rules."""


class PolicyError(TomlError):
    """The policy cannot be used; one line: where, what is wrong, what to do."""


def built_in(name: str) -> str:
    """The text of a built-in policy. Raises `PolicyError` where there is none of this name."""
    if name not in BUILT_IN_NAMES:
        raise PolicyError(f"there is no policy {name[:80]!r}; {nearest(name, BUILT_IN_NAMES, 'there are')}")
    return (BUILT_IN / f"{name}.toml").read_text()


def default_name(agents: str) -> str:
    """The built-in policy of a run that has none of its own; `agents` is `[agents] kind`, settled."""
    return "trusting" if agents == "evolver" else "cautious"


def read_policy_text(path: Path) -> str:
    """The text of a policy file, not checked. Raises `PolicyError` where it cannot be read."""
    return read_text(path, PolicyError, "policy")


def load_policy(path: Path) -> Policy:
    """Read a policy file. Raises `PolicyError` with one line."""
    return parse_policy(read_policy_text(path), path.name)


def parse_policy(text: str, name: str = "policy.toml") -> Policy:
    """Check the text of a policy; `name` stands in the error.

    Raises:
        PolicyError: `name:line:column: what is wrong; what to do`.
    """
    file = TomlFile(text, name, PolicyError, _describe)
    data = file.data()
    if type(data.get("version")) is not int:
        raise file.wrong(("version",), f"a policy must say version = {VERSION}")
    if data["version"] != VERSION:
        message = f"version {data['version']} is not known here; this program reads version {VERSION}"
        raise file.wrong(("version",), message)
    rules = data.get("rule", [])
    for rule in rules if isinstance(rules, list) else []:
        if isinstance(rule, dict) and type(rule.get("until")) is datetime.date:
            rule["until"] = datetime.datetime.combine(rule["until"], datetime.time.max)
    policy = file.convert(data, Policy, _in_words)
    for path, message in _wrong(policy):
        raise file.wrong(path, f"{file.describe(path)}: {message}" if path != ("rule",) else message)
    return policy


def _describe(path: Key) -> str:
    """Such as `rule 2, then`."""
    words = [part for part in path if isinstance(part, str)]
    if len(path) > 1 and isinstance(path[1], int):
        words[0] = f"{words[0]} {path[1] + 1}"
    return ", ".join(words)


def _in_words(message: str, path: Key) -> str | None:
    """Better words for msgspec's message about one of these fields."""
    if path[-1:] == ("until",) and ("datetime" in message):
        return "must be a date, or a date with a time, without quotes, such as 2030-12-31 or 2030-12-31T18:00:00"
    if path[-2:-1] == ("risk",) and "'R0'" in message:
        return "R0 is what the policy allows; a rule can name R1, R2, R3"
    if path[-2:-1] == ("risk",) and "'R4'" in message:
        return "R4 is always denied, whatever a rule says; a rule can name R1, R2, R3"
    return None


def _wrong(policy: Policy) -> Iterator[tuple[Key, str]]:
    """What is wrong beyond the type of a single value."""
    if not policy.name.isprintable() or not 1 <= len(policy.name) <= NAME_LENGTH:
        yield ("name",), f"must be 1 to {NAME_LENGTH} printable characters"
    if message := _unread(answer, policy.default):
        yield ("default",), message
    if len(policy.rule) > MOST_RULES:
        yield ("rule",), f"{len(policy.rule)} rules; a policy may have {MOST_RULES}"
    for number, rule in enumerate(policy.rule):
        for field, message in _wrong_rule(rule):
            yield ("rule", number, field), message


_THENS = ("allow", "ask", "deny")


def _unread(read: Callable[[str], object], text: str) -> str:
    """What `read` has against the text; empty when nothing."""
    try:
        read(text)
    except ValueError as error:
        hint = nearest(text, _THENS, "")
        return f"{error}{f'; {hint}' if hint.startswith('did') else ''}"
    return ""


def _wrong_rule(rule: Rule) -> Iterator[tuple[str, str]]:
    if not rule.name.isprintable() or not 1 <= len(rule.name) <= NAME_LENGTH:
        yield "name", f"must be 1 to {NAME_LENGTH} printable characters"
    if _RESERVED.match(rule.name):
        yield "name", f"{rule.name!r} is what the record calls something else; choose another name"
    if message := _unread(answer, rule.then):
        yield "then", message
    for field in ("origin", "tier", "finding", "risk", "days"):
        if getattr(rule, field) == []:
            yield field, "an empty list matches nothing; leave it out to match everything"
    for field in ("finding", "only_findings"):
        for kind in getattr(rule, field) or []:
            if kind not in KINDS:
                yield field, f"there are no findings of kind {kind[:40]!r}; {nearest(kind, KINDS, 'there are')}"
    if rule.hours is not None and (message := _unread(window, rule.hours)):
        yield "hours", message
    if rule.expires_minutes is not None and answer(rule.then).verdict != "ask":
        yield "expires_minutes", f"is about requests, and this rule says {rule.then}; leave it out"
    yield from _empty_ranges(rule)


def _empty_ranges(rule: Rule) -> Iterator[tuple[str, str]]:
    over, under = rule.cpu_seconds_over, rule.cpu_seconds_under
    if over is not None and under is not None and over >= under:
        yield "cpu_seconds_under", "is not above cpu_seconds_over, so nothing can match; swap them"
    if rule.cpu_seconds_under == 0:
        yield "cpu_seconds_under", "nothing costs less than 0"
    above, below = rule.novelty_above, rule.novelty_below
    if above is not None and below is not None and above >= below:
        yield "novelty_below", "is not above novelty_above, so nothing can match; swap them"
    least, most = rule.severity, rule.severity_at_most
    if least is not None and most is not None and SEVERITIES.index(least) > SEVERITIES.index(most):
        yield "severity_at_most", f"is less than severity {least}, so nothing can match; swap them"


def rule_for(case: Case, name: str) -> str:
    """TOML of a rule that would allow what is no worse, no dearer and of the same origin and tier as this case.

    Empty where one person must not decide alone (from R2 on), and where rules do not know its origin, tier or findings.
    """
    kinds = sorted({finding.kind for finding in case.findings})
    known = case.origin in get_args(Origin) and case.tier in get_args(Tier) and all(kind in KINDS for kind in kinds)
    if not known or risk_of(case.findings) != "R1" or not math.isfinite(case.cpu_seconds):
        return ""
    lines = [
        "[[rule]]",
        f"name = {_string(_rule_name(name))}",
        f'origin = ["{case.origin}"]',
        f'tier = ["{case.tier}"]',
        f"only_findings = {json.dumps(kinds)}",
    ]
    if kinds:
        lines.append(f'severity_at_most = "{SEVERITIES[worst(case.findings)]}"')
    lines += [f"cpu_seconds_under = {_rounded_up(case.cpu_seconds):.1f}", 'then = "allow"']
    return "\n".join(lines) + "\n"


CHANGED = ", changed"
"""What the name of a policy ends in, once a rule was put into it."""


def with_rule(text: str, rule: str) -> str:
    """A policy's text with a further rule before all others, under a name that says so; comments and layout stay.

    Raises:
        PolicyError: the text or the rule cannot be used, or the rule cannot be put before the others.
    """
    before = parse_policy(text)
    added = parse_policy(f"version = {VERSION}\n{rule}", "the new rule")
    if len(added.rule) != 1 or (added.name, added.default) != (Policy(VERSION).name, Policy(VERSION).default):
        raise PolicyError("the new rule: must be one [[rule]] and nothing else")
    lines = text.splitlines(keepends=True)
    place = next((n for n, line in enumerate(lines) if re.match(r"\s*\[\[\s*rule\s*\]\]", line)), len(lines))
    while 0 < place < len(lines) and lines[place - 1].lstrip().startswith("#"):
        place -= 1  # the comment above a rule belongs to it
    renamed = before.name if before.name.endswith(CHANGED) else f"{before.name}{CHANGED}"
    above = re.sub(r"(?m)^name\s*=.*$", lambda _: f"name = {_string(renamed)}", "".join(lines[:place]), count=1)
    above += "" if not above or above.endswith("\n") else "\n"
    gap = "" if above.endswith("\n\n") else "\n"
    changed = f"{above}{gap}{rule.strip()}\n\n{''.join(lines[place:])}"
    try:
        after = parse_policy(changed)
    except PolicyError:
        after = before
    if after != msgspec.structs.replace(before, name=after.name, rule=[*added.rule, *before.rule]):
        raise PolicyError("the rule cannot be put before the others here; write each rule as a [[rule]] table")
    return changed.rstrip("\n") + "\n"


def _rule_name(text: str) -> str:
    """A name that a rule may have."""
    plain = "".join(sign if sign.isprintable() else " " for sign in text).strip()[:NAME_LENGTH].strip()
    return f"rule {plain}"[:NAME_LENGTH] if not plain or _RESERVED.match(plain) else plain


def _string(text: str) -> str:
    """A TOML string of printable text."""
    return json.dumps(text, ensure_ascii=False)


def _rounded_up(seconds: float) -> float:
    """A bound above the cost, with two significant digits, so that look-alikes are under it too."""
    step = 10.0 ** max(0, math.floor(math.log10(max(seconds, 1.0))) - 1)
    return (math.floor(seconds / step) + 1) * step
