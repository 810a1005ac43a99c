"""What is worth a message to somebody who is not looking, in the program's own words.

A message holds ids, numbers and words of this program. It holds no code, no text that a model, a program or a person
wrote, and no secret: it may pass through other people's servers.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from store import events as ev
from store.state import RunState

Kind = Literal["approval", "anomaly", "budget", "kill", "end"]
KILLED = "the run was killed; it starts again after asi rearm"


class Notice(NamedTuple):
    """`kind` is what their rate is limited by."""

    kind: Kind
    text: str


def notice(event: ev.Event, state: RunState) -> Notice | None:
    """What an event is to somebody who is not looking; None for most. `state` is that after the event."""
    match event:
        case ev.ApprovalRequested():
            what = {"program": f"risk {event.risk}", "pause": "a vote on pausing", "cancel": "a vote on an experiment"}
            waiting = f"{len(state.pending)} in all"
            return Notice("approval", f"{event.request} waits for a decision ({what[event.subject]}); {waiting}")
        case ev.TrialAnomaly():
            return Notice("anomaly", f"trial {event.trial} was stopped by the watch")
        case ev.LeaseLost():
            return Notice("anomaly", f"the engine was silent for {event.seconds:.0f} s; its sandboxes were killed")
        case ev.ArmingFailed():
            return Notice("anomaly", "arming failed; nothing runs")
        case ev.BudgetExceeded():
            how = "reached its cap: the run pauses" if event.hard else "is at 80 % of its cap"
            return Notice("budget", f"{event.currency} {how}")
        case ev.RunKilled():
            return Notice("kill", KILLED)
        case ev.RunFrozen() if event.reason.startswith("emergency stop"):
            return Notice("kill", f"emergency stop: {event.processes} processes stopped in place")
        case ev.RunStopped():
            return Notice("end", "the run has finished" if event.finished else "the run was stopped")
    return None
