"""What the loop asks of its agents, and what they answer: one protocol for the evolver and for language models.

Agents never decide: they draft, repair and explain. What they return is text that the loop vets, gates and measures.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec

from store.events import Prediction, PredictionOutcome

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


class ProposalBrief(msgspec.Struct, frozen=True):
    """What the Researcher gets. `seed` makes the offline answer reproducible."""

    experiment: str
    seed: int
    parent: Member
    references: list[Member]
    population: list[Member]
    lessons: list[str]
    contract: str
    tried: list[str] = []


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
    """What the Engineer gets: the program, which gate or trial failed, and the shortest reproducing evidence."""

    experiment: str
    seed: int
    program: str
    genome: str
    failed: str
    evidence: str
    attempt: int


class Fix(msgspec.Struct, frozen=True):
    """A repaired program and what was wrong; an empty `program` means that no remedy is known."""

    diagnosis: str
    program: str
    genome: str = ""


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


class Analysis(msgspec.Struct, frozen=True):
    """The Analyst's report: a summary, what supports it, what later proposals should know, what to try."""

    summary: str
    evidence: list[str]
    lessons: list[str]
    next: list[str]


class Agent(Protocol):
    """Researcher, Engineer and Analyst in one; what computes for long runs off the event loop."""

    name: str

    def seed_genome(self, baseline: str) -> str:
        """The genome of a baseline as JSON, empty for agents that keep none."""
        ...

    async def propose(self, brief: ProposalBrief, say: Say) -> Draft:
        """Draft a child of the brief's parent."""
        ...

    async def repair(self, brief: RepairBrief, say: Say) -> Fix:
        """Mend a program that failed a gate or a trial."""
        ...

    async def analyse(self, brief: AnalysisBrief, say: Say) -> Analysis:
        """Explain a result and say what to learn from it."""
        ...
