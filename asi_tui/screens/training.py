"""Screen 4, training: running trials with their curves against parent and baseline, and the machine."""

from __future__ import annotations

from asi_tui import words
from asi_tui.lines import BLANK, Row, Span, bar, beside, clip, row, rule
from asi_tui.model import Curve
from asi_tui.plot import SIGNS, Series, plot
from asi_tui.screens.base import Watch
from asi_tui.screens.ending import end_key
from asi_tui.screens.keys import Key
from asi_tui.screens.parts import device_row, table
from store.state import Trial

LISTED = 5
WIDE = 140


class TrainingScreen(Watch):
    """Watches one trial among those that run, or the last ones that ended."""

    NAME = "Training"
    SHORT = "Train"

    def __init__(self) -> None:
        super().__init__()
        self.chosen = ""
        self.chosen_task = ""
        self.sealed = False

    def body(self, width: int, height: int) -> list[Row]:
        """Trials above, curves below; both kinds of curve side by side on a wide screen."""
        trials = self._trials()
        if not trials:
            return [rule("training", width), row((" no trial has started yet", "dim")), BLANK, *self._load(width)]
        if self.chosen not in [trial.id for trial in trials]:
            self.chosen, self.chosen_task = trials[0].id, ""
        trial = self.model.state.trials[self.chosen]
        rows = [rule("trials", width, f"{len(self.model.state.running_trials)} running")]
        rows += self._trial_rows(trials, width, max(1, min(LISTED, height // 5)))
        load = self._load(width)
        room = height - len(rows) - len(load)
        if width >= WIDE:
            half = (width - 3) // 2
            rows += beside(self._plot(trial, half, room, False), half, self._plot(trial, half, room, True))
        else:
            rows += self._plot(trial, width, room, self.sealed)
        return [*rows, *load]

    def choose(self, trial: str) -> None:
        """Show one trial."""
        self.chosen, self.chosen_task = trial, ""

    def _trials(self) -> list[Trial]:
        running = sorted(self.model.state.running_trials, key=lambda trial: trial.started)
        ended = sorted(
            (trial for trial in self.model.state.trials.values() if trial.status != "running"), key=lambda t: -t.ended
        )
        return running + ended[:20]

    def _trial_rows(self, trials: list[Trial], width: int, count: int) -> list[Row]:
        index = next((i for i, trial in enumerate(trials) if trial.id == self.chosen), 0)
        first = max(0, min(index - count + 1, len(trials) - count))
        columns = [("  id", 8, ""), ("title", max(12, width - 54), ""), ("seed", 4, "right"), ("done", 13, ""),
                   ("steps/s", 7, "right"), ("left", 10, "right")]  # fmt: skip
        cells = [self._trial_cells(trial) for trial in trials[first : first + count]]
        return [clip(line, width) for line in table(columns, cells, 0)]

    def _trial_cells(self, trial: Trial) -> list[Span | str]:
        state, chosen = self.model.state, trial.id == self.chosen
        found = state.experiments[trial.experiment]
        curve = self.model.curves.get(trial.id)
        latest = curve.latest if curve else None
        if trial.status == "running":
            share = latest.done if latest else 0.0
            done: Span = (f"{bar(share, 8)} {share:4.0%}", "accent")
            speed = f"{latest.steps_per_second:.1f}" if latest and latest.steps_per_second else ""
            left = words.age(latest.seconds_left) if latest and latest.seconds_left else ""
        else:
            tone = {"finished": "good", "failed": "bad"}.get(trial.status, "warn")
            done = ("cached" if trial.cached else "CHEAT" if trial.cheat else trial.status, tone)
            speed = ""
            left = f"{words.age(self.model.now - trial.ended)} ago"
        mark: Span = (("▸ " if chosen else "  ") + words.short_id(found), "strong" if chosen else "dim")
        return [mark, (words.title(found), "strong" if chosen else ""), str(trial.seed), done, speed, (left, "dim")]

    # --- curves ----------------------------------------------------------------------------------------------------

    def _curve(self, trial: Trial) -> Curve:
        """The trial's curve, completed by what the engine had before this terminal came."""
        curve = self.model.curve(trial.id)
        if not trial.cached:
            told = self.asi.library.curve(trial.id, trial.status)
            if told is not None and curve.total < len(told.losses) + len(told.scores):
                curve.add(told.losses, told.scores)
        return curve

    def _plot(self, trial: Trial, width: int, height: int, sealed: bool) -> list[Row]:
        own = self._curve(trial)
        tasks = own.tasks()
        if self.chosen_task not in tasks:
            live = own.latest.task if own.latest else ""
            self.chosen_task = live if live in tasks else tasks[-1] if tasks else ""
        what = f"sealed {self._metric()}" if sealed else "training loss, nats, lower is better"
        position = f" ({tasks.index(self.chosen_task) + 1} of {len(tasks)} tasks)" if self.chosen_task in tasks else ""
        rows = [rule(f"{self.chosen_task or 'curves'}{position}", width, what)]
        series, legend = self._series(trial, own, sealed)
        if not any(one.points for one in series):
            return [*rows, row((" no points yet", "dim"))]
        rows.append(clip(row(*legend), width))
        end = float(own.latest.steps) if own.latest and own.latest.task == self.chosen_task else 0.0
        return rows + [clip(line, width) for line in plot(series, width - 1, max(3, height - 2), "steps", end)]

    def _metric(self) -> str:
        """What the sealed scorer measures on the chosen task."""
        results = (task for trial in self.model.state.trials.values() for task in trial.tasks)
        return next((task.metric for task in results if task.task == self.chosen_task), "measure")

    def _series(self, trial: Trial, own: Curve, sealed: bool) -> tuple[list[Series], list[Span]]:
        found = self.model.state.experiments[trial.experiment]
        reference = self.model.reference()
        shown: list[tuple[str, str, Curve]] = [(found.id, "this trial", own)]
        others = [(found.parent, "parent"), (reference.id if reference else "", "baseline")]
        for experiment, role in others:
            other = self.model.trial_for(experiment, trial)
            if other is not None and other.id != trial.id and all(experiment != one[0] for one in shown):
                shown.append((experiment, role, self._curve(other)))
        known_as = self.model.state.experiments
        names = {one: words.title(known_as[one]) if known_as[one].origin == "baseline" else one for one, _, _ in shown}
        series, legend = [], [(" ", "")]
        for number, (experiment, role, curve) in enumerate(shown):
            colour = {"this trial": 0, "parent": 1, "baseline": 2}[role]
            known = (curve.scores if sealed else curve.losses).get(self.chosen_task, {})
            points = sorted((float(step), value) for step, value in known.items() if abs(value) < 1e6)
            series.append(Series(experiment, points, colour))
            last = f" {points[-1][1]:.3f}" if points else " no points"
            legend += [("   " if number else "", ""), (SIGNS[colour], f"series.{colour}"),
                       (f" {role} {names[experiment]}", "dim"), (last, "")]  # fmt: skip
        return series, legend

    def _load(self, width: int) -> list[Row]:
        load = self.model.load
        if load is None:
            return [rule("machine", width), row((" no load figures yet", "dim"))]
        rows = [
            rule("machine", width, f"{load.trials} of {load.slots} slots in use"),
            clip(row((" cpu ", "dim"), (bar(load.cpu, 12), "accent"), f" {load.cpu:4.0%}", ("   memory ", "dim"),
                     (bar(load.memory_used / max(1.0, load.memory_total), 12), "accent"),
                     f" {load.memory_used / 2**30:.1f} of {words.size(load.memory_total)}",
                     ("   engine lag ", "dim"), f"{load.loop_lag_ms:.0f} ms"), width),
        ]  # fmt: skip
        rows += [device_row(device, width) for device in load.devices]  # fmt: skip
        return rows

    # --- keys ------------------------------------------------------------------------------------------------------

    def keys(self) -> list[Key]:
        """Choosing a trial, a task, a kind of curve."""
        trials = self._trials()
        if not trials:
            return []
        keys = end_key(self)
        if len(trials) > 1:
            keys += [
                Key(("up", "k", "left"), "↑", "", "the trial above", lambda: self._step(-1), False),
                Key(("down", "j", "right"), "↑↓", "trial", "the trial below", lambda: self._step(1)),
            ]
        if len(self.model.curve(self.chosen).tasks()) > 1:
            keys.append(Key(("t",), "t", "task", "the next task of this trial", self._next_task))
        if self.size.width < WIDE:
            word = "loss" if self.sealed else "score"
            keys.append(Key(("m",), "m", word, "training loss or sealed score", self._toggle))
        return keys

    def _step(self, by: int) -> None:
        ids = [trial.id for trial in self._trials()]
        index = ids.index(self.chosen) if self.chosen in ids else 0
        self.chosen, self.chosen_task = ids[max(0, min(len(ids) - 1, index + by))], ""

    def _next_task(self) -> None:
        tasks = self.model.curve(self.chosen).tasks()
        if self.chosen_task in tasks:
            self.chosen_task = tasks[(tasks.index(self.chosen_task) + 1) % len(tasks)]

    def _toggle(self) -> None:
        self.sealed = not self.sealed
