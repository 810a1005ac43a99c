"""What the morning brief says, ordered by what a person must do: from the state, the configuration and a time since.

No widget, no file, no clock: the app draws it, `asi brief` prints it.
"""

from __future__ import annotations

import heapq
import time
from collections import Counter

import msgspec

from asi_tui import words
from asi_tui.forecast import Forecast, forecasts
from asi_tui.safe import clean
from store.attention import Attention, attention
from store.config import RunConfig
from store.state import Experiment, Request, RunState

TOP = 10
"""The places of the leaderboard whose changes are told."""

MOST = 200
"""Most lines of one part."""

STANDS = ("paused", "frozen", "parked")


class Item(msgspec.Struct, frozen=True):
    """One line: what it says, the experiment or request that it is about, how it looks (a style's name)."""

    text: str
    target: str = ""
    tone: str = ""


class Situation(msgspec.Struct, frozen=True):
    """What the state does not say: whether the run is latched (in words), whether the engine lives, the disk's use."""

    latched: str = ""
    alive: bool = True
    disk_bytes: float | None = None


class Brief(msgspec.Struct, frozen=True):
    """The parts of a brief. `since_known` is false where the person has not looked before: then it begins at `since`,
    the run's beginning.
    """

    run: str
    now: float
    since: float
    since_known: bool
    phase: str
    needs: list[Item]
    changed: list[Item]
    spending: list[Forecast]
    anomalies: list[Item]
    next: list[Item]
    learned: list[Item] = []
    leaders: list[str] = []


def brief(
    state: RunState, config: RunConfig, now: float, since: float | None, situation: Situation | None = None
) -> Brief:
    """Everything that the morning brief says; `since` is None where the person has not looked before."""
    facts = situation or Situation()
    begin = since if since is not None else state.created
    return Brief(
        state.name, now, begin, since is not None, state.phase,
        needs(state, config, now, facts),
        [*changed(state, begin), *_decided(state, now)],
        forecasts(state, config, now, facts.disk_bytes),
        anomalies(state, begin),
        coming(state, config, now),
        learned(state, begin),
        [one.id for one in leaders(state)],
    )  # fmt: skip


def since_words(found: Brief) -> str:
    """Since when: `since you last looked, Tue 23:10, 9 h 02 min ago`."""
    ago = words.span(found.now - found.since)
    when = time.strftime("%a %H:%M", time.localtime(found.since))
    if not found.since_known:
        return f"since the run began, {when}, {ago} ago"
    return f"since {when}, {ago} ago"


def told(found: Brief) -> list[str]:
    """The brief in plain lines, inert."""
    spent = [f"{one.label:<13} {one.spent:<27} {one.text}".rstrip() for one in found.spending]
    parts = [
        ("needs you", [one.text for one in found.needs] or ["nothing waits for you"]),
        (f"what changed, {since_words(found)}", [one.text for one in found.changed]),
        ("spent", spent or ["nothing yet"]),
        ("anomalies and cheats", [one.text for one in found.anomalies] or ["none"]),
        ("next", [one.text for one in found.next]),
    ]
    lines = [clean(f"{found.run}: {found.phase}")]
    for title, texts in parts:
        lines += ["", title, *(f"  {clean(text)}" for text in texts)]
    return lines


# --- what needs a person ---------------------------------------------------------------------------------------------


def needs(state: RunState, config: RunConfig, now: float, facts: Situation) -> list[Item]:
    """What waits for a person: first what holds up everything, then requests, those that expire soonest first."""
    found: list[Item] = []
    if facts.latched:
        found.append(Item(f"everything: {facts.latched}", "", "bad"))
    elif state.phase in STANDS:
        why = f", {state.phase_reason}" if state.phase_reason else ""
        found.append(Item(f"everything waits: {state.phase}{why}; p goes on, or asi resume {state.name}", "", "warn"))
    elif not facts.alive and state.phase not in ("finished", "stopped"):
        found.append(Item(f"everything waits: the engine is not alive; asi run {state.name} goes on", "", "bad"))
    elif state.phase == "stopped":
        found.append(Item(f"stopped; asi run {state.name} goes on", "", "warn"))
    failed = state.armed is None and next((n for n in reversed(state.notes) if n.text.startswith("arming fail")), None)
    if failed:
        found.append(Item(f"nothing may start: {failed.text}; asi doctor says more", "", "bad"))
    pending = sorted(state.pending, key=lambda one: (one.expires, one.asked))
    places = config.loop.concurrency
    if pending and len(pending) >= places:
        found.append(Item(f"all {places} places wait for decisions: no new proposal begins before one", "", "warn"))
    found += [_request(state, one, now) for one in pending[:MOST]]
    meter = attention(state, now)
    if meter.warning:
        found.append(Item(f"attention: {meter.warning}", "", "warn"))
    return found


def _request(state: RunState, one: Request, now: float) -> Item:
    left = one.expires - now
    ends = f"refused in {words.age(left)}" if left > 0 else "refused now"
    waits = f"waits {words.age(now - one.asked)}"
    if one.subject != "program":
        return Item(f"{one.id}  {waits}, {ends}: {words.asked_about(state, one)}", one.id, "warn")
    entry = state.experiments[one.experiment]
    severity = words.severity(entry.findings)
    text = f"{one.id}  {waits}, {ends}: {one.rule} ({severity})  {words.title(entry)}"
    return Item(text, one.id, "bad" if severity == "high" else "warn")


def meter_words(found: Attention) -> str:
    """The rubber-stamp meter in a line: `last hour: 7 decided, 86% approved, median after 40 s, 12 s on the card`."""
    if not found.decided:
        return ""
    parts = [f"last hour: {found.decided} decided, {found.approved or 0:.0%} approved"]
    if found.waited is not None:
        parts.append(f"median after {words.span(found.waited)}")
    if found.seconds is not None:
        parts.append(f"{words.span(found.seconds)} on the card")
    if found.fast:
        parts.append(f"{found.fast:.0%} under 5 s")
    if found.caught or found.missed:
        parts.append(f"tests caught {found.caught} of {found.caught + found.missed}")
    return ", ".join(parts)


# --- what has changed ------------------------------------------------------------------------------------------------


def changed(state: RunState, since: float) -> list[Item]:
    """What came out: how many, the best, the leaderboard, failures by reason, the share of duplicates."""
    over = [one for one in state.proposals if not one.open and one.changed >= since]
    if not over:
        return [Item("nothing was finished", "", "dim")]
    outcomes = Counter(one.outcome for one in over)
    told = ", ".join(f"{outcomes[name]} {_OUTCOMES[name]}" for name in _OUTCOMES if outcomes[name])
    found = [Item(f"{len(over)} finished: {told}")]
    found += _best(state, since)
    found += _places(leaders(state), since)
    lost = [one for one in over if one.outcome in ("failed", "rejected")]
    if lost:
        reasons = Counter(_reason(one) for one in lost).most_common(4)
        text = ", ".join(f"{reason} {number}" for reason, number in reasons)
        found.append(Item(f"not trained to the end: {text}", "", "warn" if 2 * len(lost) > len(over) else ""))
    if outcomes["duplicate"]:
        share = outcomes["duplicate"] / len(over)
        tone = "warn" if share > 0.3 else ""
        found.append(Item(f"duplicates: {outcomes['duplicate']} of {len(over)} proposals ({share:.0%})", "", tone))
    return found


def _decided(state: RunState, now: float) -> list[Item]:
    """How people have decided of late."""
    told = meter_words(attention(state, now))
    return [Item(f"decisions, {told}", "", "dim")] if told else []


_OUTCOMES = {"ranked": "ranked", "duplicate": "repeated an earlier one", "rejected": "rejected", "failed": "failed"}


def _by_score(one: Experiment) -> tuple[float, float]:
    """The order of the ranking."""
    return (-(one.scored.score if one.scored else 0.0), one.opened)


def leaders(state: RunState) -> list[Experiment]:
    """The first places of the leaderboard."""
    return heapq.nsmallest(TOP, (one for one in state.experiments.values() if one.ranked), key=_by_score)


def _reason(one: Experiment) -> str:
    """A failure's kind: what stands before its particulars."""
    text = one.reason or one.failure or one.outcome
    return text.split(":")[0].split("(")[0].strip()[:32] or one.outcome


def _best(state: RunState, since: float) -> list[Item]:
    """The best proposal, whether it is new, and whether it is better than what was best before."""
    proposals = [one for one in state.proposals if one.ranked]
    if not proposals:
        return []
    best = min(proposals, key=_by_score)
    before = min((one for one in proposals if one.changed < since), key=_by_score, default=None)
    assert best.scored is not None
    score = words.scored(best.scored)
    if best.changed < since:
        return [Item(f"best as before: {best.id} {score}  {words.title(best)}", best.id, "dim")]
    verdict = words.verdict(best.scored.low, best.scored.high)
    against = {"better": "its interval excludes zero", "worse": "below the baseline"}.get(verdict, "may be noise")
    item = Item(f"new best: {best.id} {score} ({against})  {words.title(best)}", best.id,
                "good" if verdict == "better" else "strong")  # fmt: skip
    if before is None or before.scored is None:
        return [item]
    text = f"   before: {before.id} {words.scored(before.scored)}; {_compared(best, before)}"
    return [item, Item(text, before.id, "dim")]


def _compared(best: Experiment, before: Experiment) -> str:
    new, old = best.scored, before.scored
    assert new is not None
    assert old is not None
    if not (words.known(new.low, new.high) and words.known(old.low, old.high)):
        return "too few seeds to tell them apart"
    return "the intervals do not overlap" if new.low > old.high else "the intervals overlap: not told apart yet"


def _places(ranking: list[Experiment], since: float) -> list[Item]:
    """What is new among the first places, the best one being told already."""
    proposals = [one for one in ranking if one.origin != "baseline"]
    first = proposals[0].id if proposals else ""
    found = []
    for place, one in enumerate(ranking[:TOP], start=1):
        if one.changed >= since and one.origin != "baseline" and one.id != first and one.scored is not None:
            verdict = words.verdict(one.scored.low, one.scored.high)
            tone = {"better": "good", "worse": "dim"}.get(verdict, "")
            text = f"place {place}: {one.id} {words.scored(one.scored)} {verdict}  {words.title(one)}"
            found.append(Item(text, one.id, tone))
    return found


# --- anomalies, and what comes ---------------------------------------------------------------------------------------


def anomalies(state: RunState, since: float) -> list[Item]:
    """Cheats first, then errors, then warnings, the newest first; what the other parts tell is left out."""
    cheats = [one for one in state.trials.values() if one.cheat and one.ended >= since]
    found = [
        Item(f"CHEAT {words.clock(one.ended)}  {one.id}: {one.reason}", one.experiment, "bad")
        for one in sorted(cheats, key=lambda one: -one.ended)
    ]
    for level, tone in (("error", "bad"), ("warning", "warn")):
        for note in reversed(state.notes):
            if note.time >= since and note.level == level and not note.text.startswith("budget "):
                trial = state.trials.get(note.text.split(" ")[0])
                target = trial.experiment if trial is not None else ""
                found.append(Item(f"{words.clock(note.time)}  {note.text}", target, tone))
    return found[:MOST]


def coming(state: RunState, config: RunConfig, now: float) -> list[Item]:
    """What is in flight and what waits for a place."""
    flight = [one for one in state.experiments.values() if one.open]
    busy = {trial.experiment for trial in state.running_trials}
    steps = Counter(_step(one, busy) for one in flight)
    found = []
    if flight:
        told = ", ".join(f"{number} {word}" for word, number in steps.most_common())
        found.append(Item(f"{len(flight)} in flight: {told}"))
        order = sorted(flight, key=lambda one: (one.id not in busy, one.step == "gate", one.opened))
        found += [
            Item(f"{one.id}  {_step(one, busy)} since {words.clock(one.changed)}  "
                 f"{words.origin_mark(one)}{words.title(one)}", one.id, "dim")
            for one in order[:MOST]
        ]  # fmt: skip
    elif state.phase == "running":
        found.append(Item("the next proposal is on its way", "", "dim"))
    ends = min((number for number in (config.loop.experiments, config.budget.experiments) if number), default=0)
    if ends and state.phase in ("running", "armed"):
        left = max(0, ends - len(state.proposals))
        found.insert(min(1, len(found)), Item(f"then {words.plural(left, 'more proposal')}, and the run ends"))
    return found or [Item(f"nothing: {state.phase}", "", "dim")]


def learned(state: RunState, since: float) -> list[Item]:
    """The lessons of what was finished, the newest first."""
    taught = (one for one in state.proposals if one.lessons and one.changed >= since)
    over = heapq.nlargest(MOST, taught, key=lambda one: one.changed)
    return [Item(f"{one.id}  {lesson[:400]}", one.id) for one in over for lesson in one.lessons][:MOST]


def _step(one: Experiment, busy: set[str]) -> str:
    return "queued" if one.step == "train" and one.id not in busy else words.STEPS[one.step]
