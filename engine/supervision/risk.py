"""What could go wrong with a program, as findings with evidence. Findings decide nothing; the policy reads them.

What the source says is a hint: code can do what no reading of it shows. The boundary is the sandbox, and the cost is
what is measured; findings tell a person where to look first.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

import msgspec

from engine.costs import CostPrediction
from engine.domain import SourceChange, SourceFinding
from engine.resemblance import Nearest
from engine.supervision.ledger import CPU, MONEY, TOKENS, Account
from store.audit import clean
from store.events import Finding, GateVerdict

LEVELS = ("L0", "L1", "L2", "L3")
CHEAP_TIERS = frozenset({"probe", "probe-smoke"})
DEAR_CPU_SECONDS = 300.0
GROWING_COST = 1.2
NEAR_DUPLICATE = 0.85
SUSPECT_SHARE, WORRYING_SHARE = 0.05, 0.2
"""Of what a vetting gate tolerates: honest programs stay below a hundredth."""
SMALL_DRIFT, LARGE_DRIFT = 0.15, 0.6
LIMITS = ("limit", "overrun", "flood")

MAX_MESSAGE = 240
MAX_ALIKE = 8
_ORDER = ("high", "medium", "low", "info")
_TOLERANCE = re.compile(r"within ([0-9.e+-]{1,12}) of ([0-9.e+-]{1,12}) allowed")
_LEAK_GATES = ("prefix", "batch", "causal")


class Circumstances(msgspec.Struct, frozen=True, kw_only=True):
    """What is known about a program that has passed vetting, before it trains.

    failures: why earlier trials of this experiment ended without a score. seeds: trials it gets at first. tokens_each,
    money_each: what an experiment of this run has used on average. drift: how the program differs from the one that was
    approved before, None when none was; by_person: whether a person approved that one.
    """

    source: list[SourceFinding]
    gates: list[GateVerdict]
    tier: str
    level: str
    wanted_level: str
    cost: CostPrediction
    cost_exponent: float = 0.0
    state_floats: int = 0
    seeds: int = 1
    memory_mb: float = 0.0
    least_memory_mb: float = 0.0
    accounts: list[Account] = []
    tokens_each: float = 0.0
    money_each: float = 0.0
    failures: list[str] = []
    nearest: Nearest = Nearest()
    nearest_cheated: bool = False
    drift: SourceChange | None = None
    by_person: bool = False


def assess(known: Circumstances) -> list[Finding]:
    """Every finding, worst first; of many alike only the first few, and how many more there are."""
    found = [
        *_source(known), *_science(known), *_resources(known), *_budget(known),
        *_stage(known), *_drift(known), *_isolation(known),
    ]  # fmt: skip
    found = [Finding(f.kind, f.severity, clean(f.message, MAX_MESSAGE), f.line) for f in found]
    return _bounded(sorted(found, key=lambda finding: (_ORDER.index(finding.severity), finding.line)))


def _bounded(found: list[Finding]) -> list[Finding]:
    counts: dict[tuple[str, str], int] = {}
    kept: list[Finding] = []
    for finding in found:
        key = (finding.kind, finding.severity)
        counts[key] = counts.get(key, 0) + 1
        if counts[key] <= MAX_ALIKE:
            kept.append(finding)
    kept += [
        Finding(kind, severity, f"{count - MAX_ALIKE} more findings of this kind")  # type: ignore[arg-type]
        for (kind, severity), count in counts.items()
        if count > MAX_ALIKE
    ]
    return sorted(kept, key=lambda finding: _ORDER.index(finding.severity))


def _source(known: Circumstances) -> Iterator[Finding]:
    """What the syntax tree says, weighed against what vetting measured."""
    for item in known.source:
        severity, message = ("high" if item.error else item.severity), item.message
        if item.kind in ("quadratic", "fft") and known.cost_exponent > GROWING_COST:
            severity, message = "medium", f"{message}; its cost was measured to grow as T^{known.cost_exponent:.2f}"
        elif item.kind == "state_growth" and known.state_floats > 0:
            severity, message = "low", f"{message}; vetting saw a constant {known.state_floats} floats"
        yield Finding(item.kind, severity, message, item.line)


# --- science ---------------------------------------------------------------------------------------------------------


def _science(known: Circumstances) -> Iterator[Finding]:
    for failure in known.failures:
        if failure.startswith(("leak", "cheat")):
            yield Finding("leak", "high", f"an earlier trial of this experiment ended as a {failure}")
    for gate in known.gates:
        yield from _gate(known, gate)
    nearest = known.nearest
    if nearest.likeness >= NEAR_DUPLICATE:
        alike = f"{nearest.likeness:.0%} like {nearest.experiment}"
        if known.nearest_cheated:
            yield Finding("leak", "medium", f"{alike}, which was caught with answers that it could not know")
        yield Finding("near_duplicate", "low", f"{alike}: the same lines, whatever they are named")


def _gate(known: Circumstances, gate: GateVerdict) -> Iterator[Finding]:
    if gate.gate in _LEAK_GATES and (close := _TOLERANCE.search(gate.evidence)):
        with contextlib.suppress(ValueError, ZeroDivisionError):
            share = float(close[1]) / float(close[2])
            if share > SUSPECT_SHARE:
                severity = "medium" if share > WORRYING_SHARE else "low"
                text = f"{share:.0%} of what vetting tolerates for rounding is used up: {gate.evidence}"
                yield Finding("leak", severity, text)  # type: ignore[arg-type]
    _, found, named = gate.evidence.partition("none ever reaches ")
    if gate.gate == "gradient" and gate.passed and found:
        yield Finding("dead_parameters", "low", f"no gradient ever reaches {named}")
    if gate.gate == "complexity" and known.cost_exponent > GROWING_COST:
        yield Finding("cost_growth", "low", f"cost grows as T^{known.cost_exponent:.2f}: {gate.evidence}")


# --- resources -------------------------------------------------------------------------------------------------------


def _resources(known: Circumstances) -> Iterator[Finding]:
    if known.cost.cpu_seconds > DEAR_CPU_SECONDS:
        yield Finding("resources", "medium", f"one trial is predicted to take {span(known.cost)}")
    for failure in known.failures:
        if failure.startswith(LIMITS):
            yield Finding("resources", "low", f"an earlier trial of this experiment was ended at a limit: {failure}")
    if known.least_memory_mb > known.memory_mb > 0:
        text = f"needs at least {known.least_memory_mb:.0f} MB, a trial may use {known.memory_mb:.0f} MB"
        yield Finding("memory", "medium", text)


def span(cost: CostPrediction) -> str:
    """A predicted cost in words, with its interval, or that there is none yet."""
    if not cost.learned:
        return f"{cost.cpu_seconds:.0f} CPU-seconds (no interval yet: learned from {cost.programs} programs)"
    low, high = f"{cost.low:.0f}", f"{cost.high:.0f}"
    return f"{cost.cpu_seconds:.0f} CPU-seconds ({low} to {high}, learned from {cost.programs} programs)"


def _budget(known: Circumstances) -> Iterator[Finding]:
    """What it will use against what is left. Beyond a cap that a person has let the run pass, it is only said."""
    dearest = max(known.cost.cpu_seconds, known.cost.high) * known.seeds
    wanted = {
        CPU: ("resources", dearest / 3600, f"its first {known.seeds} trials may take {dearest / 3600:.3g} CPU hours"),
        TOKENS: ("tokens", known.tokens_each, f"an experiment uses about {known.tokens_each:.0f} tokens"),
        MONEY: ("money", known.money_each, f"an experiment costs about {known.money_each:.3g}"),
    }
    for account in known.accounts:
        kind, amount, words = wanted.get(account.currency, ("", 0.0, ""))
        left = account.cap - account.used - account.reserved
        if amount <= 0 or amount <= left:
            continue
        passed = account.used >= account.cap
        text = f"{words}; {max(0.0, left):.3g} of {account.cap:g} {account.currency} are left"
        yield Finding(kind, "low" if passed else "medium", text)


# --- stage, drift, isolation -----------------------------------------------------------------------------------------


def _stage(known: Circumstances) -> Iterator[Finding]:
    if known.tier not in CHEAP_TIERS:
        yield Finding("stage", "medium", f"it would train at {known.tier}, which is an expensive tier")


def _drift(known: Circumstances) -> Iterator[Finding]:
    """How far a repair strays. What only the policy had approved, the policy decides on anew: no more than a hint."""
    if known.drift is None or known.drift.share <= 0:
        return
    share, where = known.drift.share, ", ".join(known.drift.where)
    graded = "low" if share < SMALL_DRIFT else "medium" if share < LARGE_DRIFT else "high"
    severity = graded if known.by_person else "low"
    who = "a person" if known.by_person else "the policy"
    text = f"{share:.0%} of the lines differ from what {who} approved before, in {where}"
    yield Finding("drift", severity, text)  # type: ignore[arg-type]


def _isolation(known: Circumstances) -> Iterator[Finding]:
    if LEVELS.index(known.level) < LEVELS.index(known.wanted_level):
        text = f"the sandbox is {known.level} on this machine, {known.wanted_level} was asked for"
        yield Finding("isolation", "high" if known.level == "L0" else "medium", text)
