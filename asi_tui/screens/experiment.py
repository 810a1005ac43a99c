"""One experiment's story, from sample to lesson: motivation, predictions, gates, trials, score, diff, lessons."""

from __future__ import annotations

from asi_tui import outside, words
from asi_tui.lines import BLANK, Row, Span, clip, paragraph, row, rule
from asi_tui.screens.base import Watch
from asi_tui.screens.diff import diff_rows, source_rows
from asi_tui.screens.ending import end_key
from asi_tui.screens.kept import Kept
from asi_tui.screens.keys import Key
from asi_tui.screens.parts import fact, finding_rows, prediction_rows, table
from asi_tui.screens.steering import steering_keys
from store.state import Experiment, Trial


class ExperimentScreen(Watch):
    """Opened from the leaderboard; one long page."""

    NAME = "Experiment"
    SCROLLS = True
    SEARCHES = True

    def __init__(self, experiment: str) -> None:
        super().__init__()
        self.experiment = experiment
        self._built: tuple[object, list[Row]] = (None, [])
        self._programs: Kept[list[Row]] = Kept(self)

    def body(self, width: int, height: int) -> list[Row]:
        """The page, scrolled."""
        found = self.model.state.experiments.get(self.experiment)
        if found is None:
            return [rule(self.experiment, width), row((" this experiment is not part of the run any more", "dim"))]
        rows = self._rows(found, width)
        view = self.scrolled(rows, height - 1)
        return [rule(f"{found.id} {words.title(found)}", width, self.position(len(rows))), *view]

    def keys(self) -> list[Key]:
        """Back, on to the parent, and the end of a trial of this experiment."""
        keys = [Key(("escape", "backspace"), "Esc", "back", "back", self.app.pop_screen)]
        keys += end_key(self, self.experiment)
        keys += steering_keys(self, self.experiment)
        found = self.model.state.experiments.get(self.experiment)
        if found is not None and found.parent in self.model.state.experiments:
            keys.append(Key(("u",), "u", "parent", "the parent's story", self._open_parent))
        return [*keys, *(self._talk_and_pager() if found is not None else [])]

    def _talk_and_pager(self) -> list[Key]:
        return [
            Key(("t",), "t", "transcript", "what agents said for it", lambda: self.asi.read(self.experiment)),
            Key(("o",), "o", "pager", "this page in $PAGER", self._page_out),
        ]

    def _page_out(self) -> None:
        self.run_worker(outside.page(self.asi, self.copied(), f"experiment-{self.experiment}"))

    def _open_parent(self) -> None:
        self.open(self.model.state.experiments[self.experiment].parent)

    def _rows(self, found: Experiment, width: int) -> list[Row]:
        parent = self.model.state.experiments.get(found.parent)
        new = self.asi.library.blob(found.program)
        old = self.asi.library.blob(parent.program) if parent is not None else ""
        shown: list[Row] | None = None
        if new is not None and old is not None:
            shown = self._programs.get((found.program, parent.program if parent is not None else "", width), lambda: (
                diff_rows(old, new, width) if parent is not None else source_rows(new, width)
            ))  # fmt: skip
        key = (width, found.changed, found.step, found.held, len(found.trials), shown is None)
        if self._built[0] != key:
            rows = [*self._story(found, width), *self._measured(found, width), *self._gates(found, width)]
            against = f"program against its parent {found.parent}" if found.parent else "program"
            rows += [BLANK, rule(against, width)]
            rows += shown if shown is not None else [row((" on its way …", "dim"))]
            self._built = (key, rows)
        return self._built[1]

    def _story(self, found: Experiment, width: int) -> list[Row]:
        came = f"{found.origin}, {'a random-parent control, ' if found.control else ''}"
        came += f"child of {found.parent} {words.name_of(self.model.state, found.parent)}" if found.parent else "a root"
        now = f"{found.outcome or words.STEPS[found.step]}{', HELD: nothing new starts for it' if found.held else ''}"
        why = found.reason or found.failure
        rows = fact("came from", came, width)
        rows += fact("state", f"{now}{': ' + why if why else ''}", width)
        rows += fact("change", found.change, width) if found.change else []
        rows += fact("motivation", found.motivation, width) if found.motivation else []
        rows += fact("hypothesis", found.hypothesis, width) if found.hypothesis else []
        if found.predictions:
            rows += [BLANK, rule("predictions, made before the run", width), *prediction_rows(found, width)]
        if found.summary or found.lessons:
            rows += [BLANK, rule("analysis", width), *paragraph(found.summary, width)]
            rows += [line for lesson in found.lessons for line in paragraph("• " + lesson, width, "", "   ")]
        return rows

    def _measured(self, found: Experiment, width: int) -> list[Row]:
        rows: list[Row] = []
        event = found.scored
        if event is not None:
            rows += [BLANK, rule("score", width, "units: seed noise of the baseline")]
            verdict = words.verdict(event.low, event.high)
            line: list[Span] = [(f" {words.scored(event)}", "strong"), (f"  {verdict}", ""),
                                (f"  {words.plural(event.seeds, 'seed')} at {event.tier}", "dim")]  # fmt: skip
            if event.against_parent is not None:
                text = words.score(event.against_parent, event.against_parent_low, event.against_parent_high)
                line += [("   against the parent ", "dim"), (text, "strong")]
            rows.append(clip(row(*line), width))
            columns = [("task", 20, ""), ("difference", 10, "right"), ("noise sd", 8, "right"),
                       ("in noise", 8, "right")]  # fmt: skip
            rows += table(columns, [
                [one.task, f"{one.difference:+.4f}", f"{one.noise:.4f}" if one.noise else "?",
                 f"{one.difference / one.noise:+.1f}" if one.noise else "?"] for one in event.tasks
            ])  # fmt: skip
        trials = [self.model.state.trials[one] for one in found.trials if one in self.model.state.trials]
        if trials:
            rows += [BLANK, rule("trials", width, f"tier {trials[-1].tier}, sandbox {trials[-1].level or 'unknown'}")]
            columns = [("trial", 21, ""), ("seed", 4, "right"), ("state", 8, ""), ("cpu", 6, "right"),
                       ("", max(10, width - 49), "")]  # fmt: skip
            rows += table(columns, [
                [one.id, str(one.seed), "cached" if one.cached else one.status, words.age(one.cpu_seconds),
                 (_came_out(one), "dim")] for one in trials
            ])  # fmt: skip
        return rows

    def _gates(self, found: Experiment, width: int) -> list[Row]:
        rows: list[Row] = []
        if found.gates:
            passed = sum(gate.passed for gate in found.gates)
            rows += [BLANK, rule("vetting", width, f"{passed} of {len(found.gates)} gates passed")]
            for gate in found.gates:
                lines = paragraph(gate.evidence.removeprefix(f"{gate.gate}: "), width - 22, "dim", "")
                mark: Span = ("✓ passed ", "good") if gate.passed else ("✗ failed ", "bad")
                for index, line in enumerate(lines):
                    head = row(" ", mark, (f"{gate.gate:<11}", "")) if index == 0 else row(" " * 21)
                    rows.append((*head, *line))
            rows += fact("cost", f"{words.count(found.parameters)} parameters, {words.count(found.state_floats)} state "
                         f"floats, {words.count(found.flops_per_token)} FLOPs per token, "
                         f"exponent {found.cost_exponent:.2f}", width)  # fmt: skip
        if found.findings:
            rows += [BLANK, rule("findings", width), *finding_rows(found, width)]
        return rows


def _came_out(trial: Trial) -> str:
    """What a trial ended with: its reason or its task scores."""
    return trial.reason or ", ".join(f"{task.task} {task.score:.3f}" for task in trial.tasks)
