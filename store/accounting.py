"""The auditor's account of who allowed what: signatures, answers, approvals, tests of attention, launches.

Goes through the records in order beside the folded state, and says of each one what does not follow from those before.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import NamedTuple

from store import events as ev
from store.blobs import BlobError, Blobs
from store.signatures import (
    FRESH_SECONDS,
    SignatureError,
    Statement,
    check,
    principal_of,
    read_signers,
    said,
    verify,
)
from store.state import Request, RunState
from store.telling import clean

SLACK_SECONDS = 60.0
"""Between the check of a signature by the engine and its record, at most."""


class Ballot(NamedTuple):
    """One person's answer that counts."""

    decision: ev.Decision
    takes_effect: float


class Approval(NamedTuple):
    """What an approval covers: launches before `until`, and CPU seconds of its experiment; 0 where without end."""

    until: float
    cpu_seconds: float


class Accounting:
    """Keeps the account. `state` is the run before the record that is taken; `bad` is told of what is wrong."""

    def __init__(self, blobs: Blobs, state: RunState, bad: Callable[[ev.Record, str], None]) -> None:
        self.blobs, self.state, self.bad = blobs, state, bad
        self.launches = self.signatures = 0
        self._genesis = ""
        self._signers = ""
        self._armed = False
        self._nonces: set[str] = set()
        self._ballots: dict[str, dict[str, Ballot]] = {}
        self._approved: dict[tuple[str, str, str], Approval] = {}
        self._launched: set[str] = set()
        self._tests: set[str] = set()
        self._takers: dict[type, Callable[[ev.Record], None]] = {
            ev.EngineStarted: self._engine,
            ev.RunArmed: self._engine,
            ev.SignersAdopted: self._adopt_signers,
            ev.PolicyAdopted: self._adopt_policy,
            ev.AutonomyChanged: self._change_autonomy,
            ev.RunRearmed: self._rearm,
            ev.RunKilled: self._kill,
            ev.RunForked: self._fork,
            ev.ApprovalRequested: self._request,
            ev.ApprovalVoted: self._vote,
            ev.ApprovalWithdrawn: self._withdraw,
            ev.ApprovalDecided: self._decide,
            ev.AttentionChecked: self._attention,
            ev.TrialStarted: self._launch,
        }

    def take(self, record: ev.Record) -> None:
        """Account for one record; to be called before it is folded into the state."""
        self._genesis = self._genesis or record.hash
        taker = self._takers.get(type(record.data))
        if taker is not None:
            taker(record)

    # --- signatures ---------------------------------------------------------------------------------------------------

    def _engine(self, record: ev.Record) -> None:
        self._armed = isinstance(record.data, ev.RunArmed)

    def _adopt_signers(self, record: ev.Record) -> None:
        """Signers come from the configuration, which an engine reads once: before it arms."""
        event = record.data
        assert isinstance(event, ev.SignersAdopted)
        if self.state.signers and (self._armed or record.actor != "engine"):
            self.bad(record, "the signers were changed while an engine worked, which no engine does")
        self._signers = ""
        if not event.signers:
            return
        try:
            self._signers = self.blobs.text(event.signers)
            if read_signers(self._signers) != event.people:
                self.bad(record, "the signers named are not those of the allowed_signers file")
        except (BlobError, SignatureError) as error:
            self.bad(record, f"signatures from here on cannot be checked: {clean(str(error))}")

    def _statement(
        self, action: str, target: str = "", program: str = "", tier: str = "", reason: str = "", who: str = ""
    ) -> Statement:
        return Statement(self.state.name, self._genesis, action, target, program, tier, said(reason), who)

    def _signed(self, record: ev.Record, wanted: Statement, who: str = "", required: bool = True) -> bool:
        """Check the signature that a record carries, or must carry where signers are in force; whether all is well.

        who: the principal whose key it must be; empty takes any of the signers. required: whether it may be missing.
        """
        signed: ev.Signed | None = getattr(record.data, "signed", None)
        if signed is None:
            if required and self.state.signers:
                self.bad(record, f"{record.data.kind} is not signed, while signatures were asked for")
                return False
            return True
        if not self.state.signers:
            self.bad(record, "there is a signature, while there were no signers to check it against")
            return False
        moment = record.data.when if isinstance(record.data, ev.RunKilled) else record.time
        self.signatures += 1
        try:
            statement = check(signed, wanted, self._nonces, moment, FRESH_SECONDS + SLACK_SECONDS)
            self._nonces.add(statement.nonce)
            person = who or principal_of(signed, self._signers, moment)
            if verify(signed, self._signers, person, moment) != signed.key:
                raise SignatureError("the key that signed is not the one that the record names")
            if wanted.who and statement.who != wanted.who:
                raise SignatureError("what was signed names another person")
        except SignatureError as error:
            self.bad(record, f"the signature does not hold: {error}")
            return False
        return True

    def _adopt_policy(self, record: ev.Record) -> None:
        event = record.data
        assert isinstance(event, ev.PolicyAdopted)
        if not self.state.policy and not record.actor.startswith("person:"):
            return  # the one with which a run begins
        if not record.actor.startswith("person:"):
            self.bad(record, "the policy was changed, and not by a person")
        wanted = self._statement("policy", "policy", event.policy, reason=event.reason)
        self._signed(record, wanted, event.who)

    def _change_autonomy(self, record: ev.Record) -> None:
        event = record.data
        assert isinstance(event, ev.AutonomyChanged)
        person = record.actor.startswith("person:")
        if event.level > self.state.autonomy and not person:
            self.bad(record, "autonomy was raised, and not by a person")
        wanted = self._statement("autonomy", event.level, reason=event.reason)
        self._signed(record, wanted, required=person)

    def _rearm(self, record: ev.Record) -> None:
        event = record.data
        assert isinstance(event, ev.RunRearmed)
        self._signed(record, self._statement("rearm", reason=event.reason))

    def _kill(self, record: ev.Record) -> None:
        event = record.data
        assert isinstance(event, ev.RunKilled)
        self._signed(record, self._statement("kill", reason=event.reason, who=event.who), required=False)

    def _fork(self, record: ev.Record) -> None:
        event = record.data
        assert isinstance(event, ev.RunForked)
        wanted = self._statement("fork", event.at, event.head, reason=event.reason)
        self._signed(record, wanted)

    # --- answers and decisions ----------------------------------------------------------------------------------------

    def _request(self, record: ev.Record) -> None:
        event = record.data
        assert isinstance(event, ev.ApprovalRequested)
        if event.request in self.state.requests:
            self.bad(record, f"request {clean(event.request, 60)} was asked before")
        self._ballots.pop(event.request, None)

    def _vote(self, record: ev.Record) -> None:
        """An answer counts where its signature holds, for its request's very program, and while the request waits."""
        event = record.data
        assert isinstance(event, ev.ApprovalVoted)
        request = self.state.requests.get(event.request)
        if request is None:
            self.bad(record, f"an answer to request {clean(event.request, 60)}, which was never asked")
            return
        ballots = self._ballots.setdefault(event.request, {})
        ballots.pop(event.who, None)
        wanted = self._statement(event.decision, request.id, request.program, request.tier, event.reason)
        holds = self._signed(record, wanted, event.who)
        if event.program != request.program:
            self.bad(record, "an answer about another program than its request's")
        elif record.time > request.expires and not request.takes_effect:
            self.bad(record, "an answer after its request had expired")
        elif request.decision is not None:
            self.bad(record, "an answer after its request was decided")
        elif holds:
            ballots[event.who] = Ballot(event.decision, event.takes_effect)

    def _withdraw(self, record: ev.Record) -> None:
        event = record.data
        assert isinstance(event, ev.ApprovalWithdrawn)
        if self._ballots.get(event.request, {}).pop(event.who, None) is None:
            self.bad(record, "an answer was taken back that was not there")

    def _decide(self, record: ev.Record) -> None:
        """An approval holds for exactly the bytes, tier and experiment it names; a later refusal takes it back."""
        event = record.data
        assert isinstance(event, ev.ApprovalDecided)
        bound = (event.experiment, event.program, event.tier)
        if event.decision in ("reject", "expire"):
            self._approved.pop(bound, None)
        if event.decision != "approve":
            return
        covers = Approval(event.until, event.cpu_seconds)
        if not event.request:
            if event.who == "policy" and not record.actor.startswith("person:"):
                self._approved[bound] = covers
            else:
                self.bad(record, f"approval by {clean(event.who, 60)} answers no request")
            return
        request = self.state.requests.get(event.request)
        if request is None:
            self.bad(record, f"approval answers request {clean(event.request, 60)}, which was never asked")
        elif (request.experiment, request.program, request.tier) != bound:
            self.bad(record, "approval is for another program or tier than its request")
        elif problem := self._unsupported(record, event, request):
            self.bad(record, problem)
        elif request.subject == "program":
            self._approved[bound] = covers

    def _unsupported(self, record: ev.Record, event: ev.ApprovalDecided, request: Request) -> str:
        """Why an approval by people does not follow from their answers; empty where it does."""
        if request.decision is not None:
            return f"approval of a request that had ended: {request.decision} by {clean(request.who, 60)}"
        if request.risk == "R4":
            return "approval of what touches the supervision itself, which can only be rejected"
        ballots = self._ballots.get(request.id)
        if ballots is None and request.people == 1 and not (self.state.policy or self.state.signers):
            # Before policies were on record, decisions were recorded without the answers that led to them.
            return "approval came after its request had expired" if record.time > request.expires else ""
        approving = {who: ballot for who, ballot in (ballots or {}).items() if ballot.decision == "approve"}
        named = {name.removeprefix("person:") for name in event.who.split(", ")}
        if not named <= set(approving):
            strangers = ", ".join(sorted(named - set(approving)))
            return f"approval by {clean(strangers, 80)}, of whom there is no such answer"
        effective = [who for who in approving if approving[who].takes_effect <= record.time]
        if len(approving) < request.people:
            return f"approval by {len(approving)} where {request.people} people were asked"
        if len(effective) < request.people:
            return "approval before the answers took effect"
        return ""

    # --- tests of attention, launches ---------------------------------------------------------------------------------

    def _attention(self, record: ev.Record) -> None:
        event = record.data
        assert isinstance(event, ev.AttentionChecked)
        experiment = self.state.experiments.get(event.experiment)
        if experiment is None:
            return  # folding the record says so
        sealed = hashlib.sha256(f"{event.nonce}:{event.experiment}:decoy".encode("utf-8", "replace")).hexdigest()
        if sealed != experiment.seal:
            self.bad(record, f"{clean(event.experiment, 40)} was not sealed as a test of attention when it began")
        self._tests.add(event.experiment)
        if event.experiment in self._launched:
            self.bad(record, f"{clean(event.experiment, 40)} was a test of attention and was launched")

    def _launch(self, record: ev.Record) -> None:
        event = record.data
        assert isinstance(event, ev.TrialStarted)
        experiment = self.state.experiments.get(event.experiment)
        if experiment is not None and experiment.origin == "baseline":
            return
        self.launches += 1
        self._launched.add(event.experiment)
        what = f"program {clean(event.program[:10], 10) or 'none'} was launched at {clean(event.tier, 40)}"
        if event.experiment in self._tests:
            self.bad(record, f"{what}, although it is a test of attention")
        approval = self._approved.get((event.experiment, event.program, event.tier))
        if approval is None:
            self.bad(record, f"{what} without an approval")
            return
        if approval.until and record.time > approval.until:
            self.bad(record, f"{what} after its approval had ended")
        used = experiment.cpu_seconds if experiment is not None else 0.0
        if approval.cpu_seconds and used > approval.cpu_seconds:
            most = f"its approval's {approval.cpu_seconds:.0f}"
            self.bad(record, f"{what} with {used:.0f} CPU seconds used, beyond {most}")
