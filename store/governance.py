"""Events of governance: what people are asked and decide, and what rules a run."""

from __future__ import annotations

from store.event import Autonomy, Decision, Event, Risk, Signed, Subject


class RunForked(Event, frozen=True, tag="run.forked"):
    """This run was copied from run `of`, whose record `seq` had the hash `head`, as far as experiment `at`.

    Everything before this record is the other run's; what was being asked there is asked anew here.
    """

    name: str
    of: str
    seq: int
    head: str
    at: str
    who: str = ""
    signed: Signed | None = None
    reason: str = ""


class AutonomyChanged(Event, frozen=True, tag="autonomy.changed"):
    """How much the run may do by itself from now on; anomalies lower it, only a person raises it."""

    level: Autonomy
    reason: str = ""
    signed: Signed | None = None


class PolicyAdopted(Event, frozen=True, tag="policy.adopted"):
    """From now on this policy decides; `policy` is the blob of its text. `warning`: what is odd about it."""

    policy: str
    name: str
    who: str
    reason: str = ""
    warning: str = ""
    signed: Signed | None = None


class SignersAdopted(Event, frozen=True, tag="signers.adopted"):
    """From now on decisions must be signed by one of `people`; `signers` is the blob of the allowed_signers file.

    Both empty: signatures are not asked for any more.
    """

    signers: str
    people: list[str]


class ApprovalRequested(Event, frozen=True, tag="approval.requested"):
    """The policy answered `ask`; nothing runs until people have decided or the request has expired to a refusal.

    people: so many different ones must agree, of the `of` who are listed (0: whoever comes). cpu_seconds: what the
    experiment may use in all under this approval. approved: the program of this experiment that was approved before.
    """

    request: str
    experiment: str
    program: str
    tier: str
    rule: str
    expires: float
    people: int = 1
    of: int = 0
    subject: Subject = "program"
    risk: Risk = "R1"
    cpu_seconds: float = 0.0
    approved: str = ""
    reason: str = ""


class ApprovalVoted(Event, frozen=True, tag="approval.voted"):
    """One person's answer to a request. With enough of them, and from `takes_effect` on, it becomes a decision.

    seconds: how long its card had been on that person's screen. seen: the share of the card that was shown.
    """

    request: str
    decision: Decision
    who: str
    program: str = ""
    reason: str = ""
    takes_effect: float = 0.0
    seconds: float = 0.0
    seen: float = 0.0
    signed: Signed | None = None


class ApprovalWithdrawn(Event, frozen=True, tag="approval.withdrawn"):
    """A person took an answer back before it took effect."""

    request: str
    who: str


class ApprovalDecided(Event, frozen=True, tag="approval.decided"):
    """The decision on a program, by the policy (`request` empty, `who` is `policy`) or by people.

    An approval holds for these bytes at this tier, for launches before `until` (0: no end), and until the experiment
    has used `cpu_seconds` (0: no such bound).
    """

    experiment: str
    program: str
    tier: str
    decision: Decision
    who: str
    request: str = ""
    reason: str = ""
    rule: str = ""
    until: float = 0.0
    cpu_seconds: float = 0.0


class AttentionChecked(Event, frozen=True, tag="attention.checked"):
    """A request had been a test: a program known to be bad, which never runs. `caught`: it was rejected.

    nonce: with it, the experiment's seal can be recomputed.
    """

    request: str
    experiment: str
    who: str
    caught: bool
    what: str
    nonce: str


class QuestionAsked(Event, frozen=True, tag="question.asked"):
    """A person asked the Researcher about an experiment; the answer is the agent's reply that follows."""

    experiment: str
    who: str
    text: str


class ExperimentHeld(Event, frozen=True, tag="experiment.held"):
    """Nothing new starts for this experiment; the others go on."""

    experiment: str
    reason: str = ""


class ExperimentReleased(Event, frozen=True, tag="experiment.released"):
    """A held experiment goes on."""

    experiment: str
