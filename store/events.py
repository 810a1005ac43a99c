"""Every fact that the journal can hold: one struct per kind, one tagged union.

Kinds are `noun.verb`. An event says what happened, never what should be done about it. Texts that a model, a program
or a training process wrote are bounded before they enter an event; anything long is a blob, named by its sha256.
Adding a kind or an optional field keeps old journals readable; removing or renaming one raises `FORMAT`.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from store.event import Autonomy, Decision, Event, Origin, Risk, Signed, Subject  # noqa: F401 - used as `events.Risk`
from store.governance import (
    ApprovalDecided,
    ApprovalRequested,
    ApprovalVoted,
    ApprovalWithdrawn,
    AttentionChecked,
    AutonomyChanged,
    ExperimentHeld,
    ExperimentReleased,
    PolicyAdopted,
    QuestionAsked,
    RunForked,
    SignersAdopted,
)

FORMAT = 1
"""Version of the run directory's format; a directory with a higher one is refused."""

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
