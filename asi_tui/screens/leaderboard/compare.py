"""Marked experiments side by side: scores, differences, costs, curves on one plot, programs against the first one's."""

from __future__ import annotations

from collections.abc import Sequence

from asi_tui.lines import BLANK, Row, Span, beside, clip, row, rule
from asi_tui.model import Curve
from asi_tui.plot import SIGNS, Series, plot
from asi_tui.screens.base import Watch
from asi_tui.screens.diff import diff_rows
from asi_tui.screens.keys import Key
from asi_tui.screens.leaderboard.compare_rows import cost_rows, difference_rows, name_of, score_rows
from asi_tui.screens.leaderboard.computed import Computed
from asi_tui.screens.leaderboard.standing import Glance
from engine.client.protocol import BoardPage, BoardRow
from store.state import Trial

WIDE = 140
POINTS_DRAWN = 2_000
"""Points of a curve that are drawn; more would not be seen."""


class CompareScreen(Watch):
    """One long page about two to six experiments; the first is what the others are compared with."""

    NAME = "Comparison"
    SCROLLS = True
    SEARCHES = True

    def __init__(self, experiments: Sequence[str]) -> None:
        super().__init__()
        self.experiments = list(experiments)
        self.chosen_task = ""
        self.sealed = False
        self.glance = Glance()
        self.diffs: Computed[list[Row]] = Computed(self)
        self._curves: dict[str, tuple[object, Curve]] = {}
        self._built: tuple[object, list[Row]] = (None, [])

    def body(self, width: int, height: int) -> list[Row]:
        """The page, scrolled."""
        self.glance.scores(self.model)
        quoted = ", ".join("'" + name.replace("'", "''") + "'" for name in self.experiments)
        where, limit = f"experiment IN ({quoted})", len(self.experiments)
        entry = self.asi.library.board(self.glance.stamp, where=where, limit=limit)
        page: BoardPage | None = entry.value
        if page is None:
            text = f" not there: {entry.error}" if entry.error else " on its way …"
            return [rule("comparison", width), clip(row((text, "dim")), width)]
        by_name = {one.experiment: one for one in page.rows}
        found = [by_name[name] for name in self.experiments if name in by_name]
        missing = [name for name in self.experiments if name not in by_name]
        if len(found) < 2:
            text = f" nothing to compare with: {', '.join(missing)} has no score"
            return [rule("comparison", width), clip(row((text, "dim")), width)]
        rows = self._rows(found, missing, width, height)
        view = self.scrolled(rows, height - 1)
        title = f"{name_of(found[0])} against {', '.join(name_of(one) for one in found[1:])}"
        return [rule(title[: width - 30], width, self.position(len(rows))), *view]

    def _rows(self, found: list[BoardRow], missing: list[str], width: int, height: int) -> list[Row]:
        curves = [self._curve(one) for one in found]
        self._choose_task(curves)
        diff = self._diff(found, width)
        total = sum(curve.total for curve in curves if curve is not None)
        scores = tuple((one.experiment, one.score, one.high, one.cpu_seconds) for one in found)
        key = (scores, width, height, self.chosen_task, self.sealed, total, id(diff))
        if self._built[0] != key:
            rows = score_rows(found, width)
            if missing:
                rows.append(row((f" no score: {', '.join(missing)}", "warn")))
            if width >= WIDE:
                half = (width - 3) // 2
                rows += beside(difference_rows(found, half), half, cost_rows(found, width - half - 3))
            else:
                rows += [*difference_rows(found, width), *cost_rows(found, width)]
            rows += [BLANK, *self._plot(found, curves, width, max(8, min(18, height // 2)))]
            rows += diff if diff is not None else [BLANK, row((" programs are on their way …", "dim"))]
            self._built = (key, rows)
        return self._built[1]

    # --- curves ----------------------------------------------------------------------------------------------------

    def _trial(self, one: BoardRow) -> Trial | None:
        """A finished trial of the program that has the score; all with the same seed where they have one."""
        state = self.model.state
        if one.experiment not in state.experiments:
            return None
        trials = state.finished_trials(one.experiment, one.program or None)
        return min(trials, key=lambda trial: (trial.tier != one.tier, trial.seed), default=None)

    def _curve(self, one: BoardRow) -> Curve | None:
        trial = self._trial(one)
        told = self.asi.library.curve(trial.id, trial.status) if trial is not None else None
        if told is None:
            return None
        kept = self._curves.get(one.experiment)
        if kept is None or kept[0] is not told:
            curve = Curve()
            curve.add(told.losses, told.scores)
            self._curves[one.experiment] = kept = (told, curve)
        return kept[1]

    def _tasks(self, curves: Sequence[Curve | None]) -> list[str]:
        return list(dict.fromkeys(task for curve in curves if curve is not None for task in curve.tasks()))

    def _choose_task(self, curves: Sequence[Curve | None]) -> None:
        tasks = self._tasks(curves)
        if tasks and self.chosen_task not in tasks:
            self.chosen_task = tasks[0]

    def _plot(self, found: list[BoardRow], curves: list[Curve | None], width: int, height: int) -> list[Row]:
        tasks = self._tasks(curves)
        what = "sealed score" if self.sealed else "training loss, nats, lower is better"
        place = f" ({tasks.index(self.chosen_task) + 1} of {len(tasks)} tasks)" if self.chosen_task in tasks else ""
        series: list[Series] = []
        legend: list[Span] = [(" ", "")]
        for number, (one, curve) in enumerate(zip(found, curves, strict=True)):
            both = (curve.scores if self.sealed else curve.losses) if curve is not None else {}
            known = both.get(self.chosen_task, {})
            points = sorted((float(step), value) for step, value in known.items() if abs(value) < 1e6)
            points = points[:: max(1, len(points) // POINTS_DRAWN)]
            series.append(Series(one.experiment, points, number))
            trial = self._trial(one)
            last = f" {points[-1][1]:.3f}" if points else " no points"
            seed = f" seed {trial.seed}" if trial is not None else ""
            legend += [(SIGNS[number], f"series.{number}"), (f" {name_of(one)}{seed}", "dim"), (f"{last}   ", "")]
        rows = [rule(f"{self.chosen_task or 'curves'}{place}", width, what), clip(row(*legend), width)]
        if not any(one.points for one in series):
            return [*rows, row((" no points yet", "dim"))]
        return rows + [clip(line, width) for line in plot(series, width - 1, height, "steps")]

    # --- programs --------------------------------------------------------------------------------------------------

    def _diff(self, found: list[BoardRow], width: int) -> list[Row] | None:
        """The programs of the others against that of the first, compared in a worker thread."""
        names = [name_of(one) for one in found]
        shas = [one.program for one in found]
        texts = [self.asi.library.blob(sha) for sha in shas]
        there = [text for text in texts if text is not None]
        if len(there) < len(texts):
            return None

        def work() -> list[Row]:
            rows: list[Row] = []
            for name, text in zip(names[1:], there[1:], strict=True):
                rows += [BLANK, rule(f"program of {name} against {names[0]}", width), *diff_rows(there[0], text, width)]
            return rows

        return self.diffs.get((tuple(shas), width), work)

    # --- keys ------------------------------------------------------------------------------------------------------

    def keys(self) -> list[Key]:
        """Back, the task and the kind of curve."""
        keys = [Key(("escape", "backspace", "="), "Esc", "back", "back to the leaderboard", self.app.pop_screen)]
        tasks = self._tasks([kept[1] for kept in self._curves.values()])
        if len(tasks) > 1:
            keys.append(Key(("t",), "t", "task", "the curves of the next task", lambda: self._next_task(tasks)))
        if tasks:
            word = "loss" if self.sealed else "score"
            keys.append(Key(("m",), "m", word, "training loss or sealed score", self._toggle))
        return keys

    def _next_task(self, tasks: list[str]) -> None:
        at = tasks.index(self.chosen_task) if self.chosen_task in tasks else -1
        self.chosen_task = tasks[(at + 1) % len(tasks)]

    def _toggle(self) -> None:
        self.sealed = not self.sealed
