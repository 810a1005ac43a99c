"""What is said about the answers to a request: one's own, and others' where they may be known."""

from __future__ import annotations

from collections.abc import Sequence

from asi_tui import words
from asi_tui.blind import Me, own_vote
from asi_tui.lines import BLANK, Row, paragraph, row, rule
from asi_tui.model import Model
from asi_tui.screens.parts import fact
from store.state import Request, RunState, Vote

TEST = "a test of attention"
"""How the reason begins for which a test is closed."""

BLIND = "two people decide, each without seeing the other"


def undoable(request: Request, me: Me, now: float) -> bool:
    """Whether this person's answer can be taken back: nothing has come of it yet."""
    vote = own_vote(request, me)
    if request.decision is not None or vote is None or vote.decision == "defer":
        return False
    return not request.takes_effect or request.takes_effect > now


def standing_rows(model: Model, request: Request, me: Me, width: int) -> list[Row]:
    """How the decision stands, above the card: what has been decided, what will take effect, who is still needed."""
    if request.decision is not None:
        return _decided_rows(model.state, request, me, width)
    vote = own_vote(request, me)
    own = vote is not None and vote.decision == "approve"
    undo = " · u undo" if own and undoable(request, me, model.now) else ""
    if request.subject != "program":
        return paragraph(f"your vote can be taken back{undo}", width, "warn") if undo else []
    if request.takes_effect:
        # Enough people have answered: there is nobody left who would have to decide without knowing.
        left = request.takes_effect - model.now
        when = f"takes effect in {words.age(left)}" if left > 0 else "takes effect now"
        by = _named(request.approvals, vote)
        return paragraph(f"approved by {by}, {when}{undo}", width, "warn")
    if own:
        missing = request.people - len(request.approvals)
        return paragraph(f"approved by you; {people(missing)} still to decide{undo}", width, "warn")
    return []


def _named(votes: Sequence[Vote], own: Vote | None) -> str:
    """Who has voted so, oneself first."""
    others = [words.person(one.who) for one in votes if one is not own]
    return ", ".join(["you"] * (len(others) < len(votes)) + others)


def _decided_rows(state: RunState, request: Request, me: Me, width: int) -> list[Row]:
    """What became of a request, and what it had been where it was a test."""
    if request.decision == "expire":
        return paragraph("expired: nobody decided in time, which is a refusal", width, "warn")
    own = own_vote(request, me)
    votes = [one for one in request.votes if one.decision == request.decision]
    by = _named(votes, own) or words.person(request.who)
    reason = f": {request.reason}" if request.reason else ""
    tone = "good" if request.decision == "approve" else "warn"
    rows = paragraph(f"{words.DECIDED[request.decision or 'defer']} by {by}{reason}", width, tone)
    what = tested(state, request)
    if what:
        said = "MISSED" if request.decision == "approve" else "caught"
        rows += paragraph(f"{said}: this had been {what}. It never ran.", width, "bad" if said == "MISSED" else "good")
    return rows


def tested(state: RunState, request: Request) -> str:
    """What was wrong with a program that had been a test of attention; empty for every other one."""
    found = state.experiments.get(request.experiment)
    return found.reason if found is not None and found.seal and found.reason.startswith(TEST) else ""


def people(number: int) -> str:
    """`1 person`, `2 people`."""
    return "1 person" if number == 1 else f"{number} people"


def vote_rows(state: RunState, request: Request, me: Me, width: int) -> list[Row]:
    """The card of a vote: the question, the reason, and who is for and against, live."""
    found = state.experiments.get(request.experiment)
    of = f" of {request.of} who are listed" if request.of else ""
    against = [vote for vote in request.votes if vote.decision == "reject"]
    rows = [*paragraph(words.asked_about(state, request), width, "strong")]
    rows += fact("why", request.question or "no reason given", width)
    if found is not None and request.subject == "cancel":
        trials = words.plural(len(found.trials), "trial")
        text = f"{found.id}, {words.STEPS[found.step]}, {trials}, {words.age(found.cpu_seconds)} of cpu so far"
        rows += fact("experiment", text, width)
    rows += fact("needed", f"{people(request.people)}{of}; unanswered until {words.clock(request.expires)} it is "
                 f"refused", width)  # fmt: skip
    count = f"{len(request.approvals)} for, {len(against)} against"
    rows += [BLANK, rule("votes", width, count)]
    own = own_vote(request, me)
    for vote in request.votes:
        tone = {"approve": "good", "reject": "bad"}.get(vote.decision, "dim")
        word = {"approve": "for", "reject": "against"}.get(vote.decision, vote.decision)
        name = "you" if vote is own else words.person(vote.who)
        reason = f"  {vote.reason}" if vote.reason else ""
        rows.append(row((f" {words.clock(vote.time)}  ", "dim"), (f"{word:<8} ", tone), name, (reason, "dim")))
    return rows if request.votes else [*rows, row((" nobody has voted yet: a votes for it, r against", "dim"))]
