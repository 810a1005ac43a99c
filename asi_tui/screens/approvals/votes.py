"""What is said about the answers to a request: one's own, and others' where they may be known."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from asi_tui import words
from asi_tui.lines import BLANK, Row, paragraph, row, rule
from asi_tui.model import Model
from asi_tui.screens.parts import fact
from engine.client.protocol import AuditLine
from store.state import Request, RunState, Vote


class Me(NamedTuple):
    """This person: their login, and since when they have answered which request, where a signature names them in
    another way than their login does.
    """

    who: str
    answered: dict[str, float]


BLIND = "two people decide, each without seeing the other"


def own_vote(request: Request, me: Me) -> Vote | None:
    """What this person has answered."""
    since = me.answered.get(request.id)
    own = (vote for vote in request.votes if words.person(vote.who) == me.who)
    return next(own, None) or next((vote for vote in request.votes if since is not None and vote.time >= since), None)


def blind(state: RunState, me: Me, record: AuditLine) -> AuditLine:
    """A record as it may be shown: answers of others to what this person has yet to answer are left out."""
    if record.kind not in ("approval.voted", "approval.withdrawn"):
        return record
    said = record.text.replace(":", " ").split()
    for one in state.pending:
        if one.id in said and one.people > 1 and one.subject == "program" and own_vote(one, me) is None:
            text = f"an answer to {one.id}, which is told once you have given yours"
            return msgspec.structs.replace(record, actor="person:…", text=text)
    return record


def undoable(request: Request, me: Me, now: float) -> bool:
    """Whether this person's answer can be taken back: nothing has come of it yet."""
    vote = own_vote(request, me)
    if request.decision is not None or vote is None or vote.decision == "defer":
        return False
    return not request.takes_effect or request.takes_effect > now


def standing_rows(model: Model, request: Request, me: Me, width: int) -> list[Row]:
    """How the decision stands, above the card: what has been decided, what will take effect, who is still needed."""
    if request.decision is not None:
        reason = f": {request.reason}" if request.reason else ""
        tone = "good" if request.decision == "approve" else "warn"
        return paragraph(f"decided by {words.person(request.who)}: {request.decision}{reason}", width, tone)
    vote = own_vote(request, me)
    own = vote is not None and vote.decision == "approve"
    undo = " · u undo" if own and undoable(request, me, model.now) else ""
    if request.subject != "program":
        return paragraph(f"your vote can be taken back{undo}", width, "warn") if undo else []
    if request.takes_effect:
        # Enough people have answered: there is nobody left who would have to decide without knowing.
        left = request.takes_effect - model.now
        when = f"takes effect in {words.age(left)}" if left > 0 else "takes effect now"
        names = [one.who for one in request.approvals if one is not vote]
        by = ", ".join(["you"] * own + [words.person(name) for name in names])
        return paragraph(f"approved by {by}, {when}{undo}", width, "warn")
    if own:
        missing = request.people - len(request.approvals)
        return paragraph(f"approved by you; {people(missing)} still to decide{undo}", width, "warn")
    return []


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
    rows += fact("asked by", request.rule, width) if request.rule else []
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
