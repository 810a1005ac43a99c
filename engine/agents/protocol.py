"""What the loop asks of its agents, and what they answer: one protocol for the evolver and for language models.

Agents never decide: they draft, repair and explain. What they return is text that the loop vets, gates and measures.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec

from engine.domain import TaskInfo
from store.events import Finding, Prediction, PredictionOutcome

Say = Callable[[str], None]
"""Streams a piece of the agent's thinking to the live transcript."""


class Member(msgspec.Struct, frozen=True):
    """One scored program of the population, as agents see it.

    score, low, high: in units of the noise floor against the baseline. tasks: name → paired difference in the task's
    own units. genome: the evolver's JSON, empty for programs from elsewhere.
    """

    id: str
    title: str
    source: str
    genome: str = ""
    parent: str = ""
    score: float = 0.0
    low: float = -1e9
    high: float = 1e9
    seeds: int = 0
    tasks: dict[str, float] = {}
    origin: str = ""


class Judged(msgspec.Struct, frozen=True):
    """A supervisor's decision on a program: its genome, its parent's genome, the decision and the reason."""

    genome: str
    parent: str
    approved: bool
    reason: str = ""


class ProposalBrief(msgspec.Struct, frozen=True):
    """What the Researcher gets. `seed` makes the offline answer reproducible.

    tried: genomes of every experiment. tasks: what a prediction can speak of. failures: what was tried nearby and came
    to nothing, with the reason, nearest first. rejections: what supervisors said when they refused a program, newest
    first. judged: their decisions on programs with a genome, oldest first.
    """

    experiment: str
    seed: int
    parent: Member
    references: list[Member]
    population: list[Member]
    lessons: list[str]
    contract: str
    tried: list[str] = []
    tasks: list[TaskInfo] = []
    failures: list[str] = []
    rejections: list[str] = []
    judged: list[Judged] = []


class Draft(msgspec.Struct, frozen=True):
    """A proposal: in plain words, with predictions made before the run, and the whole program."""

    title: str
    motivation: str
    hypothesis: str
    predictions: list[Prediction]
    program: str
    genome: str = ""
    change: str = ""


class RepairBrief(msgspec.Struct, frozen=True):
    """What the Engineer gets: the program, which gate or trial failed, and the shortest reproducing evidence.

    history: the diagnoses of earlier repairs of the same experiment.
    """

    experiment: str
    seed: int
    program: str
    genome: str
    failed: str
    evidence: str
    attempt: int
    title: str = ""
    contract: str = ""
    history: list[str] = []


class Fix(msgspec.Struct, frozen=True):
    """A repaired program and what was wrong; an empty `program` means that no remedy is known."""

    diagnosis: str
    program: str
    genome: str = ""


class Neighbour(msgspec.Struct, frozen=True):
    """An earlier proposal whose motivation lies near; `likeness` is what fetched it and decides nothing."""

    id: str
    title: str
    motivation: str
    likeness: float = 0.0


class NoveltyBrief(msgspec.Struct, frozen=True):
    """What the novelty role gets: a proposal, and the earlier ones that it may repeat."""

    experiment: str
    seed: int
    title: str
    motivation: str
    neighbours: list[Neighbour]


class Judgement(msgspec.Struct, frozen=True):
    """A verdict on novelty: the neighbour that is repeated, empty for a new idea."""

    duplicate_of: str
    reason: str = ""


class AnalysisBrief(msgspec.Struct, frozen=True):
    """What the Analyst gets: the result, what it descends from, and the population it stands in.

    against_parent: paired difference to the parent in units of the noise floor with its 95 % interval, None without
    shared seeds. outcomes: the predictions, already checked by the loop.
    """

    experiment: str
    result: Member
    parent: Member | None
    population: list[Member]
    predictions: list[Prediction]
    outcomes: list[PredictionOutcome]
    against_parent: tuple[float, float, float] | None
    noise: dict[str, float]
    change: str = ""
    motivation: str = ""
    hypothesis: str = ""


class Analysis(msgspec.Struct, frozen=True):
    """The Analyst's report: a summary, what supports it, what later proposals should know, what to try."""

    summary: str
    evidence: list[str]
    lessons: list[str]
    next: list[str]


class QuestionBrief(msgspec.Struct, frozen=True):
    """What the Researcher gets when a person asks about an experiment, as it stands at that moment.

    own: the program with its score as far as it is known. parent: None where it has none. stands: how far it has come.
    population: what the gene effects are estimated from, without programs.
    """

    experiment: str
    seed: int
    question: str
    own: Member
    parent: Member | None
    stands: str
    motivation: str = ""
    hypothesis: str = ""
    change: str = ""
    predictions: list[Prediction] = []
    outcomes: list[PredictionOutcome] = []
    findings: list[Finding] = []
    summary: str = ""
    population: list[Member] = []


class Answered(msgspec.Struct, frozen=True):
    """The Researcher's answer to a person, in plain words."""

    text: str


class AgentFailed(Exception):
    """The agent's answer cannot be used, and asking again did not help; the message is one line."""


class AgentUnavailable(Exception):
    """The agent cannot answer at present, through no fault of the experiment: the step runs again when the run does."""


class Agent(Protocol):
    """Researcher, Engineer and Analyst in one; what computes for long runs off the event loop.

    keeps_record: the agent puts its calls on record by itself, each with its cost. judges: it has a novelty role.
    Every method may raise `AgentFailed` and `AgentUnavailable`.
    """

    name: str
    keeps_record: bool
    judges: bool

    def seed_genome(self, baseline: str) -> str:
        """The genome of a baseline as JSON, empty for agents that keep none."""
        ...

    async def propose(self, brief: ProposalBrief, say: Say) -> Draft:
        """Draft a child of the brief's parent."""
        ...

    async def repair(self, brief: RepairBrief, say: Say) -> Fix:
        """Mend a program that failed a gate or a trial."""
        ...

    async def judge(self, brief: NoveltyBrief, say: Say) -> Judgement:
        """Say whether a proposal repeats one of its neighbours; asked only of agents that judge."""
        ...

    async def analyse(self, brief: AnalysisBrief, say: Say) -> Analysis:
        """Explain a result and say what to learn from it."""
        ...

    async def answer(self, brief: QuestionBrief, say: Say) -> Answered:
        """Answer a person's question about an experiment; may be asked at any time, even while the run is paused."""
        ...
