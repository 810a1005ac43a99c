"""The stop screen: what was frozen and killed, proved by the kernel. Nothing that an agent wrote is on it."""

from __future__ import annotations

from asi_tui import words
from asi_tui.lines import BLANK, Row, Span, bar, clip, fit, pad, paragraph, row, rule, spread, width_of
from asi_tui.screens.base import Watch
from asi_tui.screens.footer import question_row
from asi_tui.screens.keys import Key, Question
from asi_tui.screens.proof import killed_rows, proved
from engine.client.connection import NotConnected
from store.signatures import SignatureError

KEPT = "not re-armed: everything stays frozen"


class StopScreen(Watch):
    """Shown from the first press until one leaves, or until a held run is re-armed."""

    NAME = "Stop"
    SCROLLS = True

    def __init__(self) -> None:
        super().__init__()
        self.outcome: Span = ("", "")
        self._drilling = False
        self._seen_latch = False
        self._hidden = 0

    def draw(self) -> None:
        """The whole window, in any size."""
        width, height = self.size
        if self.canvas is None or not width or not height:
            return
        self._seen_latch |= self.model.facts.latch is not None
        rows = [clip(line, width) for line in self.body(width, height - 2)[: max(0, height - 2)]]
        rows += [BLANK] * (height - 2 - len(rows))
        self.canvas.show([self.header(width), *rows, self.footer(width)][:height])

    def header(self, width: int) -> Row:
        """The state of the stop, never of the run."""
        stop = self.asi.emergency
        if self._lifted:
            text = f" ■ RE-ARMED ELSEWHERE  ■ LATCH LIFTED  ■ {fit(stop.root.name, min(len(stop.root.name), 24))}"
            return pad(row((text, "alarm")), width, "alarm")
        latched = "LATCHED" if stop.latch_problem == "" or (stop.report and stop.report.latched) else "NOT YET LATCHED"
        word = {
            "freezing": "FREEZING", "frozen": "FROZEN", "held": "FROZEN, HELD", "killing": "KILLING",
            "killed": "STOPPED, PROVED" if proved(stop) else "KILLED, NOT PROVED",
        }.get(stop.phase, "STOP")  # fmt: skip
        text = f" ■ {word}  ■ {latched}  ■ {fit(stop.root.name, min(len(stop.root.name), 24))}"
        return pad(row((text, "alarm")), width, "alarm")

    def footer(self, width: int) -> Row:
        """The witness and the keys; a question takes the witness's place, never that of the kill."""
        stop = self.asi.emergency
        hints = {
            "freezing": "^\\ KILL NOW  h hold ", "frozen": "^\\ KILL NOW  h hold ", "killing": "^\\ KILL NOW ",
            "held": f"^\\ KILL NOW  {'r re-arm  ' if self._may_rearm else 'r back  ' if self._lifted else ''}q leave ",
            "killed": f"{'↑↓ more  ' if self._hidden else ''}q leave ",
        }  # fmt: skip
        keys = row((hints.get(stop.phase, ""), "bar.bad"))
        if self.question is not None:
            kill = row((" ^\\ KILL NOW ", "bar.bad"))
            return spread(question_row(self.question, self.typed, width - width_of(kill)), kill, width, "bar")
        witness = f" witness: {stop.witness}"
        if len(witness) + width_of(keys) > width:
            witness = f" {stop.witness}"
        return spread(row((witness, "bar.strong")), keys, width, "bar")

    def body(self, width: int, height: int) -> list[Row]:
        """Countdown first, proof afterwards."""
        stop = self.asi.emergency
        if stop.phase == "killed":
            rows, self._hidden = killed_rows(stop, width, height, self.top)
            self.top, self.page = min(self.top, self._hidden), max(1, height // 2)
            return rows
        rows = [rule("emergency stop", width, f"pressed {words.clock(stop.pressed_at)}")]
        facts = [*self._frozen(width), *self._engine(width)]
        rows += self._steps(width) if height < 14 else []  # where little fits, what one can do comes first
        rows += [BLANK, *facts, BLANK, *self._steps(width)] if height >= 14 else facts
        if stop.problems:
            rows += [rule("problems", width)]
            rows += [line for problem in stop.problems for line in paragraph(problem, width, "bad", "   ")]
        return rows

    # --- frozen ----------------------------------------------------------------------------------------------------

    def _frozen(self, width: int) -> list[Row]:
        stop = self.asi.emergency
        frozen = stop.frozen
        if frozen is None:
            rows = [row(("   freezing every process of the run …", "warn"))]
        else:
            seen = "every one seen stopped" if frozen.complete else "NOT ALL could be seen stopped"
            number = len(frozen.pids)
            text = f"{number} process{'' if number == 1 else 'es'} frozen in {frozen.milliseconds:.0f} ms, {seen}"
            rows = paragraph(text, width, "strong" if frozen.complete else "bad", "   ")
        if self._lifted:
            return [*rows, *paragraph("since then the latch was lifted elsewhere", width, "warn", "   ")]
        if stop.latch_problem:
            return [*rows, *paragraph(stop.latch_problem, width, "bad", "   ")]
        return [*rows, row("   nothing new can start" if stop.latch_problem == "" else "   the latch is being written")]

    def _engine(self, width: int) -> list[Row]:
        pid = self.model.facts.engine
        alive = f"alive, pid {pid}" if pid else "not alive"
        return paragraph(f"engine: {alive} (seen by the kernel; its own word is not used here)", width, "dim", "   ")

    def _steps(self, width: int) -> list[Row]:
        stop = self.asi.emergency
        if stop.phase == "held":
            return self._held_steps(width)
        if stop.phase == "killing":
            return [row(("   KILLING …", "bad"))]
        left = stop.seconds_left
        share = left / stop.countdown if stop.countdown else 0.0
        return [
            row((f"   KILL in {left:3.0f} s   ", "bad"), (bar(share, max(10, min(40, width - 24))), "bad")),
            row(("   Ctrl+\\ ", "strong"), " kill now (the same key again)"),
            row(("   h      ", "strong"), " hold: stay frozen, no kill until you say so"),
            *paragraph("Do nothing and everything is killed, even if you close this window.", width, "", "   "),
        ]

    def _held_steps(self, width: int) -> list[Row]:
        name = self.asi.emergency.root.name
        if self._lifted:
            return [
                *paragraph("Somebody has re-armed this run; it may be going on.", width, "strong", "   "),
                row(("   r      ", "strong"), " back to the run"),
                row(("   Ctrl+\\ ", "strong"), " kill now"),
                row(("   q      ", "strong"), " leave"),
            ]
        rows = [
            row(("   HELD: everything stays frozen until you decide.", "strong")),
            row(("   Ctrl+\\ ", "strong"), " kill now"),
        ]
        if self._may_rearm:
            rows.append(row(("   r      ", "strong"), " it is safe again: say why, a drill, then p resumes"))
        rows.append(row(("   q      ", "strong"), " leave; everything stays frozen"))
        onward = f"then asi {'resume' if self.model.facts.engine else 'run'} {name}"
        shell = f"{'in a shell' if self._may_rearm else 'to go on, in a shell'}: asi rearm {name} --reason …, {onward}"
        rows += paragraph(shell, width, "dim", "           ")
        if self._drilling:
            rows.append(row(("   drilling before the latch is lifted …", "warn")))
        elif self.outcome[0]:
            rows += paragraph(self.outcome[0], width, self.outcome[1], "   ")
        return rows

    # --- the way back ----------------------------------------------------------------------------------------------

    @property
    def _lifted(self) -> bool:
        """A latch that stood is gone: somebody has re-armed the run elsewhere."""
        return self.asi.emergency.phase == "held" and self._seen_latch and self.model.facts.latch is None

    @property
    def _may_rearm(self) -> bool:
        return self.model.connected and not self._drilling and not self._lifted

    def _ask_reason(self) -> None:
        self.put(Question("Why is it safe to go on? Reason and Enter:", self._rearm, "Why? Enter:", dropped=KEPT))

    def say(self, text: str, bad: bool = False) -> None:
        """What came of a question stays on the screen."""
        self.outcome = (text, "warn" if bad else "strong")
        self.draw()

    def _rearm(self, reason: str) -> None:
        if not reason:
            self.say(f"it needs a reason; {KEPT}", bad=True)
            return
        self._drilling = True
        self.run_worker(self._send(reason))

    async def _send(self, reason: str) -> None:
        shell = f"in a shell: asi rearm {self.asi.emergency.root.name} --reason …"
        try:
            answer = await self.asi.send("rearm", reason=reason)
        except (NotConnected, SignatureError) as error:
            self.outcome = (f"not re-armed: {error}; {shell}", "bad")
        else:
            if answer.ok:
                self._back(answer.text or "re-armed")
                return
            self.outcome = (f"the engine refuses: {answer.error}; {shell}", "bad")
        self._drilling = False
        self.draw()

    def _back(self, text: str) -> None:
        """Make the button ready again and return to the screen from which it was pressed."""
        self._drilling = False
        if self.asi.emergency.reset() and self.is_current:
            self.app.pop_screen()
            self.asi.tell(text)

    # --- keys ------------------------------------------------------------------------------------------------------

    def keys(self) -> list[Key]:
        """Only what takes nothing back by accident."""
        return []

    def all_keys(self) -> list[Key]:
        """The app's other keys have no place here."""
        stop = self.asi.emergency
        if stop.phase in ("freezing", "frozen"):
            return [Key(("h",), "h", "hold", "stay frozen", stop.hold)]
        if stop.phase not in ("killed", "held"):
            return []
        keys = [Key(("q",), "q", "leave", "leave", self.asi.action_detach)]
        if self._lifted:
            keys.append(Key(("r",), "r", "back", "back to the run", lambda: self._back("the latch was lifted")))
        elif stop.phase == "held" and self._may_rearm:
            keys.append(Key(("r",), "r", "re-arm", "say why it is safe, then a drill", self._ask_reason))
        return [*keys, *(self.scroll_keys() if self._hidden else [])]
