"""The queue of requests: how a row reads, what a filter leaves, and which requests are look-alikes."""

from __future__ import annotations

from collections.abc import Collection

from asi_tui import words
from asi_tui.blind import Me, own_vote
from asi_tui.lines import Row, row, spread, tagged
from asi_tui.model import Model
from asi_tui.screens.parts import TONES
from store.state import Request, RunState

SHORT = 100
"""Below this width times are said shortly."""


def matches(state: RunState, request: Request, sought: str) -> bool:
    """Whether each word stands in a request: its title, origin, rule, findings, severity, risk, tier, subject."""
    found = state.experiments.get(request.experiment)
    parts = [request.id, request.experiment, request.rule, request.risk, request.subject, request.tier]
    if found is not None:
        parts += [words.title(found), found.origin, words.severity(found.findings)]
        parts += [one.kind for one in found.findings]
    text = " ".join(parts).lower()
    return all(word in text for word in sought.lower().split())


def looks(state: RunState, request: Request) -> tuple[object, ...] | None:
    """What look-alikes have in common; None for a request that has to be read by itself.

    The same rule, the same kinds of findings, none of them high, the same origin and tier, for one person of risk R1.
    """
    found = state.experiments.get(request.experiment)
    if found is None or request.subject != "program" or request.risk != "R1" or request.people > 1 or request.votes:
        return None
    if words.severity(found.findings) == "high":
        return None
    return (request.rule, tuple(sorted({one.kind for one in found.findings})), found.origin, request.tier)


def alike(state: RunState, requests: Collection[Request]) -> bool:
    """Whether all of them look alike, so that they can be approved together."""
    kinds = {looks(state, one) for one in requests}
    return len(kinds) == 1 and None not in kinds


def queue_row(model: Model, one: Request, chosen: bool, marked: bool, me: Me, width: int) -> Row:
    """One request: its id, risk, severity and title; since when it waits and when it becomes a refusal."""
    found = model.state.experiments.get(one.experiment)
    severity = words.severity(found.findings) if found is not None and one.subject == "program" else "vote"
    left = row(("▸" if chosen else " ", "strong"), ("✓" if marked else " ", "good"),
               (one.id + " ", "strong" if chosen else ""), (one.risk + " " if one.risk > "R1" else "", "warn"),
               (severity, TONES.get(severity, "warn")), ("  " + words.asked_about(model.state, one), ""))  # fmt: skip
    return tagged(spread(left, row((_times(model, one, me, width), "dim")), width), one.id)


def _times(model: Model, one: Request, me: Me, width: int) -> str:
    if one.decision == "expire":
        return " expired "
    vote = own_vote(one, me)
    if one.decision is not None:
        mine = vote is not None and vote.decision == one.decision and len(one.votes) == 1
        return f" {words.DECIDED[one.decision]} by {'you' if mine else words.person(one.who)} "
    if vote is not None:
        return f" {words.DECIDED[vote.decision]} by you "
    waits, left = words.age(model.now - one.asked), words.age(one.expires - model.now)
    return f" {waits}, {left} left " if width < SHORT else f" waits {waits}, refused in {left} "
