"""Whose answers may be shown to whom: where two people decide about a program, each without the other's word."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from asi_tui import words
from engine.client.protocol import AuditLine
from store.state import Request, RunState, Vote


class Me(NamedTuple):
    """This person: their login, and since when they have answered which request, where a signature names them in
    another way than their login does.
    """

    who: str
    answered: dict[str, float]


def own_vote(request: Request, me: Me) -> Vote | None:
    """What this person has answered."""
    since = me.answered.get(request.id)
    own = (vote for vote in request.votes if words.person(vote.who) == me.who)
    return next(own, None) or next((vote for vote in request.votes if since is not None and vote.time >= since), None)


def is_sealed(request: Request, me: Me) -> bool:
    """Whether what others have answered to a request is not yet for this person to see."""
    several = request.people > 1 and request.subject == "program"
    return several and request.decision is None and own_vote(request, me) is None


def blind(state: RunState, me: Me, record: AuditLine) -> AuditLine:
    """A record as it may be shown: answers of others to what this person has yet to answer are left out."""
    if record.kind not in ("approval.voted", "approval.withdrawn"):
        return record
    said = record.text.replace(":", " ").split()
    for one in state.pending:
        if one.id in said and is_sealed(one, me):
            text = f"an answer to {one.id}, which is told once you have given yours"
            return msgspec.structs.replace(record, actor="person:…", text=text)
    return record
