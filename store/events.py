"""Every fact that the journal can hold: one struct per kind, one tagged union.

Kinds are `noun.verb`. An event says what happened, never what should be done about it. Texts that a model, a program
or a training process wrote are bounded before they enter an event; anything long is a blob, named by its sha256.
Adding a kind or an optional field keeps old journals readable; removing or renaming one raises `FORMAT`.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

FORMAT = 1
"""Version of the run directory's format; a directory with a higher one is refused."""

Origin = Literal["baseline", "evolver", "person", "model", "control"]
Decision = Literal["approve", "reject", "defer", "expire"]
Subject = Literal["program", "pause", "cancel"]
"""What a request is about: may this program run; shall the run be paused; shall this experiment end."""

Risk = Literal["R0", "R1", "R2", "R3", "R4"]
"""How deliberate a decision must be. R0: the policy's. R1: one person, who may undo it for some seconds. R2: a code
typed, two people. R3: as R2, with reasons, and a wait before it takes effect. R4: what touches engine, guard, audit or
stop path, and is always denied."""

Autonomy = Literal["A0", "A1", "A2", "A3", "A4"]
"""How much the run may do by itself. A0: propose only. A1: a person sees every program. A2: as the policy says. A3:
what would need one person and has at most low findings goes without. A4: whatever is not denied goes, in budget."""


class Event(msgspec.Struct, frozen=True, tag_field="kind", omit_defaults=True):
    """Base of all events."""

    @property
    def kind(self) -> str:
        """The event's kind, such as `trial.started`."""
        return str(self.__struct_config__.tag)


class Signed(msgspec.Struct, frozen=True):
    """A statement, byte for byte as it was signed, the armoured SSH signature of it, and the key's fingerprint."""

    statement: str
    signature: str
    key: str = ""


# --- the run ---------------------------------------------------------------------------------------------------------


class RunCreated(Event, frozen=True, tag="run.created"):
    """A run directory was made; `config` is the blob of its run.toml."""

    name: str
    format: int
    version: str
    config: str


class EngineStarted(Event, frozen=True, tag="engine.started"):
    """An engine opened the run; `agents` says who proposes in it."""

    pid: int
    version: str
    boot_id: str
    agents: str = ""


class EngineStopped(Event, frozen=True, tag="engine.stopped"):
    """The engine left on purpose; after a crash this event is missing."""

    reason: str


class JournalRepaired(Event, frozen=True, tag="journal.repaired"):
    """A torn tail was cut back to the last good record."""

    segment: str
    bytes_cut: int
    last_good: int


class RunArmed(Event, frozen=True, tag="run.armed"):
    """The arming drill passed: a sandboxed tree was killed by the real kill path and its death proved.

    `killed_ms` is from the signal to the proof; `attacks_stopped` of `attacks_tried` attacks were stopped at `level`.
    """

    level: str
    processes: int
    killed_ms: float
    attacks_stopped: int
    attacks_tried: int
    advice: str = ""


class ArmingFailed(Event, frozen=True, tag="run.arming_failed"):
    """The drill or the isolation probe failed; nothing may start."""

    reason: str


class RunPaused(Event, frozen=True, tag="run.paused"):
    """Nothing new starts; running trials finish."""

    reason: str = ""


class RunFrozen(Event, frozen=True, tag="run.frozen"):
    """Every trial was stopped in place; `milliseconds` until all were seen stopped."""

    processes: int = 0
    milliseconds: float = 0.0
    reason: str = ""


class RunParked(Event, frozen=True, tag="run.parked"):
    """Trials left the device; the engine stays."""

    reason: str = ""


class RunResumed(Event, frozen=True, tag="run.resumed"):
    """Work goes on."""


class RunStopped(Event, frozen=True, tag="run.stopped"):
    """The run ended in order: by `asi stop`, or because the asked number of experiments is done."""

    reason: str
    finished: bool = False


class RunKilled(Event, frozen=True, tag="run.killed"):
    """Somebody killed everything; recorded by the next engine from the latch."""

    who: str
    when: float
    reason: str = ""
    processes: int = 0
    proved: bool = False
    signed: Signed | None = None


class RunRearmed(Event, frozen=True, tag="run.rearmed"):
    """The latch was lifted by a person, with a reason."""

    reason: str
    signed: Signed | None = None


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


class BudgetExceeded(Event, frozen=True, tag="budget.exceeded"):
    """A cap was reached (`hard`) or 80 % of it (not `hard`)."""

    currency: str
    used: float
    cap: float
    hard: bool


class LeaseLost(Event, frozen=True, tag="lease.lost"):
    """The engine's heartbeat had stopped for `seconds`, so the guard killed every sandbox without asking it."""

    seconds: float
    sandboxes: int
    proved: bool


class ClockJumped(Event, frozen=True, tag="clock.jumped"):
    """The wall clock moved by `seconds` against the monotonic one: it was set, or the machine slept."""

    seconds: float


class NoteAdded(Event, frozen=True, tag="note.added"):
    """A remark by a person or by the engine."""

    text: str
    level: Literal["info", "warning", "error"] = "info"


# --- agents ----------------------------------------------------------------------------------------------------------


class AgentCalled(Event, frozen=True, tag="agent.called"):
    """An agent began to work; `prompt` is a blob.

    brief: the blob of what the agent was given, from which prompt and request were made. asked: the blob of a model's
    request; its sha256 is what the record of calls goes by. tokens, cost: the most that the call can use, reserved
    until it is answered.
    """

    call: str
    experiment: str
    role: str
    agent: str
    prompt: str
    brief: str = ""
    asked: str = ""
    tokens: int = 0
    cost: float = 0.0


class AgentReplied(Event, frozen=True, tag="agent.replied"):
    """The agent answered; `reply` is a blob. `ok` is false when the answer could not be used."""

    call: str
    experiment: str
    role: str
    reply: str
    seconds: float
    ok: bool = True
    tokens_in: int = 0
    tokens_out: int = 0
    cost: float = 0.0
    error: str = ""


# --- one experiment, from sample to lesson ---------------------------------------------------------------------------


class ExperimentOpened(Event, frozen=True, tag="experiment.opened"):
    """An experiment began. `parent` and `references` are experiment ids; `control` marks a random-parent control.

    seal: hash that commits to whether this is a test of the supervisors' attention (see `attention.checked`).
    """

    experiment: str
    origin: Origin
    parent: str = ""
    references: list[str] = []
    control: bool = False
    seed: int = 0
    seal: str = ""


class Prediction(msgspec.Struct, frozen=True):
    """What the proposer expects before the run: `task` moves `up` or `down` against the parent by about `size`.

    `size` is in the task's own score units; `task` may be `score` for the whole.
    """

    task: str
    direction: Literal["up", "down", "same"]
    size: float = 0.0
    reason: str = ""


class ProposalDrafted(Event, frozen=True, tag="proposal.drafted"):
    """A proposal exists; `program` is a blob; `genome` the evolver's own short JSON, empty elsewhere."""

    experiment: str
    title: str
    motivation: str
    hypothesis: str
    program: str
    predictions: list[Prediction] = []
    genome: str = ""
    change: str = ""


class ProposalDuplicate(Event, frozen=True, tag="proposal.duplicate"):
    """The proposal repeats `of`; `how` is `exact`, `functional` or `motivation`."""

    experiment: str
    of: str
    how: Literal["exact", "functional", "motivation"]


class GateVerdict(msgspec.Struct, frozen=True):
    """One vetting gate's verdict, with what was seen."""

    gate: str
    passed: bool
    evidence: str


class ProgramVetted(Event, frozen=True, tag="program.vetted"):
    """The vetting battery ran on `program`; `report` is the blob of the whole report."""

    experiment: str
    program: str
    passed: bool
    gates: list[GateVerdict]
    report: str
    syntax_hash: str = ""
    functional_hash: str = ""
    parameters: int = 0
    state_floats: int = 0
    flops_per_token: float = 0.0
    cost_exponent: float = 0.0
    step_seconds: float = 0.0
    seconds: float = 0.0


class ProgramRepaired(Event, frozen=True, tag="program.repaired"):
    """The Engineer replaced `old` by `new` (blobs) after a failure."""

    experiment: str
    old: str
    new: str
    diagnosis: str
    attempt: int
    genome: str = ""


class Finding(msgspec.Struct, frozen=True):
    """One risk finding; `line` is 0 where it speaks of the whole program."""

    kind: str
    severity: Literal["info", "low", "medium", "high"]
    message: str
    line: int = 0


class RiskAssessed(Event, frozen=True, tag="risk.assessed"):
    """What the program could do, what it would cost, and how new it is: 1 - its likeness to the nearest earlier one.

    cpu_seconds_low, cpu_seconds_high: the cost of one trial lies between them in 95 of 100 cases; both 0 while too few
    trials of this run have ended to say.
    """

    experiment: str
    program: str
    tier: str
    findings: list[Finding]
    cpu_seconds: float = 0.0
    novelty: float = 1.0
    cpu_seconds_low: float = 0.0
    cpu_seconds_high: float = 0.0


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


class TrialStarted(Event, frozen=True, tag="trial.started"):
    """A training process is about to run `program` at `tier` with `seed`, in a sandbox of `level`.

    `resumed`: it goes on from the checkpoint with which it was parked.
    """

    trial: str
    experiment: str
    program: str
    tier: str
    seed: int
    level: str
    resumed: bool = False


class TrialAnomaly(Event, frozen=True, tag="trial.anomaly"):
    """The watch saw something; the trial is stopped."""

    trial: str
    experiment: str
    what: str
    evidence: str


class TaskScore(msgspec.Struct, frozen=True):
    """One task of a finished trial, as the trusted scorer measured it. Higher `score` is better."""

    task: str
    score: float
    final: float
    metric: str


class TrialFinished(Event, frozen=True, tag="trial.finished"):
    """A trial ended with sealed scores. `cached` names where they came from when nothing was trained now."""

    trial: str
    experiment: str
    program: str
    tier: str
    seed: int
    tasks: list[TaskScore]
    parameters: int
    training_flops: float
    tokens: int
    state_floats: int
    cpu_seconds: float
    wall_seconds: float
    data_hash: str
    points_hash: str
    result: str
    cached: bool = False


class TrialFailed(Event, frozen=True, tag="trial.failed"):
    """A trial ended without a score; `cheat` when the sealed checks disagreed."""

    trial: str
    experiment: str
    reason: str
    evidence: str = ""
    cheat: bool = False
    cpu_seconds: float = 0.0


class TrialParked(Event, frozen=True, tag="trial.parked"):
    """A trial left the device and can go on: `checkpoint` is the sha256 of its files, empty where it starts over.

    `cpu_seconds` are those of the whole trial so far.
    """

    trial: str
    experiment: str
    who: str
    checkpoint: str = ""
    cpu_seconds: float = 0.0
    data_hash: str = ""


class TrialKilled(Event, frozen=True, tag="trial.killed"):
    """A trial was ended from outside: by a person, by a lost lease, or found dead after a crash of the engine."""

    trial: str
    experiment: str
    who: str
    cpu_seconds: float = 0.0


class TaskDifference(msgspec.Struct, frozen=True):
    """Paired difference to the baseline on one task, in the task's own units; `noise` is the noise floor's SD."""

    task: str
    difference: float
    noise: float


class ExperimentScored(Event, frozen=True, tag="experiment.scored"):
    """The ladder's number: paired standardised difference to the baseline, in units of the noise floor.

    low, high: 95 % interval; infinite bounds are written as +-1e9 where too little is known.
    against_parent: the same against the parent on shared seeds, None where they share none.
    """

    experiment: str
    tier: str
    score: float
    low: float
    high: float
    seeds: int
    tasks: list[TaskDifference] = []
    against_parent: float | None = None
    against_parent_low: float | None = None
    against_parent_high: float | None = None
    noise_seeds: int = 0
    score_config: str = ""


class PredictionOutcome(msgspec.Struct, frozen=True):
    """A prediction checked against what was measured."""

    task: str
    verdict: Literal["held", "not held", "undecided"]
    measured: float
    note: str = ""


class ExperimentAnalysed(Event, frozen=True, tag="experiment.analysed"):
    """The Analyst's report; `report` is a blob."""

    experiment: str
    summary: str
    lessons: list[str]
    outcomes: list[PredictionOutcome] = []
    report: str = ""


class ExperimentClosed(Event, frozen=True, tag="experiment.closed"):
    """The experiment is over."""

    experiment: str
    outcome: Literal["ranked", "duplicate", "rejected", "failed"]
    reason: str = ""


AnyEvent = (
    RunCreated
    | EngineStarted
    | EngineStopped
    | JournalRepaired
    | RunArmed
    | ArmingFailed
    | RunPaused
    | RunFrozen
    | RunParked
    | RunResumed
    | RunStopped
    | RunKilled
    | RunRearmed
    | RunForked
    | AutonomyChanged
    | PolicyAdopted
    | SignersAdopted
    | BudgetExceeded
    | LeaseLost
    | ClockJumped
    | NoteAdded
    | AgentCalled
    | AgentReplied
    | ExperimentOpened
    | ProposalDrafted
    | ProposalDuplicate
    | ProgramVetted
    | ProgramRepaired
    | RiskAssessed
    | ApprovalRequested
    | ApprovalVoted
    | ApprovalWithdrawn
    | ApprovalDecided
    | AttentionChecked
    | QuestionAsked
    | ExperimentHeld
    | ExperimentReleased
    | TrialStarted
    | TrialAnomaly
    | TrialFinished
    | TrialFailed
    | TrialParked
    | TrialKilled
    | ExperimentScored
    | ExperimentAnalysed
    | ExperimentClosed
)

URGENT: frozenset[type] = frozenset(
    {
        RunCreated,
        RunArmed,
        RunPaused,
        RunFrozen,
        RunResumed,
        RunStopped,
        RunKilled,
        RunRearmed,
        RunForked,
        AutonomyChanged,
        PolicyAdopted,
        SignersAdopted,
        ApprovalRequested,
        ApprovalVoted,
        ApprovalWithdrawn,
        ApprovalDecided,
        AttentionChecked,
        TrialStarted,
        TrialFinished,
        TrialParked,
        LeaseLost,
        BudgetExceeded,
        AgentCalled,
    }
)
"""Kinds that are fsynced before anything acts on them: approvals, kills, launches, spending, and scores paid for."""


class Record(msgspec.Struct, frozen=True):
    """One line of the journal. `hash` is sha256 over `prev` and the canonical encoding of the first four fields.

    time: seconds since the epoch. actor: who caused it (`engine`, `person:<login>`, `agent:<role>`).
    """

    seq: int
    time: float
    actor: str
    data: AnyEvent
    prev: str
    hash: str


_ENCODER = msgspec.json.Encoder(order="deterministic")
_DECODER = msgspec.json.Decoder(Record)


def encode(value: Any) -> bytes:
    """The canonical JSON of a struct: the same bytes for the same value, always."""
    return _ENCODER.encode(value)


def decode_record(line: bytes) -> Record:
    """Parse and validate one journal line; raises `msgspec.MsgspecError` for anything that is not a record."""
    try:
        return _DECODER.decode(line)
    except UnicodeDecodeError as error:
        # msgspec lets this one through as it is: for us it is one more way of not being a record.
        raise msgspec.DecodeError(f"not UTF-8: {error}") from None
