"""What the run has used of what it may use, how fast it uses it, and when each cap is reached.

Pure arithmetic on the state. Counted as the engine counts: time only while the run works, and what is in flight with
what it will still use by prediction.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import islice
from typing import TypeVar

import msgspec

from asi_tui import words
from store.config import RunConfig
from store.state import RunState

T = TypeVar("T")

WINDOW_SECONDS = 2 * 3600.0
"""Rates are those of so much recent work."""

LEAST_SECONDS = 600.0
"""With less work than this behind it, no rate is known."""

LEAST_DONE = 3
"""Nor with fewer finished pieces of work."""

NEWEST = 4_000
"""So many of the newest trials and experiments are looked at for a rate."""

FAR_SECONDS = 365 * 86_400.0
"""A cap that is further away than this is not in sight."""

WALL, CPU, TOKENS, MONEY, DISK, EXPERIMENTS = "wall hours", "cpu hours", "tokens", "money", "disk GB", "experiments"


class Forecast(msgspec.Struct, frozen=True):
    """One currency: what is used of it, and when its cap is reached as things go now.

    cap: 0 where there is none. reserved: what work in flight will still use. share: of the cap, 0 without one.
    rate: per hour of work; None while too little is known. seconds: of work until the cap; None where that is not
    known, or there is no cap. experiments: further proposals until then. text: all this about the cap in words.
    """

    currency: str
    used: float
    cap: float
    reserved: float = 0.0
    share: float = 0.0
    rate: float | None = None
    seconds: float | None = None
    experiments: int | None = None
    text: str = ""

    @property
    def label(self) -> str:
        """What the currency is called beside an amount that has its unit."""
        return {WALL: "time at work", CPU: "device time", DISK: "disk"}.get(self.currency, self.currency)

    @property
    def spent(self) -> str:
        """What is used, and of what: `3 h 10 min of 12 h 00 min`."""
        return amount(self.currency, self.used) + (f" of {amount(self.currency, self.cap)}" if self.cap else "")


def amount(currency: str, value: float) -> str:
    """An amount of a currency with its unit."""
    if currency in (WALL, CPU):
        return words.span(value * 3600)
    if currency == MONEY:
        return f"{value:.2f} USD"
    if currency == DISK:
        return f"{value:.1f} GB"
    return words.count(value)


def worked(state: RunState, now: float) -> float:
    """Seconds that the run has worked."""
    return state.working_seconds + (max(0.0, now - state.working_since) if state.working_since else 0.0)


class Pace(msgspec.Struct, frozen=True):
    """How fast the run goes: seconds of work that this is measured over, experiments done and device seconds used."""

    seconds: float
    proposals: float
    experiments: float
    cpu_seconds: float


def pace(state: RunState, now: float) -> Pace | None:
    """What was done in the recent stretch of uninterrupted work; in all work so far where that stretch is short."""
    stretch = min(WINDOW_SECONDS, now - state.working_since) if state.working_since else 0.0
    if stretch >= LEAST_SECONDS:
        begin, seconds = now - stretch, stretch
    else:
        begin, seconds = 0.0, worked(state, now)
    closed = [one for one in _newest(state.experiments) if not one.open and one.changed >= begin]
    if seconds < LEAST_SECONDS or len(closed) < LEAST_DONE:
        return None
    proposals = sum(one.origin != "baseline" for one in closed)
    if not begin:
        return Pace(seconds, proposals, len(closed), state.cpu_seconds)
    trials = state.trials.values()
    used = sum(one.cpu_seconds for one in _newest(state.trials) if one.ended >= begin and not one.cached)
    # Vetting uses processors too, but no trial says how much: it is spread over the trials.
    known = sum(one.cpu_seconds for one in trials if not one.cached)
    return Pace(seconds, proposals, len(closed), used * (state.cpu_seconds / known if known else 1.0))


def _newest(kept: dict[str, T]) -> Iterator[T]:
    return islice(reversed(kept.values()), NEWEST)


def forecasts(state: RunState, config: RunConfig, now: float, disk_bytes: float | None = None) -> list[Forecast]:
    """Every currency that has a cap or of which something was used.

    now: seconds since the epoch. disk_bytes: the size of the run directory, where somebody has measured it. Looks at
    every experiment once: some milliseconds for 20,000 of them, so do not ask for every picture.
    """
    budget, speed = config.budget, pace(state, now)
    hours = speed.seconds / 3600 if speed is not None else 0.0
    done = max(1, sum(not one.open for one in state.experiments.values()))
    proposals = state.proposals
    over = sum(not one.open for one in proposals)

    def per_hour(of_each: float) -> float | None:
        return of_each * speed.experiments / hours if speed is not None else None

    cpu = speed.cpu_seconds / 3600 / hours if speed is not None else None
    ends = min((number for number in (budget.experiments, config.loop.experiments) if number), default=0)
    rows: list[tuple[str, float, float, float, float | None]] = [
        (MONEY, state.money, budget.money, 0.0, per_hour(state.money / done)),
        (TOKENS, state.tokens_used, budget.tokens, 0.0, per_hour(state.tokens_used / done)),
        (CPU, state.cpu_seconds / 3600, budget.cpu_hours, _reserved(state) / 3600, cpu),
        (WALL, worked(state, now) / 3600, budget.wall_hours, 0.0, 1.0),
        (EXPERIMENTS, over, ends, len(proposals) - over, speed.proposals / hours if speed is not None else None),
    ]
    if disk_bytes is not None:
        rows.append((DISK, disk_bytes / 1e9, budget.disk_gb, 0.0, per_hour(disk_bytes / 1e9 / done)))
    each = speed.proposals / hours if speed is not None else None
    return [_forecast(*line, each, state, now) for line in rows if line[1] or line[2]]


def _reserved(state: RunState) -> float:
    """What running trials will still use, by prediction."""
    predicted = ((state.experiments[one.experiment].predicted_cpu_seconds, one.cpu_seconds)
                 for one in state.running_trials)  # fmt: skip
    return sum(max(0.0, cost - used) for cost, used in predicted)


def _forecast(
    currency: str, used: float, cap: float, reserved: float, rate: float | None, each: float | None,
    state: RunState, now: float,
) -> Forecast:  # fmt: skip
    """One currency; `each` is proposals per hour."""
    if not cap:
        return Forecast(currency, used, 0.0, reserved, 0.0, rate, None, None, "no cap")
    share = used / cap
    left = cap - used - reserved
    if currency == EXPERIMENTS:
        # Those in flight are among what is still to be done, only nothing new is opened for them.
        more: int | None = max(0, round(left))
        seconds = (cap - used) / rate * 3600 if rate else None
    else:
        seconds = max(0.0, left) / rate * 3600 if rate else None
        more = round(seconds / 3600 * each) if seconds is not None and each is not None else None
    text = _words(share, left, rate, seconds, more, currency, state, now)
    return Forecast(currency, used, cap, reserved, share, rate, seconds, more, text)


def _words(
    share: float, left: float, rate: float | None, seconds: float | None, more: int | None, currency: str,
    state: RunState, now: float,
) -> str:  # fmt: skip
    """When the cap is reached, in words."""
    if share >= 1.0:
        return "the cap is reached"
    if left <= 0 and currency != EXPERIMENTS:
        return "the cap is reached by what is in flight"
    if seconds is None:
        return "no use of it yet" if rate == 0 else "too little is known for a forecast"
    if seconds > FAR_SECONDS:
        return "cap not in sight"
    if state.phase != "running":
        return f"{words.span(seconds)} of work to the cap{_more(more)}"
    when = time.localtime(now + seconds)
    far = seconds > 20 * 3600
    return f"cap at {time.strftime('%a %d %b %H:%M' if far else '%H:%M', when)}{_more(more)}"


def _more(more: int | None) -> str:
    return "" if more is None else f", ≈ {words.plural(more, 'more experiment')}"
