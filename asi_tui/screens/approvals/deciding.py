"""The keys that decide, and what each asks before it does: nothing takes the focus, nothing answers to Enter alone.

Approving needs the card to have been on screen for a moment with the keyboard quiet. By risk it then has a time in
which it can be undone (R1), or asks for a code from the program's hash (R2, and findings of high severity), or for a
code and a reason (R3). Rejecting is quick.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from asi_tui import outside, words
from asi_tui.blind import Me, own_vote
from asi_tui.lines import Row, clip, paragraph, row, rule
from asi_tui.screens.approvals.card import CODE_LENGTH, code_of, needs_code
from asi_tui.screens.approvals.queue import alike, looks
from asi_tui.screens.approvals.reading import Reading
from asi_tui.screens.approvals.votes import undoable
from asi_tui.screens.base import Watch
from asi_tui.screens.keys import Key, Question
from engine.client.connection import NotConnected
from engine.client.protocol import PolicyView
from store.signatures import SignatureError
from store.state import Call, Request

SHOWN_SECONDS = 0.8
QUIET_SECONDS = 0.5
TOO_QUICK = "too quick: read it, take your hands off the keys for a moment, then press it again"


class Deciding(Watch):
    """What can be done about the request whose card is shown, and about marked ones together."""

    def __init__(self) -> None:
        super().__init__()
        self.chosen = ""
        self.shown_since = 0.0
        self.marked: list[str] = []
        self.readings: dict[str, Reading] = {}
        self.questions: dict[str, float] = {}
        self.together: list[str] = []
        self._answered: dict[str, float] = {}

    @property
    def request(self) -> Request | None:
        """The request whose card is shown, decided or not."""
        return self.model.state.requests.get(self.chosen)

    @property
    def open_request(self) -> Request | None:
        """The same, while it can be decided."""
        found = self.request
        return found if found is not None and found.decision is None else None

    @property
    def me(self) -> Me:
        """Whose answers are one's own."""
        people = self.model.state.people
        return Me(self.asi.who, self._answered if people and self.asi.who not in people else {})

    def reading(self, request: str) -> Reading:
        """What this person has had in view of a request."""
        return self.readings.setdefault(request, Reading())

    def step(self, by: int) -> None:
        """Show the next card, or the previous one."""
        raise NotImplementedError

    def marks(self) -> list[Request]:
        """The marked requests that still wait."""
        requests = self.model.state.requests
        return [requests[one] for one in self.marked if one in requests and requests[one].decision is None]

    # --- keys ------------------------------------------------------------------------------------------------------

    def deciding_keys(self) -> list[Key]:
        """What decides, while there is something to decide."""
        request = self.open_request
        if request is None or self.model.replay is not None:
            return []
        keys = []
        if undoable(request, self.me, self.model.now):
            backs = len(self._backs(request))
            told = f"undo {backs}" if backs > 1 else "undo"
            keys.append(Key(("u",), "u", told, "take your answer back, before it takes effect", self._undo))
        marks = len(self.marks())
        told = f" {marks}" if marks else ""
        approve = "vote for it" if request.subject != "program" else "approve this program, after reading"
        keys += [
            Key(("a",), "a", f"approve{told}", approve, self._approve, click=False),
            Key(("r",), "r", f"reject{told}", "reject, with a reason for the Researcher", self._reject),
            Key(("d",), "d", "defer", "leave it waiting", self._defer),
        ]
        return keys + (self._program_keys() if request.subject == "program" else [])

    def _program_keys(self) -> list[Key]:
        return [
            Key(("A",), "A", "", "approve, and make a policy rule of it (shows the rule, asks for a code)", self._rule,
                False, False),
            Key(("i",), "i", "ask", "ask the Researcher; the answer comes into the transcript", self._inquire, False),
            Key(("e",), "e", "edit", "edit a copy in $EDITOR: a proposal of your own, vetted anew", self._edit, False),
            Key(("m",), "m", "mark", "mark this request, to decide several together", self._mark, False),
            Key(("M",), "M", "", "mark all that look like this one (rule, findings, origin, tier); again: none",
                self._mark_alike, False),
        ]  # fmt: skip

    def _too_quick(self) -> bool:
        now = time.monotonic()
        if now - self.shown_since < SHOWN_SECONDS or now - self.last_key < QUIET_SECONDS:
            self.say(TOO_QUICK, bad=True)
            return True
        return False

    # --- one request -----------------------------------------------------------------------------------------------

    def _send(self, name: str, request: Request, reason: str = "") -> None:
        """Order a decision. When it takes effect is said above the card, for as long as that is true."""
        self.asi.order_saying(lambda told: told.partition("; takes effect")[0], name, **self._decision(request, reason))

    def _decision(self, request: Request, reason: str) -> dict[str, Any]:
        """What an order to decide says: what it is about, how long its card was looked at and how much of it."""
        reading = self.reading(request.id)
        self._answered[request.id] = self.model.now
        return {
            "target": request.id, "program": request.program, "reason": reason,
            "seconds": round(reading.seconds(time.monotonic()), 1), "seen": round(reading.seen, 3),
        }  # fmt: skip

    def prepare_rule(self) -> None:
        """Fetch the rule that `A` would show, before it is pressed."""
        request = self.open_request
        if request is not None and self.model.replay is None and self._may_be_rule(request):
            self.asi.library.policy(request.id, self.model.state.policy)

    def _may_be_rule(self, request: Request) -> bool:
        alone = request.subject == "program" and request.people == 1 and request.risk == "R1"
        return alone and not needs_code(self.model, request)

    def _approve(self) -> None:
        request = self.open_request
        if request is None or self._too_quick():
            return
        if self.marks():
            self._approve_marked(self.marks())
        elif request.risk == "R4":
            self.say("R4 can never be approved: it touches what supervises the run", bad=True)
        elif needs_code(self.model, request):
            why = f"Risk {request.risk}" if request.risk >= "R2" else "High severity"
            self._ask_code(f"{why}. To approve, type the first {CODE_LENGTH} letters of the program's hash:",
                           code_of(request), lambda: self._approve_coded(request), "approve: code")  # fmt: skip
        else:
            self._send("approve", request)

    def _approve_coded(self, request: Request) -> None:
        if request.risk != "R3":
            self._send("approve", request)
            return

        def reasoned(reason: str) -> None:
            if reason:
                self._send("approve", request, reason)
            else:
                self.say("not approved: risk R3 needs a reason", bad=True)

        self.ask(f"Risk R3. Why may {request.id} run?", reasoned)

    def _ask_code(
        self, text: str, code: str, then: Callable[[], object], short: str,
        rows: Callable[[int, int], list[Row]] = lambda width, height: [],
    ) -> None:  # fmt: skip
        def check(typed: str) -> None:
            if typed.lower() == code.lower():
                then()
            else:
                self.say("the code does not match: nothing was approved", bad=True)

        self.put(Question(text, check, f"{short}:", rows, "nothing was approved"))

    def _reject(self) -> None:
        request, marks = self.open_request, self.marks()
        if request is None:
            return
        if marks and [one.id for one in marks] != [request.id]:
            self._reject_marked(marks)
        else:
            self.ask(f"Reject {request.id}. Why?", lambda reason: self._send("reject", request, reason))

    def _defer(self) -> None:
        request = self.open_request
        if request is not None:
            self._send("defer", request)
            self.step(1)

    def _backs(self, request: Request) -> list[Request]:
        """What is taken back with the answer to a request: those that were approved together with it."""
        requests = self.model.state.requests
        both = self.together if request.id in self.together else [request.id]
        return [requests[one] for one in both if one in requests and undoable(requests[one], self.me, self.model.now)]

    def _undo(self) -> None:
        request = self.open_request
        backs = self._backs(request) if request is not None else []
        if len(backs) == 1:
            self.asi.order("undo", target=backs[0].id, program=backs[0].program)
        elif backs:
            orders = [(one.id, {"target": one.id, "program": one.program}) for one in backs]
            self.together = []
            self.asi.start_worker(self._send_all("undo", orders, "taken back: {} wait again"))

    def _inquire(self) -> None:
        request = self.open_request
        if request is None:
            return

        def send(text: str) -> None:
            if text:
                self.questions[request.experiment] = self.model.now
                self.asi.order("ask", target=request.experiment, reason=text)
            else:
                self.say("nothing was asked")

        self.ask(f"Ask the Researcher about {request.experiment}:", send)

    def question_rows(self, request: Request, width: int) -> list[Row]:
        """What has become of a question to the Researcher."""
        asked = self.questions.get(request.experiment)
        if asked is None:
            return []
        if self.answer_to_question(request) is not None:
            return paragraph("the Researcher has answered: t reads it in the transcript", width, "accent")
        return paragraph("asked the Researcher; the answer comes into the transcript: t opens it", width, "dim")

    def answer_to_question(self, request: Request) -> Call | None:
        """The newest answer to a question that was asked here."""
        asked = self.questions.get(request.experiment)
        if asked is None:
            return None
        calls = [one for one in self.model.state.calls.values() if one.experiment == request.experiment]
        return max((one for one in calls if one.started >= asked and one.reply), key=lambda one: one.started,
                   default=None)  # fmt: skip

    def _edit(self) -> None:
        request = self.open_request
        text = self.asi.library.blob(request.program) if request is not None else None
        if request is not None and text is not None:
            self.asi.start_worker(self._propose_edited(request, text))

    async def _propose_edited(self, request: Request, text: str) -> None:
        """Hand in the edited copy; the request itself stays as it is, for it is about other bytes."""
        found = self.model.state.experiments[request.experiment]
        changed = await outside.edit(self.asi, text)
        if changed is not None:
            reason = f"{found.id}, edited: {found.motivation}"
            self.asi.order_saying(lambda name: f"handed in as {name}: it goes the same way as any other", "propose",
                                  program=changed, title=f"{words.title(found)}, edited", reason=reason)  # fmt: skip

    # --- a rule of it ----------------------------------------------------------------------------------------------

    def _rule(self) -> None:
        from store.policy import PolicyError, with_rule

        request = self.open_request
        if request is None or self._too_quick():
            return
        if not self._may_be_rule(request):
            self.say("only what one person may approve without a code can become a rule", bad=True)
            return
        entry = self.asi.library.policy(request.id, self.model.state.policy)
        view: PolicyView | None = entry.value if entry.stamp == self.model.state.policy else None
        if view is None:
            self.say(entry.error or "the policy is on its way: press A again in a moment", bad=bool(entry.error))
            return
        if not view.rule:
            self.say("the engine offers no rule for this request: a approves it alone", bad=True)
            return
        try:
            text = with_rule(view.text, view.rule)
        except PolicyError as error:
            self.say(f"no rule was made: {error}", bad=True)
            return
        self._ask_code(
            f"To change the policy and approve {request.id}, type {CODE_LENGTH} letters of the policy's hash:",
            view.sha[:CODE_LENGTH], lambda: self.asi.start_worker(self._adopt(request, text)), "policy's code",
            lambda width, height: rule_rows(view, request, width, height),
        )  # fmt: skip

    async def _adopt(self, request: Request, text: str) -> None:
        """Put the policy in force, and approve once the engine says that it is."""
        try:
            answer = await self.asi.send("policy", program=text, reason=f"a rule made of {request.id}")
            problem = "" if answer.ok else answer.error
        except (NotConnected, SignatureError) as error:
            problem = str(error)
        if problem:
            self.asi.tell(f"{request.id} was not approved, and the policy stays as it was: {problem}", bad=True)
        else:
            self._send("approve", request)

    # --- several together ------------------------------------------------------------------------------------------

    def _mark(self) -> None:
        request = self.open_request
        if request is not None:
            self.marked = [one for one in self.marked if one != request.id] + (
                [] if request.id in self.marked else [request.id]
            )

    def _mark_alike(self) -> None:
        request = self.open_request
        if request is None:
            return
        kind = looks(self.model.state, request)
        if kind is None:
            self.say("this one has to be read by itself: only requests of risk R1 without high findings look alike",
                     bad=True)  # fmt: skip
        else:
            like = [one.id for one in self.model.pending() if looks(self.model.state, one) == kind]
            self.marked = like if self.marked != like else []

    def _approve_marked(self, marks: Sequence[Request]) -> None:
        if not alike(self.model.state, marks):
            self.say("only look-alikes of risk R1 can be approved together; M marks them, m takes a mark off", bad=True)
            return

        def check(typed: str) -> None:
            if typed != str(len(marks)):
                self.say(f"{typed or 'nothing'} is not how many are marked: nothing was approved", bad=True)
            else:
                self._send_marked("approve", marks, "")

        self.put(Question(f"Approve {_named(marks)}? Type how many they are:", check, "how many:",
                          lambda width, height: self._marked_rows("approve these?", marks, width, height),
                          "nothing was approved"))  # fmt: skip

    def _reject_marked(self, marks: Sequence[Request]) -> None:
        self.put(Question(f"Reject {_named(marks)}. Why?", lambda reason: self._send_marked("reject", marks, reason),
                          f"reject {len(marks)}, why?",
                          lambda width, height: self._marked_rows("reject these?", marks, width, height),
                          "nothing was rejected"))  # fmt: skip

    def _send_marked(self, name: str, marks: Sequence[Request], reason: str) -> None:
        self.marked = []
        orders = []
        for one in [self.model.state.requests[mark.id] for mark in marks]:
            vote = own_vote(one, self.me)
            if one.decision is None and (vote is None or vote.decision != name):
                orders.append((one.id, self._decision(one, reason)))
        self.together = [request for request, _ in orders] if name == "approve" else []
        self.asi.start_worker(self._send_all(name, orders, f"{words.DECIDED[name]} by you: {{}}"))

    async def _send_all(self, name: str, orders: Sequence[tuple[str, dict[str, Any]]], told: str) -> None:
        """Send one order after another, and say once what came of them: what was refused first."""
        done, refused = 0, ""
        for request, fields in orders:
            try:
                answer = await self.asi.send(name, **fields)
                problem = "" if answer.ok else answer.error
            except (NotConnected, SignatureError) as error:
                problem = str(error)
            done += not problem
            refused = refused or (f"{request} was refused: {problem}; " if problem else "")
        self.asi.tell(refused + told.format(words.plural(done, "request")), bad=bool(refused))

    def _marked_rows(self, title: str, marks: Sequence[Request], width: int, height: int) -> list[Row]:
        """The marked requests, each in a line, and whether their cards have been read."""
        shown = marks if len(marks) < height - 1 else marks[: max(0, height - 3)]
        rows = [rule(title, width, f"{len(marks)} marked")]
        for one in shown:
            reading = self.reading(one.id)
            seen = f"card seen {reading.seen:.0%}" if reading.seen else "card not seen"
            name = words.asked_about(self.model.state, one)
            rows.append(clip(row((f" {one.id}  {one.experiment}  ", "strong"), (f"{seen}  ", "dim"), name), width))
        if len(shown) < len(marks):
            rows.append(row((f" and {len(marks) - len(shown)} more", "dim")))
        return rows if height > 2 else []


def _named(marks: Sequence[Request]) -> str:
    """The ids that are meant."""
    return ", ".join(one.id for one in marks)


def rule_rows(view: PolicyView, request: Request, width: int, height: int) -> list[Row]:
    """The rule that would stand first in the policy, and the code that agrees to it."""
    rows = [rule(f"a rule of {request.id}, before all others of policy {view.name}", width,
                 f"code {view.sha[:CODE_LENGTH]}")]  # fmt: skip
    rows += [clip(row((f"   {line}", "strong")), width) for line in view.rule.splitlines()]
    rows += paragraph("From then on all that it matches trains without asking anybody. The change goes on record.",
                      width, "warn")  # fmt: skip
    return rows[:height]
