"""Numbers, times and states in the words that a person reads: units always, at most three figures."""

from __future__ import annotations

import time

from store.events import ExperimentScored, Finding, RunArmed
from store.state import Experiment, Phase, Request, RunState

UNKNOWN_BOUND = 1e8
"""An interval bound beyond this says that nothing is known."""

SEVERITIES = ("info", "low", "medium", "high")

STEPS: dict[str, str] = {
    "propose": "writing",
    "dedupe": "comparing",
    "vet": "vetting",
    "repair": "repairing",
    "assess": "assessing",
    "gate": "asking",
    "train": "training",
    "score": "scoring",
    "analyse": "analysing",
    "closed": "closed",
}

LEVELS: dict[str, str] = {"L3": "isolated", "L2": "isolated", "L1": "partly isolated", "L0": "NO isolation"}


def span(seconds: float) -> str:
    """A duration in its two largest units: `0.4 s`, `38 s`, `4 min`, `2 h 05 min`, `3 d 4 h`."""
    seconds = max(0.0, seconds)
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes:02d} min"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h"


def age(seconds: float) -> str:
    """A duration in whole seconds or more, for ages that change while one looks."""
    seconds = max(0.0, seconds)
    return f"{seconds:.0f} s" if seconds < 99.5 else span(seconds)


def clock(when: float) -> str:
    """A time of the day, to the second."""
    return time.strftime("%H:%M:%S", time.localtime(when))


def count(value: float) -> str:
    """A count with a magnitude: `812`, `49.3k`, `1.20M`, `3.4e15`."""
    for limit, divisor, unit in ((1e3, 1.0, ""), (1e6, 1e3, "k"), (1e9, 1e6, "M"), (1e12, 1e9, "G"), (1e15, 1e12, "T")):
        if abs(value) < limit * 0.9995:
            scaled = value / divisor
            if divisor == 1.0 and float(scaled).is_integer():
                return f"{scaled:.0f}"
            return f"{scaled:.{0 if abs(scaled) >= 100 else 1 if abs(scaled) >= 10 else 2}f}{unit}"
    return f"{value:.1e}"


def size(value: float) -> str:
    """Bytes in GiB, MiB or KiB."""
    for limit, unit in ((2**30, "GiB"), (2**20, "MiB")):
        if value >= limit:
            return f"{value / limit:.1f} {unit}"
    return f"{value / 1024:.0f} KiB"


def plural(number: int, word: str) -> str:
    """`1 seed`, `3 seeds`."""
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def signed(value: float) -> str:
    """A difference with its sign: `+1.82`; three figures at most."""
    return f"{value:+.0f}" if abs(value) >= 100 else f"{value:+.1f}" if abs(value) >= 10 else f"{value:+.2f}"


def known(low: float | None, high: float | None) -> bool:
    """Whether an interval says anything."""
    return low is not None and high is not None and abs(low) < UNKNOWN_BOUND and abs(high) < UNKNOWN_BOUND


def margin(low: float | None, high: float | None) -> str:
    """Half the width of an interval: `±0.40`, or `±?` where too little is known."""
    if low is None or high is None or not known(low, high):
        return "±?"
    half = (high - low) / 2
    return f"±{half:.0f}" if half >= 100 else f"±{half:.1f}" if half >= 10 else f"±{half:.2f}"


def score(value: float, low: float | None, high: float | None) -> str:
    """A score with its uncertainty: `+1.82 ±0.40`."""
    return f"{signed(value)} {margin(low, high)}"


def score_cell(value: float, low: float | None, high: float | None) -> str:
    """A score with its uncertainty in 12 cells, so that the points of a column stand below each other."""
    return f"{signed(value):>6} {margin(low, high):<5}"


def scored(found: ExperimentScored) -> str:
    """The score of an experiment with its uncertainty."""
    return score(found.score, found.low, found.high)


def verdict(low: float | None, high: float | None) -> str:
    """What an interval of a difference says, in a word."""
    if low is None or high is None or not known(low, high):
        return "open"
    return "better" if low > 0 else "worse" if high < 0 else "open"


def severity(findings: list[Finding]) -> str:
    """The highest severity among findings, `info` without any."""
    return max((finding.severity for finding in findings), key=SEVERITIES.index, default="info")


def title(found: Experiment) -> str:
    """What an experiment is called before and after it has a title."""
    if found.title:
        return found.title
    return "…" if found.origin == "baseline" else "being written"


def origin_mark(found: Experiment) -> str:
    """Where an experiment comes from, when it is not an ordinary proposal of the loop."""
    if found.control:
        return "control: "
    return {"person": "person: ", "control": "control: "}.get(found.origin, "")


def short_id(found: Experiment) -> str:
    """An id of six cells; baselines are known by their titles."""
    return "base" if found.origin == "baseline" else found.id


def name_of(state: RunState, experiment: str) -> str:
    """The title of an experiment by its id."""
    found = state.experiments.get(experiment)
    return title(found) if found else experiment


def asked_about(state: RunState, request: Request) -> str:
    """What a request is about: the title of a program, or the question of a vote."""
    if request.subject == "pause":
        return "vote: shall the run be paused?"
    name = name_of(state, request.experiment)
    return f"vote: shall {request.experiment} be cancelled? {name}" if request.subject == "cancel" else name


def person(who: str) -> str:
    """A person's name as one says it."""
    return who.removeprefix("person:")


DECIDED: dict[str, str] = {
    "approve": "approved",
    "reject": "rejected",
    "defer": "put off",
    "expire": "expired",
}
"""What has become of a request, or what somebody has said to it."""


def drill(armed: RunArmed) -> str:
    """The last arming drill: `drill 4 dead in 6 ms`."""
    return f"drill {armed.processes} dead in {armed.killed_ms:.0f} ms"


def phase_word(phase: Phase, connected: bool, known_state: bool, latched: str = "") -> str:
    """The state in the header: one word, and LATCHED beside it where only a person can undo it."""
    if latched:
        return "KILLED, LATCHED" if latched == "killed" else "FROZEN, LATCHED"
    if not known_state:
        return "STARTING" if connected else "WAITING"
    return {"created": "STARTING", "armed": "ARMED"}.get(phase, phase.upper())


def latched_situation(latched: str, puller: str, name: str) -> str:
    """What a latched run is, who latched it, and what to do."""
    if latched == "killed":
        return f"Killed by {puller}. Nothing may start until `asi rearm {name} --reason …`, then `asi run {name}`."
    return (
        f"Emergency stop by {puller}: everything is frozen, and the latch keeps it so. R re-arms with a new drill "
        f"(or `asi rearm {name} --reason …`), then p resumes; Ctrl+\\ twice or `asi kill {name}` ends it."
    )


def situation(state: RunState, name: str) -> str:
    """What goes on, in a sentence that a newcomer understands."""
    reason = f" ({state.phase_reason})" if state.phase_reason else ""
    done = sum(not found.open for found in state.proposals)
    ranked = sum(found.ranked for found in state.proposals)
    if state.phase == "running":
        if not state.proposals:
            return "The loop has begun: first proposals are written, baselines are trained."
        if not done and not ranked:
            return "First proposals are written, vetted, trained beside the baselines."
        return f"New architectures are written, vetted, trained, judged: {done} done, {ranked} ranked."
    return {
        "created": "The engine starts: first it proves that it can kill what it starts.",
        "armed": "Armed: the kill path is proved. The loop begins now.",
        "paused": f"Paused{reason}: running trials finish, nothing new starts. p resumes.",
        "frozen": f"Frozen{reason}: every trial is stopped in place, memory kept. p resumes.",
        "parked": f"Parked{reason}: trials have left the device, the engine stays. p resumes.",
        "stopped": f"Stopped in order{reason}. `asi run {name}` goes on.",
        "finished": f"Finished{reason}: {done} experiments done, {ranked} ranked. Press 5 for the leaderboard.",
        "killed": f"Killed{reason}. Nothing may start until `asi rearm {name} --reason …`.",
    }.get(state.phase, state.phase)
