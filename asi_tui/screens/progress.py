"""How far a trial is, for every screen that lists trials."""

from __future__ import annotations

from asi_tui import words
from asi_tui.model import Model
from store.state import Trial


def progress(model: Model, trial: Trial) -> str:
    """How far a running trial is: `seed 0 43% 25 s left`."""
    curve = model.curves.get(trial.id)
    if curve is None or curve.latest is None:
        return f"seed {trial.seed} for {words.age(model.now - trial.started)}"
    latest = curve.latest
    left = f" {words.age(latest.seconds_left)} left" if latest.seconds_left > 0 else ""
    return f"seed {trial.seed} {latest.done:.0%}{left}"
