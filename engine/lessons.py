"""What agents learn from the supervisors' decisions: reasons in words, and which changes were refused or approved."""

from __future__ import annotations

from engine.agents.protocol import Judged
from store.audit import clean
from store.state import Experiment, Request, RunState

MOST_REASONS = 10
MOST_JUDGED = 200
REASON_CHARACTERS = 500
TITLE_CHARACTERS = 120
CANCELLED = "cancelled by "
"""How the reason of an experiment begins that a person has ended."""


def rejections(state: RunState) -> list[str]:
    """What people said when they refused a program or cancelled an experiment; newest first, one line each.

    `state` is one without tests of attention: from those there is nothing to learn.
    """
    said: list[tuple[float, str, str]] = []
    voted: set[str] = set()
    for request in _decided(state):
        ended = request.subject == "cancel" and request.decision == "approve"
        if ended or (request.subject == "program" and request.decision == "reject"):
            voted.add(request.experiment)
            said.append((request.decided, request.experiment, request.reason or request.question))
    for entry in state.proposals:
        if entry.outcome == "rejected" and entry.reason.startswith(CANCELLED) and entry.id not in voted:
            said.append((entry.changed, entry.id, entry.reason.partition(": ")[2]))
    told = [_told(state.experiments[name], reason) for _, name, reason in sorted(said, reverse=True)]
    return [line for line in told if line][:MOST_REASONS]


def _told(entry: Experiment, reason: str) -> str:
    reason = clean(reason, REASON_CHARACTERS).strip()
    return f"{entry.id} “{clean(entry.title, TITLE_CHARACTERS)}”: {reason}" if reason else ""


def judged(state: RunState) -> list[Judged]:
    """People's decisions on programs that still have the genome which was judged, oldest first."""
    found = []
    for request in _decided(state):
        entry = state.experiments[request.experiment]
        bound = request.subject == "program" and request.program == entry.program
        if bound and entry.genome and request.decision in ("approve", "reject"):
            parent, reason = _genome(state, entry.parent), clean(request.reason, REASON_CHARACTERS)
            found.append(Judged(entry.genome, parent, request.decision == "approve", reason))
    return found[-MOST_JUDGED:]


def _decided(state: RunState) -> list[Request]:
    """Decided requests about experiments that are known, in the order of their decisions."""
    over = [one for one in state.requests.values() if one.decision is not None and one.experiment in state.experiments]
    return sorted(over, key=lambda one: (one.decided, one.id))


def _genome(state: RunState, experiment: str) -> str:
    found = state.experiments.get(experiment)
    return found.genome if found is not None else ""
