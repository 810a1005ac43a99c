"""What the run has used of what it may use: one place that knows, and says when a cap is near or reached.

Reserved before, settled after: what is in flight counts with its predicted cost until its real one is known. Failed,
rejected and repaired work counts like any other.
"""

from __future__ import annotations

import msgspec

from store.config import Budget
from store.events import BudgetExceeded
from store.state import RunState

WARN_AT = 0.8
CPU, EXPERIMENTS, TOKENS, MONEY = "cpu hours", "experiments", "tokens", "money"


class Account(msgspec.Struct, frozen=True):
    """One currency: what was used, what is reserved for work in flight, and the cap."""

    currency: str
    used: float
    cap: float
    reserved: float = 0.0


def accounts(state: RunState, config: Budget, now: float, disk_bytes: float) -> list[Account]:
    """Every currency that has a cap.

    now: seconds since the epoch; time counts only while the run works, and jumps of the clock are in the state.
    """
    working = state.working_seconds + (max(0.0, now - state.working_since) if state.working_since else 0.0)
    over = sum(not entry.open for entry in state.proposals)
    every = [
        Account("wall hours", working / 3600, config.wall_hours),
        Account(CPU, state.cpu_seconds / 3600, config.cpu_hours, _reserved_cpu_seconds(state) / 3600),
        Account(TOKENS, state.tokens_used, config.tokens, sum(call.tokens for call in state.open_calls)),
        Account(MONEY, state.money, config.money, sum(call.cost for call in state.open_calls)),
        Account("disk GB", disk_bytes / 1e9, config.disk_gb),
        Account(EXPERIMENTS, over, config.experiments, len(state.proposals) - over),
    ]
    return [account for account in every if account.cap > 0]


def crossed(state: RunState, found: list[Account]) -> list[BudgetExceeded]:
    """Caps crossed and not yet reported: at 80 % once as a warning, at 100 % once as a stop."""
    events = []
    for account in found:
        share = account.used / account.cap
        hard = share >= 1.0
        if share >= WARN_AT and not _reported(state, account.currency, hard):
            events.append(BudgetExceeded(account.currency, account.used, account.cap, hard))
    return events


def lacking(state: RunState, config: Budget, cpu_seconds: float) -> BudgetExceeded | None:
    """The stop that a trial of this predicted cost runs into: with it and all that is in flight the cap would not do.

    None where there is room, or where a person has let the run go on beyond the cap.
    """
    for account in accounts(state, config, 0.0, 0.0):
        wanted = account.used + account.reserved + cpu_seconds / 3600
        if account.currency == CPU and wanted > account.cap and not _reported(state, CPU, hard=True):
            return BudgetExceeded(CPU, wanted, account.cap, True)
    return None


def lacking_words(state: RunState, config: Budget, tokens: int, cost: float) -> BudgetExceeded | None:
    """The stop that a model's call runs into whose upper bound is `tokens` and `cost`; None where there is room."""
    wanted = {TOKENS: float(tokens), MONEY: cost}
    for account in accounts(state, config, 0.0, 0.0):
        total = account.used + account.reserved + wanted.get(account.currency, 0.0)
        over = account.currency in wanted and total > account.cap
        if over and not _reported(state, account.currency, hard=True):
            return BudgetExceeded(account.currency, total, account.cap, True)
    return None


def may_open(state: RunState, config: Budget) -> bool:
    """Whether one more proposal fits: those in flight count."""
    if not config.experiments or _reported(state, EXPERIMENTS, hard=True):
        return True
    return len(state.proposals) < config.experiments


def _reserved_cpu_seconds(state: RunState) -> float:
    """What running trials will still use, by prediction."""
    predicted = ((state.experiments[t.experiment].predicted_cpu_seconds, t.cpu_seconds) for t in state.running_trials)
    return sum(max(0.0, cost - used) for cost, used in predicted)


def _reported(state: RunState, currency: str, hard: bool) -> bool:
    return f"{currency}:{'hard' if hard else 'soft'}" in state.warned
