"""What happened, in the few words of a log line, and how the line looks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from asi_tui.words import plural, scored
from store import events as ev
from store.state import Experiment


def scored_text(event: ev.ExperimentScored) -> str:
    """A score, and on how many seeds."""
    return f"scored {scored(event)} on {plural(event.seeds, 'seed')}"


def closed_text(found: Experiment) -> str:
    """How an experiment ended."""
    return f"{found.outcome}: {found.reason or found.failure}".rstrip(": ")


LEVEL_STYLES = {"warning": "warn", "error": "bad"}

TELLERS: dict[type, Callable[[Any], tuple[str, str]]] = {
    ev.EngineStarted: lambda e: (f"engine started, pid {e.pid}", "dim"),
    ev.EngineStopped: lambda e: (f"engine stopped: {e.reason}", "dim"),
    ev.RunArmed: lambda e: (
        f"armed: {e.processes} processes killed in {e.killed_ms:.0f} ms, "
        f"{e.attacks_stopped}/{e.attacks_tried} attacks stopped",
        "good",
    ),
    ev.ArmingFailed: lambda e: (f"arming failed: {e.reason}", "bad"),
    ev.RunPaused: lambda e: (f"paused: {e.reason}".rstrip(": "), "warn"),
    ev.RunFrozen: lambda e: (
        f"frozen: {e.processes} processes in {e.milliseconds:.0f} ms, {e.reason}".rstrip(", "),
        "warn",
    ),
    ev.RunParked: lambda e: (f"parked: {e.reason}".rstrip(": "), "warn"),
    ev.RunResumed: lambda e: ("running", ""),
    ev.RunStopped: lambda e: (f"stopped: {e.reason}", "warn"),
    ev.RunKilled: lambda e: (f"killed by {e.who}", "bad"),
    ev.RunRearmed: lambda e: (f"re-armed: {e.reason}", "warn"),
    ev.BudgetExceeded: lambda e: (f"budget: {e.currency} {e.used:g} of {e.cap:g}", "warn"),
    ev.LeaseLost: lambda e: (
        f"no heartbeat of the engine for {e.seconds:.0f} s: {e.sandboxes} sandboxes killed by the guard, "
        f"{'proved' if e.proved else 'NOT proved'}",
        "bad",
    ),
    ev.NoteAdded: lambda e: (e.text, LEVEL_STYLES.get(e.level, "")),
    ev.JournalRepaired: lambda e: (f"journal repaired: {e.bytes_cut} bytes cut", "warn"),
    ev.ProposalDrafted: lambda e: (f"proposed: {e.title}", ""),
    ev.ProposalDuplicate: lambda e: (f"repeats {e.of}", "dim"),
    ev.ProgramVetted: lambda e: (
        ("passed all gates", "dim")
        if e.passed
        else ("failed " + ", ".join(gate.gate for gate in e.gates if not gate.passed), "warn")
    ),
    ev.ProgramRepaired: lambda e: (f"repaired: {e.diagnosis}", ""),
    ev.ApprovalRequested: lambda e: (f"asks for approval at {e.tier}: {e.rule}", "warn"),
    ev.ApprovalVoted: lambda e: (f"{e.request}: {e.who} answers", "dim"),
    ev.ApprovalWithdrawn: lambda e: (f"{e.request}: {e.who} took the answer back", "warn"),
    ev.ApprovalDecided: lambda e: (f"{e.decision} by {e.who}", "dim"),
    ev.AttentionChecked: lambda e: (
        f"{e.request} had been a test of attention: {'caught' if e.caught else 'MISSED'} by {e.who}",
        "dim" if e.caught else "bad",
    ),
    ev.QuestionAsked: lambda e: (f"{e.who} asks: {e.text}", ""),
    ev.ExperimentHeld: lambda e: (f"held: {e.reason}".rstrip(": "), "warn"),
    ev.ExperimentReleased: lambda e: ("goes on", "dim"),
    ev.PolicyAdopted: lambda e: (f"policy {e.name} by {e.who}", "warn"),
    ev.SignersAdopted: lambda e: (f"decisions are signed by {', '.join(e.people) or 'nobody'}", "warn"),
    ev.AutonomyChanged: lambda e: (f"autonomy {e.level}: {e.reason}".rstrip(": "), "warn"),
    ev.RunForked: lambda e: (f"forked from {e.of} at {e.at}", "warn"),
    ev.TrialStarted: lambda e: (f"trains seed {e.seed} at {e.tier}", "dim"),
    ev.TrialAnomaly: lambda e: (f"{e.what}: {e.evidence}", "bad"),
    ev.TrialFailed: lambda e: (f"{'CHEAT' if e.cheat else 'failed'}: {e.reason}", "bad" if e.cheat else "warn"),
    ev.TrialParked: lambda e: (f"trial parked by {e.who}", "warn"),
    ev.TrialKilled: lambda e: (f"trial ended by {e.who}", "warn"),
    ev.ExperimentScored: lambda e: (scored_text(e), "strong"),
    ev.ExperimentClosed: lambda e: (f"{e.outcome}: {e.reason}".rstrip(": "), "dim"),
}
