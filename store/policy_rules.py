"""The rules of a policy as data: what a rule may look at, and whether it matches."""

from __future__ import annotations

import datetime
import functools
import re
from collections.abc import Iterator, Sequence
from typing import Annotated, Literal, NamedTuple

import msgspec
from msgspec import Meta

from store.events import Finding, Origin
from store.risks import SEVERITIES, Severity, risk_of, worst

Verdict = Literal["allow", "ask", "deny"]
Tier = Literal["probe-smoke", "probe", "explore", "verify"]
AskedRisk = Literal["R1", "R2", "R3"]
Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
DAYS: tuple[Day, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
MOST_PEOPLE = 20

_Share = Annotated[float, Meta(ge=0, le=1)]
_CpuSeconds = Annotated[float, Meta(ge=0, le=1e12)]


class Answer(NamedTuple):
    """What a rule's `then` says: so many `people`, `of` so many who are listed (0: whoever comes)."""

    verdict: Verdict
    people: int = 0
    of: int = 0


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One rule; a field that is absent matches everything, and one that is present must match.

    finding: one of these kinds is among the findings. only_findings: no other kind is; empty: there are none at all.
    severity, severity_at_most: of the worst finding. cpu_seconds_*: predicted for one trial. novelty_*: 1 - likeness to
    the nearest earlier proposal. hours, days: local time, such as `22:00-07:00`; hours may pass midnight, and then each
    part belongs to its own day. until: from then on the rule does not exist.
    expires_minutes: how long a request of this rule stays open; 0: as configured.
    """

    name: str
    then: str
    origin: list[Origin] | None = None
    tier: list[Tier] | None = None
    finding: list[str] | None = None
    only_findings: list[str] | None = None
    severity: Severity | None = None
    severity_at_most: Severity | None = None
    risk: list[AskedRisk] | None = None
    cpu_seconds_over: _CpuSeconds | None = None
    cpu_seconds_under: _CpuSeconds | None = None
    novelty_below: _Share | None = None
    novelty_above: _Share | None = None
    hours: str | None = None
    days: list[Day] | None = None
    until: datetime.datetime | None = None
    expires_minutes: Annotated[float, Meta(gt=0, le=1e9)] | None = None
    note: Annotated[str, Meta(max_length=1_000)] = ""


class Policy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """policy.toml."""

    version: int
    name: str = "policy"
    default: str = "ask"
    rule: list[Rule] = []


class Case(msgspec.Struct, frozen=True):
    """What a rule may look at. `moment` is when the question comes up, in seconds since the epoch."""

    origin: str
    tier: str
    findings: list[Finding]
    cpu_seconds: float
    novelty: float = 1.0
    moment: float = 0.0


@functools.lru_cache(maxsize=256)
def answer(then: str) -> Answer:
    """Read a `then`, such as `allow` or `ask(2 of 3)`. Raises `ValueError` with what is wrong."""
    found = re.fullmatch(r"(allow|deny|ask)|ask\(\s*([0-9]{1,3})\s*(?:of\s*([0-9]{1,3})\s*)?\)", then)
    if found is None:
        raise ValueError(f"{then[:40]!r} is not one of allow, ask, ask(2), ask(2 of 3), deny")
    if found[1] == "allow":
        return Answer("allow")
    if found[1] == "deny":
        return Answer("deny")
    people, of = int(found[2] or 1), int(found[3] or 0)
    if not 1 <= people <= MOST_PEOPLE or of > MOST_PEOPLE:
        raise ValueError(f"{then!r}: from 1 to {MOST_PEOPLE} people can be asked")
    if found[3] is not None and of < people:
        raise ValueError(f"{then!r}: {people} of {of} can never agree; swap the numbers")
    return Answer("ask", people, of)


@functools.lru_cache(maxsize=256)
def window(hours: str) -> tuple[datetime.time, datetime.time]:
    """Begin and end of `22:00-07:00`. Raises `ValueError` with what is wrong."""
    clock = r"((?:[01][0-9]|2[0-3]):[0-5][0-9])"
    found = re.fullmatch(rf"{clock}\s*-\s*{clock}", hours)
    if found is None:
        raise ValueError(f"{hours[:40]!r} is not a time of day such as 22:00-07:00")
    if found[1] == found[2]:
        raise ValueError(f"{hours!r} is no time at all; leave hours out for the whole day")
    return datetime.time.fromisoformat(found[1]), datetime.time.fromisoformat(found[2])


def within(hours: str, moment: float) -> bool:
    """Whether a moment lies in hours such as `22:00-07:00`, by the local clock. Raises `ValueError` as `window`."""
    begin, end = window(hours)
    clock = datetime.datetime.fromtimestamp(moment).time()
    return begin <= clock < end if begin < end else clock >= begin or clock < end


def expired(rule: Rule, moment: float) -> bool:
    """Whether the rule does not exist any more."""
    return rule.until is not None and datetime.datetime.fromtimestamp(moment, rule.until.tzinfo) >= rule.until


def matches(rule: Rule, case: Case) -> bool:
    """Whether every field that the rule has matches."""
    return all(holds for holds, _ in conditions(rule, case))


def conditions(rule: Rule, case: Case) -> Iterator[tuple[bool, str]]:
    """For each field that the rule has: whether it matches, and the fact that says so, in words."""
    if rule.until is not None:
        over = expired(rule, case.moment)
        yield not over, f"{'it ended' if over else 'it stands until'} {rule.until:%Y-%m-%d %H:%M}"
    if rule.origin is not None:
        yield _among("the origin", case.origin, rule.origin)
    if rule.tier is not None:
        yield _among("the tier", case.tier, rule.tier)
    yield from _about_findings(rule, case.findings)
    cost = f"about {case.cpu_seconds:.0f} CPU-seconds"
    if rule.cpu_seconds_over is not None:
        yield _compared(case.cpu_seconds > rule.cpu_seconds_over, cost, f"over {rule.cpu_seconds_over:g}")
    if rule.cpu_seconds_under is not None:
        yield _compared(case.cpu_seconds < rule.cpu_seconds_under, cost, f"under {rule.cpu_seconds_under:g}")
    novelty = f"novelty {case.novelty:.2f}"
    if rule.novelty_below is not None:
        yield _compared(case.novelty < rule.novelty_below, novelty, f"below {rule.novelty_below:g}")
    if rule.novelty_above is not None:
        yield _compared(case.novelty > rule.novelty_above, novelty, f"above {rule.novelty_above:g}")
    yield from _about_time(rule, case.moment)


def _about_findings(rule: Rule, findings: Sequence[Finding]) -> Iterator[tuple[bool, str]]:
    kinds = sorted({finding.kind for finding in findings})
    if rule.finding is not None:
        found = [kind for kind in kinds if kind in rule.finding]
        yield bool(found), f"it has {', '.join(found)}" if found else f"nothing of {', '.join(rule.finding)} was found"
    if rule.only_findings is not None:
        other = [kind for kind in kinds if kind not in rule.only_findings]
        only = f"nothing but {', '.join(rule.only_findings)} was found" if kinds else "nothing was found"
        yield not other, f"{', '.join(other)} was found besides" if other else only
    level = worst(findings)
    word = f"the worst finding is {SEVERITIES[level]}" if level >= 0 else "nothing was found"
    least, most = rule.severity, rule.severity_at_most
    if least is not None:
        yield _compared(level >= SEVERITIES.index(least), word, f"{least} or worse", ": ")
    if most is not None:
        yield _compared(level <= SEVERITIES.index(most), word, f"{most} or less", ": ")
    if rule.risk is not None:
        yield _among("the risk", risk_of(findings), rule.risk)


def _about_time(rule: Rule, moment: float) -> Iterator[tuple[bool, str]]:
    if rule.hours is None and rule.days is None:
        return
    now = datetime.datetime.fromtimestamp(moment)
    if rule.hours is not None:
        yield _compared(within(rule.hours, moment), f"{now:%H:%M}", f"within {rule.hours}")
    if rule.days is not None:
        yield _among("the day", DAYS[now.weekday()], rule.days)


def _among(what: str, value: str, choices: Sequence[str]) -> tuple[bool, str]:
    holds = value in choices
    return holds, f"{what} is {value}" if holds else f"{what} is {value}, not {' or '.join(choices)}"


def _compared(holds: bool, fact: str, bound: str, joint: str = " is ") -> tuple[bool, str]:
    no = "" if holds else "not "
    return holds, f"{fact}{joint}{no}{bound}"
