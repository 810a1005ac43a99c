"""What oversight has amounted to over a whole run: who was asked what, how long it took, what went without asking."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from statistics import median

import msgspec

from store import events as ev
from store.attention import Answer, answers_to
from store.folding import fold
from store.state import Request, RunState


class Share(msgspec.Struct, frozen=True):
    """How many requests of a kind people have decided, and how many of them they approved."""

    name: str
    decided: int
    approved: int


class Person(msgspec.Struct, frozen=True):
    """One person's answers; the medians are None where nothing was measured."""

    who: str
    answers: int
    approved: int
    waited: float | None
    seconds: float | None
    fast: int


class Oversight(msgspec.Struct, frozen=True):
    """Figures over a whole run; seconds throughout.

    asked: requests about programs, of which people decided `decided` and nobody `expired` in time. allowed, denied:
    what the policy let through or refused by itself, by rule. votes: requests on other subjects. caught, missed: tests
    of attention.
    """

    asked: int
    decided: int
    approved: int
    expired: int
    pending: int
    waited: float | None
    by_finding: list[Share]
    by_rule: list[Share]
    allowed: list[Share]
    denied: list[Share]
    people: list[Person]
    votes: int
    withdrawn: int
    questions: int
    caught: int
    missed: int


def oversight(records: Iterable[ev.Record]) -> Oversight:
    """Fold a journal into the figures."""
    state = RunState()
    findings: dict[str, list[str]] = {}
    auto: dict[str, Counter[str]] = {"approve": Counter(), "reject": Counter()}
    withdrawn = questions = 0
    for record in records:
        event = record.data
        state = fold(state, record)
        if isinstance(event, ev.ApprovalRequested) and event.experiment in state.experiments:
            findings[event.request] = sorted({one.kind for one in state.experiments[event.experiment].findings})
        elif isinstance(event, ev.ApprovalDecided) and not event.request and event.decision in auto:
            auto[event.decision][event.rule or "default"] += 1
        elif isinstance(event, ev.ApprovalWithdrawn):
            withdrawn += 1
        elif isinstance(event, ev.QuestionAsked):
            questions += 1
    programs = [one for one in state.requests.values() if one.subject == "program"]
    decided = [one for one in programs if one.decision in ("approve", "reject")]
    waits = [max(0.0, one.decided - one.asked) for one in decided]
    return Oversight(
        len(programs), len(decided), sum(one.decision == "approve" for one in decided),
        sum(one.decision == "expire" for one in programs), sum(one.decision is None for one in programs),
        median(waits) if waits else None,
        _shares(decided, {one.id: findings.get(one.id) or ["none"] for one in decided}),
        _shares(decided, {one.id: [one.rule or "default"] for one in decided}),
        _counted(auto["approve"], approved=True), _counted(auto["reject"], approved=False),
        _people([answer for one in programs for answer in answers_to(one)]),
        len(state.requests) - len(programs), withdrawn, questions, state.caught, state.missed,
    )  # fmt: skip


def _shares(decided: list[Request], names: dict[str, list[str]]) -> list[Share]:
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for one in decided:
        for name in names[one.id]:
            counts[name][0] += 1
            counts[name][1] += one.decision == "approve"
    return [Share(name, *counts[name]) for name in sorted(counts, key=lambda name: (-counts[name][0], name))]


def _counted(rules: Counter[str], approved: bool) -> list[Share]:
    return [Share(name, number, number if approved else 0) for name, number in rules.most_common()]


def _people(found: list[Answer]) -> list[Person]:
    out = []
    for who in sorted({one.who for one in found}):
        own = [one for one in found if one.who == who]
        measured = [one.seconds for one in own if one.seconds > 0]
        out.append(
            Person(
                who, len(own), sum(one.approved for one in own), median([one.waited for one in own]),
                median(measured) if measured else None, sum(one.fast for one in own),
            )
        )  # fmt: skip
    return out
