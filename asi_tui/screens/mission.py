"""Screen 1, mission control: what goes on, what needs a person, what has come out so far."""

from __future__ import annotations

from asi_tui import words
from asi_tui.lines import BLANK, Row, Span, bar, beside, clip, fit, paragraph, row, rule, spread
from asi_tui.presence import WARNING_SECONDS
from asi_tui.screens.base import Watch
from asi_tui.screens.ending import end_key
from asi_tui.screens.keys import Key
from asi_tui.screens.parts import VERDICT_TONES, device_row, interval, score_cell, table
from asi_tui.screens.progress import progress
from asi_tui.screens.short import situation
from store.state import Experiment

WIDE = 130
"""From this width on there are two columns."""


class MissionScreen(Watch):
    """Everything needed to decide whether one has to act."""

    NAME = "Mission"
    SHORT = "Mission"

    def body(self, width: int, height: int) -> list[Row]:
        """One column at 80, two on a wide screen."""
        head = self._head(width)
        room = height - len(head)
        if width >= WIDE:
            left_width = width * 3 // 5
            right_width = width - left_width - 3
            left = [*self._flight(left_width, room // 2), BLANK]
            left += [*self._results(left_width, min(room - len(left), max(8, room // 4))), BLANK]
            left += self._best(left_width, room - len(left))
            right = [*self._needs(right_width, 6), BLANK, *self._machine(right_width), BLANK]
            right += self._log(right_width, room - len(right))
            return [*head, *beside(left, left_width, right)]
        needs, machine = self._needs(width, 3), self._machine(width)
        flexible = room - len(needs) - len(machine)
        flight = self._flight(width, max(4, flexible * 2 // 5 + 1))
        results = self._results(width, max(3, (flexible - len(flight)) * 3 // 5 + 1))
        log = self._log(width, flexible - len(flight) - len(results))
        return [*head, *flight, *results, *needs, *machine, *log]

    def keys(self) -> list[Key]:
        """Ending a trial."""
        return end_key(self)

    def _head(self, width: int) -> list[Row]:
        model = self.model
        if not model.known:
            text = f"Waiting for the engine of {model.name}"
            reason = f": {model.lost_reason}" if model.lost_reason else "…"
            rows = [BLANK, *paragraph(text + reason, width, "strong")]
            if model.facts.latched:
                rows += paragraph(situation(model), width, "bad")
            elif model.lost_reason and model.facts.engine is None:
                text = f"It is not alive; `asi run {model.name}` starts it, and engine.log in its folder says why."
                rows += paragraph(text, width, "dim")
            return [*rows, BLANK]
        rows = paragraph(situation(model), width, "bad" if model.facts.latched else "strong")
        if not model.connected and not model.over:
            old = words.age(model.clock() - model.lost_at)
            text = f"No line to the engine ({model.lost_reason}). This picture is {old} old; trying again by itself."
            rows += paragraph(text, width, "bad")
            engine = model.facts.engine
            text = f"The engine is not alive: `asi run {model.name}` goes on where it was."
            rows += paragraph(text if engine is None else f"The engine (pid {engine}) is alive.", width, "dim")
        return [*rows, BLANK] if width >= WIDE else rows

    # --- in flight -------------------------------------------------------------------------------------------------

    def _flight(self, width: int, height: int) -> list[Row]:
        model = self.model
        found = model.in_flight()
        proposals = sum(one.origin != "baseline" for one in found)
        beside_them = f", {words.plural(len(found) - proposals, 'baseline')}" if len(found) > proposals else ""
        rows = [rule("in flight", width, f"{words.plural(proposals, 'proposal')}{beside_them}" if found else "")]
        if not found:
            return [*rows, row((" nothing: " + self._idle_reason(), "dim"))]
        doing_width = max(21, min(40, width // 4))
        columns = [("", 6, ""), ("", width - doing_width - 33, ""), ("", 9, ""), ("", doing_width, ""),
                   ("", 8, "right")]  # fmt: skip
        shown = found[: height - 1] if len(found) <= height - 1 else found[: height - 2]
        rows += table(columns, [self._flight_cells(one) for one in shown])
        if len(found) > len(shown):
            rows.append(row((f" and {len(found) - len(shown)} more", "dim")))
        return rows

    def _flight_cells(self, found: Experiment) -> list[Span | str]:
        waits = found.step == "train" and not any(
            trial.experiment == found.id for trial in self.model.state.running_trials
        )
        word = "queued" if waits else words.STEPS[found.step]
        style = "dim" if waits else "warn" if found.step in ("gate", "repair") else "accent"
        return [
            (words.short_id(found), "dim"),
            words.origin_mark(found) + words.title(found),
            (word, style),
            (self._doing(found), "dim"),
            (words.age(self.model.now - found.opened), "dim"),
        ]

    def _doing(self, found: Experiment) -> str:
        trials = [trial for trial in self.model.state.running_trials if trial.experiment == found.id]
        if trials:
            return ", ".join(progress(self.model, trial) for trial in trials)
        step = self.model.doing.get(found.id)
        if step is not None:
            return f"{step.doing} {words.age(self.model.now - step.since)}"
        return found.failure if found.step == "repair" else ""

    def _idle_reason(self) -> str:
        phase = self.model.state.phase
        reasons = {"created": "the engine starts", "armed": "the loop begins", "running": "the next one is on its way"}
        return reasons.get(phase, phase)

    # --- results ---------------------------------------------------------------------------------------------------

    def _results(self, width: int, height: int) -> list[Row]:
        results = self.model.results()
        rows = [rule("newest results", width, "score: gain over the baseline in units of its seed noise")]
        if not results:
            return [*rows, row((" none yet: a result needs a vetted program, a trial and a baseline", "dim"))]
        return [*rows, *self._scored_rows(results[: max(1, height - 1)], width)]

    def _best(self, width: int, height: int) -> list[Row]:
        ranking = self.model.state.ranking()
        if height < 3 or not ranking:
            return []
        return [rule("best so far", width, "press 5"), *self._scored_rows(ranking[: min(10, height - 1)], width)]

    def _scored_rows(self, shown: list[Experiment], width: int) -> list[Row]:
        axis = max(14, min(40, width - 86)) if width >= 100 else 0
        title_width = width - 42 - (axis + 2 if axis else 0)
        columns = [("", 6, ""), ("", 12, ""), ("", 6, ""), *([("", axis, "")] if axis else []),
                   ("", title_width, ""), ("", 8, "right")]  # fmt: skip
        extent = max((abs(one.scored.score) for one in shown if one.scored), default=1.0) * 1.5 or 1.0
        cells: list[list[Span | str]] = []
        for found in shown:
            event = found.scored
            assert event is not None
            word = words.verdict(event.low, event.high)
            tone = VERDICT_TONES.get(word, "dim")
            mark = "★ " if found is self.model.best() else ""
            line: list[Span | str] = [(words.short_id(found), "dim"), (score_cell(event), "strong"), (word, tone)]
            if axis:
                line.append((interval(event.score, event.low, event.high, extent, axis), tone))
            line += [mark + words.origin_mark(found) + words.title(found), (words.plural(event.seeds, "seed"), "dim")]
            cells.append(line)
        return table(columns, cells)

    # --- what needs a person, machine, log -------------------------------------------------------------------------

    def _needs(self, width: int, height: int) -> list[Row]:
        model = self.model
        pending = model.state.pending
        rows = [rule("needs you", width, "press 2" if pending else "")]
        if not pending:
            return [*rows, row((" nothing waits for you", "dim"))]
        room = height if len(pending) <= height else height - 1
        for request in pending[:room]:
            text = f" ! {request.id}  {words.name_of(model.state, request.experiment)}  ({request.rule})"
            waits = f"  waits {words.age(model.now - request.asked)} "
            rows.append(spread(row((text, "warn")), row((waits, "dim")), width))
        if len(pending) > room:
            rows.append(row((f"   and {len(pending) - room} more", "dim")))
        return rows

    def _machine(self, width: int) -> list[Row]:
        model, state, load = self.model, self.model.state, self.model.load
        seeds, wanted = model.noise_seeds(), self.asi.config.trials.noise_seeds
        noise = f"noise floor known, {seeds} seeds" if seeds >= wanted else f"noise floor {seeds} of {wanted} seeds"
        rows = [rule("machine", width, noise)]
        if load is None:
            rows.append(row((" no load figures yet", "dim")))
        else:
            rows.append(
                clip(row((" cpu ", "dim"), (bar(load.cpu, 8), "accent"), f" {load.cpu:4.0%}", ("  memory ", "dim"),
                         f"{load.memory_used / 2**30:.1f} of {words.size(load.memory_total)}",
                         ("  disk ", "dim"), f"{words.size(load.disk_free)} free",
                         ("  trials ", "dim"), f"{load.trials} of {load.slots}"), width)
            )  # fmt: skip
            rows += [device_row(device, width) for device in load.devices]  # fmt: skip
        worked = state.working_seconds + (max(0.0, model.now - state.working_since) if state.working_since else 0.0)
        budget = self.asi.config.budget
        parts: list[Span] = [(" worked ", "dim"), (_spent(worked, budget.wall_hours), "")]
        parts += [("   cpu spent ", "dim"), (_spent(state.cpu_seconds, budget.cpu_hours), "")]
        if state.tokens_used or state.money:
            parts += [("   tokens ", "dim"), (words.count(state.tokens_used), "")]
            parts += [("   money ", "dim"), (f"{state.money:.2f} USD", "")] if state.money else []
        parts += [("   witness ", "dim"), (self.asi.emergency.witness, "")]
        return [*rows, clip(tuple(parts), width), *self._safety(width)]

    def _safety(self, width: int) -> list[Row]:
        """The last drill, what attacked the sandbox in vain, and the dead-man's switch."""
        model = self.model
        armed, left = model.state.armed, model.deadman_left
        parts: list[Span] = []
        if left is not None:
            tone = "warn" if left <= WARNING_SECONDS else ""
            text = f"{words.age(left)} left, any key renews" if left else "no person has acted: any key renews"
            parts += [(" dead-man ", "dim"), (text, tone), ("  ", "")]
        if armed is not None:
            parts += [(" last ", "dim"), (words.drill(armed), "good"), (f", sandbox {armed.level}", "")]
            tone = "good" if armed.attacks_stopped == armed.attacks_tried else "warn"
            parts += [("   attacks stopped ", "dim"), (f"{armed.attacks_stopped} of {armed.attacks_tried}", tone)]
        rows = [clip(tuple(parts), width)] if parts else []
        if armed is not None and armed.advice and width >= WIDE:
            rows += paragraph(f"{armed.level} could be better: {armed.advice}", width, "dim")
        return rows

    def _log(self, width: int, height: int) -> list[Row]:
        if height < 2:
            return []
        newest = list(self.model.happenings)[-(height - 1) :]
        rows = [rule("log", width, "newest first")]
        for one in reversed(newest):
            found = self.model.state.experiments.get(one.experiment)
            name = f"{words.title(found)}: " if found is not None and found.origin == "baseline" else ""
            shown = words.short_id(found) if found is not None else ""
            rows.append(
                clip(row((f" {words.clock(one.time)}  ", "dim"), (fit(shown, 6) + "  ", "dim"), (name, "dim"),
                         (one.text, one.style)), width)
            )  # fmt: skip
        return rows


def _spent(seconds: float, cap_hours: float) -> str:
    """An amount of time, and the cap on it where there is one."""
    return words.age(seconds) + (f" of {words.span(cap_hours * 3600)}" if cap_hours else "")
