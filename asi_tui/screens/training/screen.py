"""The screen: trials above, curves of the chosen one in the middle, the machine below."""

from __future__ import annotations

from collections.abc import Callable

from asi_tui.lines import BLANK, Row, beside, row, rule
from asi_tui.screens.base import Watch
from asi_tui.screens.ending import end_key
from asi_tui.screens.keys import Key, Question
from asi_tui.screens.training.cost import state_row
from asi_tui.screens.training.curves import Curves
from asi_tui.screens.training.machine import machine_rows
from asi_tui.screens.training.trials import TrialList, trial_rows
from store.state import Trial

WIDE = 140
WALL = 200
TASK_WIDTH = 64
"""Cells that one of several tasks gets on a wall."""

FAR = 10**6


class TrainingScreen(Watch):
    """Watches one trial among those that run and all that ended."""

    NAME = "Training"
    SHORT = "Train"

    def __init__(self) -> None:
        super().__init__()
        self.chosen = ""
        self.chosen_task = ""
        self.sealed = False
        self.filter = ""
        self.list = TrialList()

    # --- drawing ---------------------------------------------------------------------------------------------------

    def body(self, width: int, height: int) -> list[Row]:
        """Trials above, curves below; more of them at once on a wide screen."""
        trials = self._trials()
        if not trials:
            empty = f"no trial reads “{self.filter}”" if self.filter else "no trial has started yet"
            load = machine_rows(self.model, width, height - 3)
            return [rule("training", width), row((f" {empty}", "dim")), BLANK, *load]
        if self.chosen not in self.model.state.trials or (self.filter and self._index(trials) is None):
            self.chosen, self.chosen_task = trials[0].id, ""
        trial = self.model.state.trials[self.chosen]
        running = len(self.model.state.running_trials)
        note = f"{running:,} running, {len(trials) - running:,} ended"
        note += f" that read “{self.filter}”" if self.filter else ""
        rows = [rule("trials", width, note)]
        self.page = max(2, min(len(trials), height // 4))
        rows += trial_rows(self.model, trials, self.chosen, width, self.page)
        rows.append(state_row(self.model, trial, width))
        devices = len(self.model.load.devices) if self.model.load else 0
        load = machine_rows(self.model, width, min(2 + devices, max(2, height // 4)))
        rows += self._curves(trial, width, height - len(rows) - len(load))
        return [*rows, *([BLANK] * (height - len(rows) - len(load))), *load]

    def choose(self, trial: str) -> None:
        """Show one trial."""
        self.chosen, self.chosen_task, self.filter = trial, "", ""

    def _trials(self) -> list[Trial]:
        return self.list.trials(self.model, self.filter)

    def _index(self, trials: list[Trial]) -> int | None:
        return next((index for index, trial in enumerate(trials) if trial.id == self.chosen), None)

    def _curves(self, trial: Trial, width: int, room: int) -> list[Row]:
        """One plot; loss and score side by side; on a wall those of several tasks."""
        if room < 4:
            return []
        curves = Curves(self.asi.library, self.model, trial)
        tasks = curves.own.tasks()
        if self.chosen_task not in tasks:
            live = curves.own.latest.task if curves.own.latest else ""
            self.chosen_task = live if live in tasks else tasks[-1] if tasks else ""
        if width < WIDE:
            return curves.rows(self.chosen_task, self.sealed, width, room)
        count = min(len(tasks), width // TASK_WIDTH)
        if width >= WALL and count > 1 and room >= 16:
            return self._wall(curves, tasks, count, width, room)
        half = (width - 3) // 2
        loss, score = (curves.rows(self.chosen_task, sealed, half, room) for sealed in (False, True))
        return beside(loss, half, score)

    def _wall(self, curves: Curves, tasks: list[str], count: int, width: int, room: int) -> list[Row]:
        """Small multiples: a task to each column, from the chosen one on; loss above, score below."""
        first = tasks.index(self.chosen_task)
        shown = [tasks[(first + number) % len(tasks)] for number in range(count)]
        cell = (width - 3 * (count - 1)) // count
        out: list[Row] = []
        for sealed in (False, True):
            high = room // 2
            rows = curves.rows(shown[0], sealed, cell, high)
            for number, task in enumerate(shown[1:], 1):
                rows = beside(rows, number * cell + (number - 1) * 3, curves.rows(task, sealed, cell, high))
            out += [*rows[:high], *([BLANK] * (high - len(rows)))]
        return out

    # --- keys ------------------------------------------------------------------------------------------------------

    def keys(self) -> list[Key]:
        """Choosing a trial, a task, a kind of curve."""
        trials = self._trials()
        filtering = [Key(("/",), "/", "filter", "only trials that read these words", self._ask_filter, bool(trials))]
        if self.filter:
            filtering.append(Key(("escape",), "Esc", "all", "all trials again", lambda: self._set_filter("")))
        if not trials:
            return filtering if self.filter else []
        keys = end_key(self)
        if len(trials) > 1:
            keys += self._list_keys()
        if self.chosen in self.model.curves and len(self.model.curve(self.chosen).tasks()) > 1:
            keys.append(Key(("t",), "t", "task", "the next task of this trial", self._next_task))
        if self.size.width < WIDE:
            word = "loss" if self.sealed else "score"
            keys.append(Key(("m",), "m", word, "training loss or sealed score", self._toggle))
        keys.append(Key(("enter",), "Enter", "experiment", "the story of its experiment", self._open_experiment))
        return [*keys, *filtering]

    def _list_keys(self) -> list[Key]:
        def by(rows: int) -> Callable[[], object]:
            return lambda: self._step(rows)

        return [
            Key(("up", "k", "left"), "↑", "", "the trial above", by(-1), False),
            Key(("down", "j", "right"), "↑↓", "trial", "the trial below", by(1)),
            Key(("pageup", "ctrl+b"), "PgUp", "", "a page of trials up", lambda: self._step(-self.page), False),
            Key(("pagedown", "space", "ctrl+f"), "PgDn", "", "a page of trials down", lambda: self._step(self.page),
                False),
            Key(("home", "g"), "Home", "", "the first trial", by(-FAR), False),
            Key(("end", "G"), "End", "", "the oldest trial", by(FAR), False),
        ]  # fmt: skip

    def open(self, target: str) -> None:
        """A click on a trial chooses it."""
        if target in self.model.state.trials:
            self.chosen, self.chosen_task = target, ""
        else:
            super().open(target)

    def wheel(self, lines: int) -> None:
        """The wheel goes through the list."""
        self._step(1 if lines > 0 else -1)

    def _step(self, by: int) -> None:
        trials = self._trials()
        if trials:
            index = self._index(trials) or 0
            self.chosen, self.chosen_task = trials[max(0, min(len(trials) - 1, index + by))].id, ""

    def _next_task(self) -> None:
        tasks = self.model.curve(self.chosen).tasks()
        if self.chosen_task in tasks:
            self.chosen_task = tasks[(tasks.index(self.chosen_task) + 1) % len(tasks)]

    def _toggle(self) -> None:
        self.sealed = not self.sealed

    def _open_experiment(self) -> None:
        trial = self.model.state.trials.get(self.chosen)
        if trial is not None:
            super().open(trial.experiment)

    def _ask_filter(self) -> None:
        self.put(Question("only trials that read:", self._set_filter, typed=self.filter, changed=self._set_filter))

    def _set_filter(self, text: str) -> None:
        self.filter = text.strip()
