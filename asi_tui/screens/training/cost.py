"""What became of a trial, or what it would cost to end it now."""

from __future__ import annotations

from asi_tui import words
from asi_tui.lines import Row, Span, clip, row
from asi_tui.model import Model
from store.state import Trial

LOST_SECONDS = 600.0
"""Work beyond this makes the price stand out."""


def state_row(model: Model, trial: Trial, width: int) -> Row:
    """One line on the chosen trial."""
    spans: list[Span] = [(f" {trial.id} ", "strong")]
    if trial.status == "running":
        spans += _price(model, trial)
    elif trial.status == "parked":
        kept = "goes on from its checkpoint" if trial.checkpoint else "has no checkpoint and starts over"
        spans += [("parked", "warn"), (f": {kept}; {words.age(trial.cpu_seconds)} of CPU so far", "")]
    elif trial.status == "finished":
        scores = ", ".join(f"{one.task} {one.final:.3f} {one.metric}" for one in trial.tasks)
        spans += [("finished", "good"), (f": {scores}" if scores else "", ""),
                  (f"   {words.age(trial.wall_seconds)}, {words.age(trial.cpu_seconds)} of CPU", "dim")]  # fmt: skip
    else:
        word = "✗ CHEAT" if trial.cheat else f"✗ {trial.status}"
        spans += [(word, "bad" if trial.status == "failed" else "warn"), (f": {trial.reason or 'no reason given'}", "")]
    return clip(row(*spans), width)


def _price(model: Model, trial: Trial) -> list[Span]:
    """What ending a running trial loses."""
    if trial.reason:
        return [("✗ ", "bad"), (trial.reason, "bad")]
    curve = model.curves.get(trial.id)
    latest = curve.latest if curve else None
    worked = max(0.0, model.now - trial.started)
    tone = "warn" if worked > LOST_SECONDS else "dim"
    rate: list[Span] = []
    if latest is not None:
        rate = [(f"step {latest.step:,} of {latest.steps:,}   ", "")]
    return [*rate, (f"killing now loses {words.age(worked)} of work; park keeps it", tone)]
