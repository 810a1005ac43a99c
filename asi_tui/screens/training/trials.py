"""The list of trials: those that run, then all that ended, the newest first."""

from __future__ import annotations

from collections.abc import Hashable

from asi_tui import words
from asi_tui.lines import Row, Span, bar, clip, tagged
from asi_tui.model import Model
from asi_tui.screens.parts import table
from store.state import Trial


class TrialList:
    """Sorted and filtered again only when something was recorded or other words are sought."""

    def __init__(self) -> None:
        self._known: tuple[Hashable, list[Trial]] = ((), [])

    def trials(self, model: Model, sought: str) -> list[Trial]:
        """Trials whose id, title, state or reason read all the words; those that run are always among them."""
        state = model.state
        stamp = (state.seq, id(state), sought)
        if self._known[0] != stamp:
            running = sorted(state.running_trials, key=lambda trial: trial.started)
            ended = sorted((one for one in state.trials.values() if one.status != "running"), key=lambda t: -t.ended)
            wanted = sought.lower().split()
            if wanted:
                ended = [one for one in ended if _reads(model, one, wanted)]
            self._known = (stamp, running + ended)
        return self._known[1]


def _reads(model: Model, trial: Trial, wanted: list[str]) -> bool:
    found = model.state.experiments[trial.experiment]
    cheat = "cheat" if trial.cheat else ""
    text = f"{trial.id} {words.title(found)} {trial.tier} {trial.status} {trial.reason} {cheat}".lower()
    return all(word in text for word in wanted)


def trial_rows(model: Model, trials: list[Trial], chosen: str, width: int, count: int) -> list[Row]:
    """The part of the list around the chosen trial, with a head."""
    index = next((i for i, trial in enumerate(trials) if trial.id == chosen), 0)
    first = max(0, min(index - count // 2, len(trials) - count))
    columns = [("  id", 8, ""), ("title", max(12, width - 54), ""), ("seed", 4, "right"), ("done", 13, ""),
               ("steps/s", 7, "right"), ("left", 10, "right")]  # fmt: skip
    shown = trials[first : first + count]
    head, *rows = table(columns, [_cells(model, trial, trial.id == chosen) for trial in shown], 0)
    return [clip(head, width), *(tagged(clip(line, width), one.id) for line, one in zip(rows, shown, strict=True))]


def _cells(model: Model, trial: Trial, chosen: bool) -> list[Span | str]:
    found = model.state.experiments[trial.experiment]
    curve = model.curves.get(trial.id)
    latest = curve.latest if curve else None
    speed = left = ""
    title = words.title(found)
    if trial.status == "running":
        share = latest.done if latest else 0.0
        done: Span = (f"{bar(share, 8)} {share:4.0%}", "accent")
        speed = f"{latest.steps_per_second:.1f}" if latest and latest.steps_per_second else ""
        left = words.age(latest.seconds_left) if latest and latest.seconds_left else ""
    else:
        tone = {"finished": "good", "failed": "bad"}.get(trial.status, "warn")
        done = ("cached" if trial.cached else "✗ CHEAT" if trial.cheat else
                f"✗ {trial.status}" if trial.status == "failed" else trial.status, tone)  # fmt: skip
        left = f"{words.age(model.now - trial.ended)} ago"
        title = f"{trial.reason} · {title}" if trial.reason else title
    mark: Span = (("▸ " if chosen else "  ") + words.short_id(found), "strong" if chosen else "dim")
    return [mark, (title, "strong" if chosen else ""), str(trial.seed), done, speed, (left, "dim")]
