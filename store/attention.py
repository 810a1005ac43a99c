"""The rubber-stamp meter: how fast people decide, how often they agree, and whether they catch what is bad.

Pure functions over the state. A rate beyond what anybody reads with care is a fault of the policy, not of the people.
"""

from __future__ import annotations

from statistics import median

import msgspec

from store.state import Request, RunState

HOUR = 3_600.0
FAST_SECONDS = 5.0
"""Nobody reads a program in less."""

MOST_AN_HOUR = 6
"""Decisions of one person an hour, beyond which care ends."""

RECENT = 10
"""Approvals whose haste is looked at, the newest ones."""

FEWEST = 4
"""Fewer measured approvals say nothing about haste."""


class Answer(msgspec.Struct, frozen=True):
    """What one person answered to one request about a program.

    waited: seconds from the question to the answer. seconds: how long its card was on the screen; 0 where nobody
    measured, as from a shell.
    """

    who: str
    approved: bool
    time: float
    waited: float
    seconds: float = 0.0

    @property
    def fast(self) -> bool:
        """Given before anybody could have read it."""
        return self.waited < FAST_SECONDS or 0.0 < self.seconds < FAST_SECONDS


class Attention(msgspec.Struct, frozen=True):
    """The meter. Of the last hour: `decided` answers, the share of approvals among them, the median seconds from
    question to answer and on the card, the share under 5 s; None where nothing was measured. Of the whole run: tests
    of attention caught and missed. `warning` is empty while all is well.
    """

    decided: int = 0
    approved: float | None = None
    waited: float | None = None
    seconds: float | None = None
    fast: float | None = None
    caught: int = 0
    missed: int = 0
    warning: str = ""


def answers(state: RunState) -> list[Answer]:
    """Everything that people have answered to requests about programs, oldest first."""
    found = [answer for request in state.requests.values() for answer in answers_to(request)]
    return sorted(found, key=lambda one: one.time)


def answers_to(request: Request) -> list[Answer]:
    """The answers of people to one request; clocks, policies and votes on other subjects are left out."""
    if request.subject != "program" or (request.people > 1 and request.decision is None):
        return []  # of several people, each decides without knowing what the others have said
    found = [
        Answer(vote.who, vote.decision == "approve", vote.time, max(0.0, vote.time - request.asked), vote.seconds)
        for vote in request.votes
        if vote.decision in ("approve", "reject")
    ]
    if not found and request.decision in ("approve", "reject") and request.who.startswith("person:"):
        waited = max(0.0, request.decided - request.asked)
        found.append(Answer(request.who, request.decision == "approve", request.decided, waited))
    return found


def attention(state: RunState, now: float) -> Attention:
    """The meter as of now."""
    known = answers(state)
    recent = [one for one in known if one.time > now - HOUR]
    measured = [one.seconds for one in recent if one.seconds > 0]
    count = len(recent)
    return Attention(
        count,
        sum(one.approved for one in recent) / count if count else None,
        median([one.waited for one in recent]) if count else None,
        median(measured) if measured else None,
        sum(one.fast for one in recent) / count if count else None,
        state.caught,
        state.missed,
        _warning(known, recent),
    )


def _warning(known: list[Answer], recent: list[Answer]) -> str:
    approvals = [one for one in known if one.approved][-RECENT:]
    fast = sum(one.fast for one in approvals)
    if len(approvals) >= FEWEST and 2 * fast > len(approvals) and approvals[-1] in recent:
        return f"{fast} of the last {len(approvals)} approvals took under {FAST_SECONDS:.0f} s: nobody reads that fast"
    busiest = max((sum(one.who == who for one in recent) for who in {one.who for one in recent}), default=0)
    if busiest > MOST_AN_HOUR:
        return f"{busiest} decisions of one person in an hour: let the policy ask less"
    return ""
