"""The run as it stands: everything that a journal says, as `store.folding` computes it from the events."""

from __future__ import annotations

from typing import Literal

import msgspec

from store import events as ev

Phase = Literal["created", "armed", "running", "paused", "frozen", "parked", "stopped", "finished", "killed"]

Step = Literal[
    "propose", "dedupe", "vet", "repair", "assess", "gate", "train", "score", "analyse", "closed"
]
"""What an experiment does next. `train` also covers the wait for a free slot."""


class Trial(msgspec.Struct):
    """One training process, running or over."""

    id: str
    experiment: str
    program: str
    tier: str
    seed: int
    status: Literal["running", "parked", "finished", "failed", "killed"] = "running"
    level: str = ""
    started: float = 0.0
    ended: float = 0.0
    tasks: list[ev.TaskScore] = []
    parameters: int = 0
    training_flops: float = 0.0
    tokens: int = 0
    state_floats: int = 0
    cpu_seconds: float = 0.0
    wall_seconds: float = 0.0
    data_hash: str = ""
    cached: bool = False
    cheat: bool = False
    reason: str = ""
    checkpoint: str = ""


class Vote(msgspec.Struct):
    """One person's answer to a request; `key` is the fingerprint of the key that signed it, empty when none did."""

    who: str
    decision: ev.Decision
    time: float
    reason: str = ""
    takes_effect: float = 0.0
    seconds: float = 0.0
    seen: float = 0.0
    key: str = ""


class Request(msgspec.Struct):
    """One question to people: may this program run at this tier? Or, by its subject: shall this be paused, or end?"""

    id: str
    experiment: str
    program: str
    tier: str
    rule: str
    asked: float
    expires: float
    decision: ev.Decision | None = None
    who: str = ""
    reason: str = ""
    decided: float = 0.0
    people: int = 1
    of: int = 0
    subject: ev.Subject = "program"
    risk: ev.Risk = "R1"
    cpu_seconds: float = 0.0
    approved: str = ""
    votes: list[Vote] = []
    question: str = ""

    @property
    def approvals(self) -> list[Vote]:
        """The votes for it, one a person, oldest first."""
        return [vote for vote in self.votes if vote.decision == "approve"]

    @property
    def takes_effect(self) -> float:
        """From when on the votes are the decision (seconds since the epoch); 0 while there are not enough of them."""
        enough = len(self.approvals) >= self.people
        return max((vote.takes_effect for vote in self.approvals), default=0.0) if enough else 0.0


class Experiment(msgspec.Struct):
    """One proposal on its way from sample to lesson."""

    id: str
    origin: ev.Origin
    parent: str = ""
    references: list[str] = []
    control: bool = False
    seed: int = 0
    opened: float = 0.0
    changed: float = 0.0
    step: Step = "propose"
    title: str = ""
    motivation: str = ""
    hypothesis: str = ""
    change: str = ""
    predictions: list[ev.Prediction] = []
    program: str = ""
    genome: str = ""
    repairs: int = 0
    diagnoses: list[str] = []
    duplicate_of: str = ""
    vetted: bool = False
    gates: list[ev.GateVerdict] = []
    failure: str = ""
    syntax_hash: str = ""
    functional_hash: str = ""
    parameters: int = 0
    state_floats: int = 0
    flops_per_token: float = 0.0
    cost_exponent: float = 0.0
    step_seconds: float = 0.0
    findings: list[ev.Finding] = []
    predicted_cpu_seconds: float = 0.0
    predicted_cpu_low: float = 0.0
    predicted_cpu_high: float = 0.0
    novelty: float = 1.0
    cpu_seconds: float = 0.0
    approved_program: str = ""
    approved_tier: str = ""
    approved_until: float = 0.0
    approved_cpu_seconds: float = 0.0
    approved_before: str = ""
    held: bool = False
    seal: str = ""
    trials: list[str] = []
    scored: ev.ExperimentScored | None = None
    summary: str = ""
    lessons: list[str] = []
    outcomes: list[ev.PredictionOutcome] = []
    outcome: str = ""
    reason: str = ""

    @property
    def open(self) -> bool:
        """Still on its way."""
        return self.step != "closed"

    @property
    def ranked(self) -> bool:
        """Has a score on the leaderboard."""
        return self.scored is not None and self.outcome in ("", "ranked")


class Call(msgspec.Struct):
    """One agent at work or done; kept while its experiment is open, and at least the newest `KEEP_CALLS`.

    tokens, cost: the most that it can still use, reserved until it is answered.
    """

    id: str
    experiment: str
    role: str
    agent: str
    prompt: str
    started: float
    reply: str = ""
    seconds: float = 0.0
    ok: bool = True
    error: str = ""
    tokens: int = 0
    cost: float = 0.0


class Note(msgspec.Struct):
    """A remark for people, newest last."""

    time: float
    level: str
    text: str


class RunState(msgspec.Struct):
    """Everything that a journal says, folded. `seq` and `head` name the last record that went in."""

    seq: int = 0
    head: str = ""
    time: float = 0.0
    name: str = ""
    format: int = 0
    version: str = ""
    created: float = 0.0
    phase: Phase = "created"
    phase_reason: str = ""
    engine_pid: int = 0
    engine_started: float = 0.0
    agents: str = ""
    armed: ev.RunArmed | None = None
    experiments: dict[str, Experiment] = {}
    trials: dict[str, Trial] = {}
    requests: dict[str, Request] = {}
    calls: dict[str, Call] = {}
    notes: list[Note] = []
    cpu_seconds: float = 0.0
    tokens_used: int = 0
    money: float = 0.0
    working_seconds: float = 0.0
    working_since: float = 0.0
    warned: list[str] = []
    policy: str = ""
    policy_name: str = ""
    signers: str = ""
    people: list[str] = []
    autonomy: ev.Autonomy = "A2"
    forked: ev.RunForked | None = None
    caught: int = 0
    missed: int = 0

    @property
    def proposals(self) -> list[Experiment]:
        """All experiments that are not baselines, oldest first."""
        return [e for e in self.experiments.values() if e.origin != "baseline"]

    @property
    def baselines(self) -> list[Experiment]:
        """The baselines, as experiments."""
        return [e for e in self.experiments.values() if e.origin == "baseline"]

    @property
    def pending(self) -> list[Request]:
        """Requests that wait for a person, oldest first."""
        return [r for r in self.requests.values() if r.decision is None]

    @property
    def running_trials(self) -> list[Trial]:
        """Trials whose process should be alive."""
        return [t for t in self.trials.values() if t.status == "running"]

    @property
    def open_calls(self) -> list[Call]:
        """Calls of models that are not answered, and for which tokens are reserved."""
        return [call for call in self.calls.values() if call.tokens]

    def ranking(self) -> list[Experiment]:
        """Scored experiments, best first; ties by age."""
        scored = [e for e in self.experiments.values() if e.ranked]
        return sorted(scored, key=lambda e: (-(e.scored.score if e.scored else 0.0), e.opened))

    def finished_trials(self, experiment: str, program: str | None = None) -> list[Trial]:
        """The experiment's trials that ended with scores, of one program where given."""
        owner = self.experiments[experiment]
        found = (self.trials[t] for t in owner.trials)
        return [t for t in found if t.status == "finished" and (program is None or t.program == program)]
