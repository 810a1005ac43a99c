"""Every record of a journal in plain words.

Texts inside of events were written by models and programs; `describe` makes them one line without control characters.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from typing import Any

from store import events as ev

MAX_TEXT = 160
_INVISIBLE = frozenset(("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"))


def clean(text: str, limit: int = MAX_TEXT) -> str:
    """One line without control, format or bidirectional characters, at most `limit` long."""
    shown = "".join(" " if unicodedata.category(c) in _INVISIBLE else c for c in text[: 4 * limit])
    shown = " ".join(shown.split())
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


def _short(sha: str) -> str:
    return sha[:10] or "none"


def _because(reason: str) -> str:
    return f": {reason}" if reason else ""


def _bounded(value: float | None) -> str:
    if value is None or abs(value) >= 1e9:
        return "unknown"
    return f"{value:+.2f}"


def _vetted(e: ev.ProgramVetted) -> str:
    failed = next((gate for gate in e.gates if not gate.passed), None)
    if e.passed:
        return f"{e.experiment} program {_short(e.program)} passed all {len(e.gates)} vetting gates"
    reason = f"{failed.gate}: {failed.evidence}" if failed is not None else "no verdict"
    return f"{e.experiment} program {_short(e.program)} failed vetting at {reason}"


def _assessed(e: ev.RiskAssessed) -> str:
    counts = {level: sum(f.severity == level for f in e.findings) for level in ("high", "medium", "low", "info")}
    found = ", ".join(f"{count} {level}" for level, count in counts.items() if count) or "no findings"
    return f"{e.experiment} program {_short(e.program)} at {e.tier}: {found}, about {e.cpu_seconds:.0f} CPU seconds"


def _sealed(signed: ev.Signed | None) -> str:
    return f", signed with {signed.key or 'a key'}" if signed is not None else ""


_ASKED = {"pause": "the run to be paused", "cancel": "the end of"}


def _requested(e: ev.ApprovalRequested) -> str:
    people = f"{e.people} people" + (f" of {e.of}" if e.of else "") if e.people > 1 else "one person"
    if e.subject == "program":
        about = f"program {_short(e.program)} of {e.experiment} at {e.tier} (rule {e.rule}, {e.risk}, {people})"
    else:
        about = f"{_ASKED[e.subject]} {e.experiment}".rstrip() + f" ({people}){_because(e.reason)}"
    return f"approval {e.request} asked for: {about}"


def _voted(e: ev.ApprovalVoted) -> str:
    looked = f" after {e.seconds:.0f} s" if e.seconds else ""
    return f"{e.who} answered {e.request}: {e.decision}{looked}{_because(e.reason)}{_sealed(e.signed)}"


_VERBS = {"approve": "approved", "reject": "rejected", "defer": "deferred", "expire": "let expire"}


def _decided(e: ev.ApprovalDecided) -> str:
    what = f"program {_short(e.program)} of {e.experiment} at {e.tier}" if e.program else e.request
    rule = f" (rule {e.rule})" if e.rule else ""
    return f"{e.who} {_VERBS[e.decision]} {what}{rule}{_because(e.reason)}"


def _finished(e: ev.TrialFinished) -> str:
    scores = ", ".join(f"{task.task} {task.score:.3f}" for task in e.tasks)
    cost = "taken from the cache" if e.cached else f"{e.cpu_seconds:.0f} CPU seconds"
    return f"trial {e.trial} of {e.experiment} finished ({cost}): {scores}"


def _scored(e: ev.ExperimentScored) -> str:
    interval = f"[{_bounded(e.low)}, {_bounded(e.high)}]"
    seeds = f"{e.seeds} seed{'s' if e.seeds != 1 else ''} at {e.tier}"
    return f"{e.experiment} scored {e.score:+.2f} noise units against the baseline, {interval}, {seeds}"


def _analysed(e: ev.ExperimentAnalysed) -> str:
    held = sum(outcome.verdict == "held" for outcome in e.outcomes)
    predictions = f" ({held} of {len(e.outcomes)} predictions held)" if e.outcomes else ""
    return f"{e.experiment} analysed{predictions}: {e.summary}"


def _opened(e: ev.ExperimentOpened) -> str:
    parent = f" from {e.parent}" if e.parent else ""
    return f"{e.experiment} opened by {e.origin}{parent}{' as a random-parent control' if e.control else ''}"


def _killed(e: ev.RunKilled) -> str:
    proof = "death proved" if e.proved else "death NOT proved"
    return f"everything killed by {e.who}: {e.processes} processes, {proof}{_because(e.reason)}{_sealed(e.signed)}"


def _replied(e: ev.AgentReplied) -> str:
    result = "replied" if e.ok else f"gave no usable answer ({e.error})"
    used = f", {e.tokens_in + e.tokens_out} tokens" if e.tokens_in or e.tokens_out else ""
    return f"{e.role} {result} for {e.experiment} after {e.seconds:.1f} s{used}"


_WORDS: dict[type, Callable[[Any], str]] = {
    ev.RunCreated: lambda e: f"run {e.name} created by asi {e.version} (format {e.format})",
    ev.EngineStarted: lambda e: (
        f"engine started, pid {e.pid}, asi {e.version}" + (f", proposals by {e.agents}" if e.agents else "")
    ),
    ev.EngineStopped: lambda e: f"engine left{_because(e.reason)}",
    ev.JournalRepaired: lambda e: f"journal repaired: {e.bytes_cut} torn bytes cut after record {e.last_good}",
    ev.RunArmed: lambda e: (
        f"armed at isolation {e.level}: {e.attacks_stopped} of {e.attacks_tried} attacks stopped, "
        f"{e.processes} processes proved dead in {e.killed_ms:.0f} ms"
    ),
    ev.ArmingFailed: lambda e: f"arming failed{_because(e.reason)}",
    ev.RunPaused: lambda e: f"paused{_because(e.reason)}",
    ev.RunFrozen: lambda e: f"frozen: {e.processes} processes stopped in {e.milliseconds:.0f} ms{_because(e.reason)}",
    ev.RunParked: lambda e: f"parked{_because(e.reason)}",
    ev.RunResumed: lambda e: "resumed",
    ev.RunStopped: lambda e: f"{'finished' if e.finished else 'stopped'}{_because(e.reason)}",
    ev.RunKilled: _killed,
    ev.RunRearmed: lambda e: f"kill latch lifted{_because(e.reason)}{_sealed(e.signed)}",
    ev.RunForked: lambda e: (
        f"run {e.name} forked by {e.who or 'somebody'} from {e.of} at {e.at} (record {e.seq}, {_short(e.head)})"
        + _because(e.reason)
        + _sealed(e.signed)
    ),
    ev.AutonomyChanged: lambda e: f"autonomy is {e.level}{_because(e.reason)}{_sealed(e.signed)}",
    ev.PolicyAdopted: lambda e: (
        f"{e.who} put policy {e.name} ({_short(e.policy)}) in force{_because(e.reason)}"
        + (f"; warning: {e.warning}" if e.warning else "")
        + _sealed(e.signed)
    ),
    ev.SignersAdopted: lambda e: (
        f"decisions must be signed by: {', '.join(e.people)}" if e.people else "decisions need no signature"
    ),
    ev.BudgetExceeded: lambda e: (
        f"budget {'reached its cap' if e.hard else 'at 80 % of its cap'}: {e.currency} {e.used:g} of {e.cap:g}"
    ),
    ev.LeaseLost: lambda e: (
        f"no heartbeat of the engine for {e.seconds:.0f} s: {e.sandboxes} sandboxes killed by the guard, "
        f"death {'proved' if e.proved else 'NOT proved'}"
    ),
    ev.ClockJumped: lambda e: f"the wall clock jumped by {e.seconds:+.0f} s; budgets do not count it",
    ev.NoteAdded: lambda e: f"{e.level}: {e.text}",
    ev.AgentCalled: lambda e: f"{e.role} ({e.agent}) began to work on {e.experiment}",
    ev.AgentReplied: _replied,
    ev.ExperimentOpened: _opened,
    ev.ProposalDrafted: lambda e: f"{e.experiment} proposes “{e.title}”, program {_short(e.program)}",
    ev.ProposalDuplicate: lambda e: f"{e.experiment} repeats {e.of} ({e.how})",
    ev.ProgramVetted: _vetted,
    ev.ProgramRepaired: lambda e: (
        f"{e.experiment} repaired (attempt {e.attempt}): program {_short(e.old)} became {_short(e.new)}: {e.diagnosis}"
    ),
    ev.RiskAssessed: _assessed,
    ev.ApprovalRequested: _requested,
    ev.ApprovalVoted: _voted,
    ev.ApprovalWithdrawn: lambda e: f"{e.who} took back the answer to {e.request}",
    ev.ApprovalDecided: _decided,
    ev.AttentionChecked: lambda e: (
        f"{e.request} had been a test of attention ({e.what}), which {e.who} {'caught' if e.caught else 'MISSED'}"
    ),
    ev.QuestionAsked: lambda e: f"{e.who} asked about {e.experiment}: {e.text}",
    ev.ExperimentHeld: lambda e: f"{e.experiment} held{_because(e.reason)}",
    ev.ExperimentReleased: lambda e: f"{e.experiment} goes on",
    ev.TrialStarted: lambda e: (
        f"trial {e.trial} of {e.experiment} {'went on' if e.resumed else 'started'}: program {_short(e.program)}, "
        f"{e.tier}, seed {e.seed}, isolation {e.level}"
    ),
    ev.TrialAnomaly: lambda e: f"trial {e.trial} of {e.experiment} stopped by the watch, {e.what}: {e.evidence}",
    ev.TrialFinished: _finished,
    ev.TrialFailed: lambda e: (
        f"trial {e.trial} of {e.experiment} {'CHEATED' if e.cheat else 'failed'}: {e.reason}{_because(e.evidence)}"
    ),
    ev.TrialParked: lambda e: (
        f"trial {e.trial} of {e.experiment} parked by {e.who}, "
        + (f"checkpoint {_short(e.checkpoint)}" if e.checkpoint else "without a checkpoint")
    ),
    ev.TrialKilled: lambda e: f"trial {e.trial} of {e.experiment} ended by {e.who}",
    ev.ExperimentScored: _scored,
    ev.ExperimentAnalysed: _analysed,
    ev.ExperimentClosed: lambda e: f"{e.experiment} closed as {e.outcome}{_because(e.reason)}",
}


def describe(record: ev.Record) -> str:
    """A record in plain words: one line, safe to print."""
    return clean(_WORDS[type(record.data)](record.data), 2 * MAX_TEXT)
