"""One experiment's story in plain lines, from sample to lesson; the same for the shell and for the terminal."""

from __future__ import annotations

import time

from asi_tui.safe import clean
from asi_tui.words import known, score, span
from store.state import Experiment, RunState

LABEL = 13


def tell_story(state: RunState, entry: Experiment) -> list[str]:
    """The lines of the story; every text in them is inert."""
    lines = [f"{clean(entry.id)}  {clean(entry.title)}", ""]

    def say(label: str, text: str) -> None:
        if text:
            lines.append(f"{label:<{LABEL}}{clean(text, 1_000)}")

    say("opened", time.strftime("%F %T", time.localtime(entry.opened)) + f" by {entry.origin}")
    parent = state.experiments.get(entry.parent)
    say("parent", f"{parent.id}  {parent.title}" if parent else "")
    say("references", ", ".join(entry.references))
    say("change", entry.change)
    say("motivation", entry.motivation)
    say("hypothesis", entry.hypothesis)
    outcomes = {outcome.task: outcome for outcome in entry.outcomes}
    for prediction in entry.predictions:
        outcome = outcomes.get(prediction.task)
        seen = f" -> {outcome.verdict}: measured {outcome.measured:+.3g} ({outcome.note})" if outcome else ""
        say("predicted", f"{prediction.task} {prediction.direction} by about {prediction.size:.3g}{seen}")
    for gate in entry.gates:
        say("vetting", f"{'ok  ' if gate.passed else 'FAIL'} {gate.gate}: {gate.evidence}")
    for finding in entry.findings:
        say("risk", f"{finding.severity}: {finding.kind}: {finding.message}")
    for request in state.requests.values():
        if request.experiment == entry.id:
            say("approval", f"{request.id}: {request.decision or 'pending'} {request.who} {request.reason}")
    for name in entry.trials:
        trial = state.trials[name]
        numbers = ", ".join(f"{task.task} {task.score:.4f}" for task in trial.tasks)
        cost = f"{span(trial.cpu_seconds)} CPU"
        say("trial", f"{trial.id} seed {trial.seed} {trial.status} {numbers or trial.reason} {cost}")
    scored = entry.scored
    if scored is not None:
        say("score", f"{score(scored.score, scored.low, scored.high)} noise units, {scored.seeds} seeds")
        for task in scored.tasks:
            say("", f"{task.task}: {task.difference:+.4f} against the baseline, noise {task.noise:.4f}")
        if scored.against_parent is not None and known(scored.against_parent_low, scored.against_parent_high):
            against = score(scored.against_parent, scored.against_parent_low, scored.against_parent_high)
            say("vs parent", f"{against} noise units")
    say("summary", entry.summary)
    for lesson in entry.lessons:
        say("lesson", lesson)
    say("outcome", f"{entry.outcome} {entry.reason}".strip() if entry.outcome else f"at step: {entry.step}")
    return lines
