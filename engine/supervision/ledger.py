"""What the run has used of what it may use: one place that knows, and says when a cap is near or reached."""

from __future__ import annotations

import msgspec

from store.config import Budget
from store.events import BudgetExceeded
from store.state import RunState

WARN_AT = 0.8


class Account(msgspec.Struct, frozen=True):
    """One currency: what was used, and the cap (0 when there is none)."""

    currency: str
    used: float
    cap: float


def accounts(state: RunState, config: Budget, now: float, disk_bytes: float) -> list[Account]:
    """Every currency that has a cap. `now`: seconds since the epoch; time counts only while the run works."""
    working = state.working_seconds + (max(0.0, now - state.working_since) if state.working_since else 0.0)
    every = [
        Account("wall hours", working / 3600, config.wall_hours),
        Account("cpu hours", state.cpu_seconds / 3600, config.cpu_hours),
        Account("disk GB", disk_bytes / 1e9, config.disk_gb),
        Account("experiments", sum(not e.open for e in state.proposals), config.experiments),
    ]
    return [account for account in every if account.cap > 0]


def crossed(state: RunState, found: list[Account]) -> list[BudgetExceeded]:
    """Caps crossed and not yet reported: at 80 % once as a warning, at 100 % once as a stop."""
    events = []
    for account in found:
        share = account.used / account.cap
        for hard, limit in ((True, 1.0), (False, WARN_AT)):
            name = f"{account.currency}:{'hard' if hard else 'soft'}"
            if share >= limit and name not in state.warned:
                events.append(BudgetExceeded(account.currency, account.used, account.cap, hard))
                break
    return events
