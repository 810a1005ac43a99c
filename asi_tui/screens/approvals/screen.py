"""Screen 2, approvals: what waits for a person, with everything needed to decide.

Nothing here takes the focus, nothing answers to Enter, and approving needs the card to have been on screen for a moment
with the keyboard quiet; findings of high severity also need a code typed from the program's hash. Rejecting is quick.
"""

from __future__ import annotations

import time

from asi_tui import outside, words
from asi_tui.lines import BLANK, Row, Span, clip, row, rule, spread, tagged
from asi_tui.screens.approvals.card import Texts, card_rows
from asi_tui.screens.base import Watch
from asi_tui.screens.keys import Key
from asi_tui.screens.parts import TONES
from store.state import Request

SHOWN_SECONDS = 0.8
QUIET_SECONDS = 0.5
CODE_LENGTH = 4


class ApprovalsScreen(Watch):
    """A queue of requests and the card of one of them."""

    NAME = "Approvals"
    SHORT = "Approvals"
    SCROLLS = True
    SEARCHES = True

    def __init__(self) -> None:
        super().__init__()
        self.chosen = ""
        self.whole = False
        self.shown_since = 0.0
        self._card: tuple[object, list[Row]] = (None, [])

    @property
    def request(self) -> Request | None:
        """The request whose card is shown."""
        found = self.model.state.requests.get(self.chosen)
        return found if found is not None and found.decision is None else None

    def on_screen_resume(self) -> None:
        """Coming back to the card starts the quiet period anew."""
        self.shown_since = time.monotonic()
        super().on_screen_resume()

    def on_screen_suspend(self) -> None:
        """Nobody looks at the card any more."""
        self.asi.look("")

    def body(self, width: int, height: int) -> list[Row]:
        """The queue above, the card below."""
        pending = self.model.pending()
        if self.request is None:
            self.choose(pending[0].id if pending else "")
        request = self.request
        if request is None:
            return self._history(width, height)
        self.asi.look(request.id)
        shown = pending[:4]
        if request not in shown:
            shown[-1] = request
        rows = [rule("waiting", width, f"{len(pending)} in all, ← → chooses" if len(pending) > 1 else "")]
        rows += [self._queue_row(one, width) for one in shown]
        card = self._card_rows(request, width)
        room = height - len(rows) - 1
        view = self.scrolled(card, room)
        return [*rows, rule(f"{request.id} for {request.experiment}", width, self.position(len(card))), *view]

    def _queue_row(self, one: Request, width: int) -> Row:
        found = self.model.state.experiments[one.experiment]
        chosen = one.id == self.chosen
        severity = words.severity(found.findings)
        left = row(("▸ " if chosen else "  ", "strong"), (one.id + "  ", "strong" if chosen else ""),
                   (severity, TONES[severity]), ("  " + words.title(found), ""))  # fmt: skip
        now = self.model.now
        right = f" waits {words.age(now - one.asked)}, expires in {words.age(one.expires - now)} "
        return tagged(spread(left, row((right, "dim")), width), one.id)

    def choose(self, request: str) -> None:
        """Show the card of one request; the quiet period begins anew."""
        if request != self.chosen:
            self.chosen, self.shown_since, self.top = request, time.monotonic(), 0

    def _card_rows(self, request: Request, width: int) -> list[Row]:
        found = self.model.state.experiments[request.experiment]
        parent = self.model.state.experiments.get(found.parent)
        new = self.asi.library.blob(request.program)
        old = self.asi.library.blob(parent.program) if parent is not None else ""
        others = tuple(self.model.looked_at(request.id))
        key = (request.id, width, new is None, old is None, len(found.findings), self.whole, others)
        if self._card[0] != key:
            self._card = (key, card_rows(self.model, request, Texts(new, old, self.whole), width))
        return self._card[1]

    def _history(self, width: int, height: int) -> list[Row]:
        rows = [rule("waiting", width), row((" nothing waits for you", "dim")), BLANK]
        decided = [one for one in self.model.state.requests.values() if one.decision is not None]
        if decided:
            rows.append(rule("decided", width))
            for one in sorted(decided, key=lambda r: -r.decided)[: height - len(rows)]:
                tone = "good" if one.decision == "approve" else "warn"
                parts: list[Span] = [(f" {words.clock(one.decided)}  ", "dim"), (f"{one.id}  ", ""),
                                     (f"{one.decision}  ", tone), (f"{one.who}  ", "dim"),
                                     (words.name_of(self.model.state, one.experiment), "")]  # fmt: skip
                rows.append(tagged(clip(row(*parts, (f"  {one.reason}", "dim")), width), one.experiment))
        return rows

    # --- deciding --------------------------------------------------------------------------------------------------

    def keys(self) -> list[Key]:
        """Deciding is offered only while there is something to decide."""
        if self.request is None:
            return []
        deciding = [
            Key(("a",), "a", "approve", "approve this program, after reading", self._approve, click=False),
            Key(("r",), "r", "reject", "reject, with a reason for the Researcher", self._reject),
            Key(("d",), "d", "defer", "leave it waiting", self._defer),
            Key(("e",), "e", "edit", "edit a copy in $EDITOR: a proposal of your own, vetted anew", self._edit, False),
        ]
        keys = deciding if self.model.replay is None else []
        keys += [
            Key(("w",), "w", "whole", "the difference or the whole program", self._turn, False),
            Key(("x",), "x", "story", "the experiment's whole story", self._story, False),
            Key(("t",), "t", "talk", "what the agents said about it", self._talk, False),
        ]
        if len(self.model.state.pending) > 1:
            keys.append(Key(("right", "l", "tab"), "→", "next", "the next request", lambda: self._step(1)))
            keys.append(Key(("left", "h", "shift+tab"), "←", "", "the previous request", lambda: self._step(-1), False))
        return keys

    def _edit(self) -> None:
        request = self.request
        text = self.asi.library.blob(request.program) if request is not None else None
        if request is not None and text is not None:
            self.asi.start_worker(self._propose_edited(request, text))

    async def _propose_edited(self, request: Request, text: str) -> None:
        """Hand in the edited copy; the request itself stays as it is, for it is about other bytes."""
        found = self.model.state.experiments[request.experiment]
        changed = await outside.edit(self.asi, text)
        if changed is not None:
            reason = f"{found.id}, edited: {found.motivation}"
            self.asi.order("propose", program=changed, title=f"{words.title(found)}, edited", reason=reason)

    def _turn(self) -> None:
        self.whole, self.top = not self.whole, 0

    def _story(self) -> None:
        if self.request is not None:
            self.open(self.request.experiment)

    def _talk(self) -> None:
        if self.request is not None:
            self.asi.read(self.request.experiment)

    def _step(self, by: int) -> None:
        ids = [one.id for one in self.model.pending()]
        if self.chosen in ids:
            self.choose(ids[(ids.index(self.chosen) + by) % len(ids)])

    def _approve(self) -> None:
        request, now = self.request, time.monotonic()
        if request is None:
            return
        if now - self.shown_since < SHOWN_SECONDS or now - self.last_key < QUIET_SECONDS:
            self.say("too quick: read it, take your hands off the keys for a moment, then a", bad=True)
            return
        found = self.model.state.experiments[request.experiment]
        if words.severity(found.findings) != "high":
            self.asi.order("approve", target=request.id, program=request.program)
            return
        code = request.program[:CODE_LENGTH]

        def check(typed: str) -> None:
            if typed.lower() == code.lower():
                self.asi.order("approve", target=request.id, program=request.program)
            else:
                self.say("the code does not match: not approved", bad=True)

        self.ask(f"High severity. To approve, type the first {CODE_LENGTH} letters of the program's hash:", check)

    def _reject(self) -> None:
        request = self.request
        if request is not None:
            self.ask(
                f"Reject {request.id}. Why?",
                lambda reason: self.asi.order("reject", target=request.id, program=request.program, reason=reason),
            )

    def _defer(self) -> None:
        request = self.request
        if request is not None:
            self.asi.order("defer", target=request.id, program=request.program)
            self._step(1)
