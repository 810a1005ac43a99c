"""The stop screen: what was frozen and killed, proved by the kernel. Nothing that an agent wrote is on it."""

from __future__ import annotations

import time

from asi_tui import words
from asi_tui.lines import BLANK, Row, bar, clip, fit, pad, row, rule, spread
from asi_tui.screens.base import Key, Watch
from asi_tui.stop import PROOF_SECONDS


class StopScreen(Watch):
    """Shown from the first press until one leaves."""

    NAME = "Stop"

    def draw(self) -> None:
        """The whole window, in any size."""
        width, height = self.size
        if self.canvas is None or not width or not height:
            return
        rows = [clip(line, width) for line in self.body(width, height - 2)[: max(0, height - 2)]]
        rows += [BLANK] * (height - 2 - len(rows))
        self.canvas.show([self.header(width), *rows, self.footer(width)][:height])

    def header(self, width: int) -> Row:
        """The state of the stop, never of the run."""
        stop = self.asi.emergency
        latched = "LATCHED" if stop.latch_problem == "" or (stop.report and stop.report.latched) else "NOT YET LATCHED"
        word = {
            "freezing": "FREEZING", "frozen": "FROZEN", "held": "FROZEN, HELD", "killing": "KILLING",
            "killed": "STOPPED, PROVED" if self._proved() else "KILLED, NOT PROVED",
        }.get(stop.phase, "STOP")  # fmt: skip
        text = f" ■ {word}  ■ {latched}  ■ {fit(stop.root.name, min(len(stop.root.name), 24))}"
        return pad(row((text, "alarm")), width, "alarm")

    def footer(self, width: int) -> Row:
        """The witness and the keys."""
        stop = self.asi.emergency
        keys = "q leave " if stop.phase == "killed" else "^\\ KILL NOW " + (
            "  h hold " if stop.phase in ("freezing", "frozen") else "  q leave " if stop.phase == "held" else ""
        )
        return spread(row((f" witness: {stop.witness}", "bar.strong")), row((keys, "bar.bad")), width, "bar")

    def _proved(self) -> bool:
        stop = self.asi.emergency
        return stop.report is not None and stop.report.proved and not stop.alive

    def body(self, width: int, height: int) -> list[Row]:
        """Countdown first, proof afterwards."""
        stop = self.asi.emergency
        rows = self._killed(width) if stop.phase == "killed" else self._counting(width)
        if stop.problems:
            rows += [BLANK, rule("problems", width), *(row((f"   {problem}", "bad")) for problem in stop.problems)]
        return rows

    def _counting(self, width: int) -> list[Row]:
        stop = self.asi.emergency
        frozen = stop.frozen
        rows = [rule("emergency stop", width, f"pressed {words.clock(stop.pressed_at)}"), BLANK]
        if frozen is None:
            rows.append(row(("   freezing every process of the run …", "warn")))
        else:
            seen = "every one seen stopped" if frozen.complete else "NOT ALL could be seen stopped"
            text = f"   {words.plural(len(frozen.pids), 'process')} frozen in {frozen.milliseconds:.0f} ms, {seen}"
            rows.append(row((text.replace("processs", "processes"), "strong" if frozen.complete else "bad")))
        rows.append(row("   nothing new can start" if stop.latch_problem == "" else "   the latch is being written"))
        if stop.latch_problem:
            rows[-1] = row((f"   {stop.latch_problem}", "bad"))
        rows.append(BLANK)
        if stop.phase == "held":
            rows += [
                row(("   HELD: everything stays frozen until you decide.", "strong")),
                row(("   Ctrl+\\ ", "strong"), " kill now"),
                row("   It was an accident: leave with q, then in the shell"),
                row((f"   asi rearm {stop.root.name} --reason …", "strong")),
            ]
        elif stop.phase == "killing":
            rows.append(row(("   KILLING …", "bad")))
        else:
            left = stop.seconds_left
            share = left / stop.countdown if stop.countdown else 0.0
            rows += [
                row((f"   KILL in {left:3.0f} s   ", "bad"), (bar(share, max(10, min(40, width - 24))), "bad")),
                BLANK,
                row(("   Ctrl+\\ ", "strong"), " kill now (the same key again)"),
                row(("   h      ", "strong"), " hold: stay frozen, no kill until you say so"),
                BLANK,
                row("   Do nothing and everything is killed, even if you close this window."),
            ]
        return rows

    def _killed(self, width: int) -> list[Row]:
        stop = self.asi.emergency
        report = stop.report
        rows = [rule("killed", width, f"pressed {words.clock(stop.pressed_at)}")]
        if report is None:
            return [*rows, row(("   there is no report: treat everything as alive", "bad"))]
        what_width = max(16, min(34, width // 3))
        rows.append(row((f"   {fit('what', what_width)}{fit('processes', 11, 'right')}  result      proof", "dim")))
        for one in report.rows:
            rows.append(
                row(f"   {fit(one.what, what_width)}{len(one.pids):>11}  ",
                    (fit("dead" if one.proved else "NOT PROVED", 12), "good" if one.proved else "bad"),
                    (f"{one.killed_ms:.0f} ms, {one.proof}", "dim"))
            )  # fmt: skip
        if not report.rows:
            rows.append(row("   nothing of this run was alive"))
        rows += [row((f"   OPEN: {problem}", "bad")) for problem in report.unproved]
        rows.append(BLANK)
        if stop.alive:
            rows.append(row((f"   ALIVE NOW: pids {' '.join(map(str, sorted(stop.alive)))}", "bad")))
        word, style = ("proved", "good") if self._proved() else ("NOT proved: unknown counts as alive", "bad")
        ago = words.age(time.time() - stop.proved_at)
        rows += [
            row("   everything is dead: ", (word, style), (f"   in {report.total_ms:.0f} ms", "dim")),
            row((f"   looked again {min(stop.proofs, PROOF_SECONDS)} times, last {ago} ago", "dim")),
            BLANK,
            rule("next", width),
            row(("   asi rearm … --reason …  ", "strong"), "lifts the latch"),
            row(("   asi run …               ", "strong"), "goes on where it was"),
            row(("   asi audit …             ", "strong"), "shows what ran; nothing recorded was lost"),
        ]
        return rows

    def keys(self) -> list[Key]:
        """Only leaving, once that takes nothing back."""
        return []

    def all_keys(self) -> list[Key]:
        """The app's other keys have no place here."""
        stop = self.asi.emergency
        keys = [Key(("h",), "h", "hold", "stay frozen", stop.hold)] if stop.phase in ("freezing", "frozen") else []
        if stop.phase in ("killed", "held"):
            keys.append(Key(("q",), "q", "leave", "leave", self.asi.action_detach))
        return keys
