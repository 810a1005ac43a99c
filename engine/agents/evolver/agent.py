"""The offline agent: researcher, engineer and analyst without a model, by genes and their estimated effects."""

from __future__ import annotations

import asyncio
import random

from engine.agents.evolver import answers, words
from engine.agents.evolver import population as people
from engine.agents.evolver.dislikes import Column, weights
from engine.agents.evolver.effects import Estimates
from engine.agents.evolver.genome import SEEDS, Genome, decode, encode
from engine.agents.evolver.mutation import Move, choose
from engine.agents.evolver.remedies import describe, remedy
from engine.agents.evolver.render import render
from engine.agents.protocol import (
    Analysis,
    AnalysisBrief,
    Answered,
    Draft,
    Fix,
    Judgement,
    Member,
    NoveltyBrief,
    ProposalBrief,
    QuestionBrief,
    RepairBrief,
    Say,
)

# A parent whose neighbourhood is exhausted is left for a random seed so many times before giving up.
_RESTARTS = 20


class NothingLeftToTryError(RuntimeError):
    """Every genome within reach was already tried."""


class Evolver:
    """An `Agent` that needs no model, no key and no network; the same brief always gets the same answer."""

    name = "evolver"
    keeps_record = False
    judges = False

    def seed_genome(self, baseline: str) -> str:
        """The genome that describes a baseline, as JSON; empty for one outside the space."""
        known = SEEDS.get(baseline)
        return encode(known) if known is not None else ""

    async def propose(self, brief: ProposalBrief, say: Say) -> Draft:
        """Draft a child of the brief's parent; raises NothingLeftToTryError when all within reach was tried."""
        lines, draft = await asyncio.to_thread(_propose, brief)
        for line in lines:
            say(line + "\n")
        return draft

    async def repair(self, brief: RepairBrief, say: Say) -> Fix:
        """Apply the known remedy for the failure; an empty program when there is none."""
        fix = await asyncio.to_thread(_repair, brief)
        say(fix.diagnosis + "\n")
        return fix

    async def judge(self, brief: NoveltyBrief, say: Say) -> Judgement:
        """Always new: two genomes that differ are different proposals."""
        return Judgement("", "its genome differs")

    async def analyse(self, brief: AnalysisBrief, say: Say) -> Analysis:
        """Compare with parent and population, estimate every gene's effect, and say what to try."""
        analysis = await asyncio.to_thread(words.analysis, brief)
        for line in [analysis.summary, *analysis.evidence]:
            say(line + "\n")
        return analysis

    async def answer(self, brief: QuestionBrief, say: Say) -> Answered:
        """Say what the genes, their estimated effects and the predictions tell that has to do with the question."""
        answered = Answered(await asyncio.to_thread(answers.answer, brief))
        say(answered.text + "\n")
        return answered


def _stand_in(brief: ProposalBrief) -> tuple[Genome, str]:
    """A genome for a parent that has none, and how it was found."""
    name = people.nearest_seed(brief.parent.source)
    return SEEDS[name], f"It has no genome, so the child descends from its nearest kin, {name}."


def _move(
    brief: ProposalBrief, parent: Genome, references: list[Genome], scores: Estimates, disliked: dict[Column, float]
) -> Move:
    rng = random.Random(brief.seed)
    tried = people.tried([*brief.population, *brief.references, brief.parent], brief.tried)
    origin = parent
    for _ in range(_RESTARTS):
        move = choose(origin, references, tried, scores, rng, disliked)
        if move is not None:
            return move
        origin = rng.choice(list(SEEDS.values()))
    raise NothingLeftToTryError(f"every genome within reach of {brief.parent.title or brief.parent.id} was tried")


def _propose(brief: ProposalBrief) -> tuple[list[str], Draft]:
    members = people.unique([*brief.population, *brief.references, brief.parent])
    pairs = people.measured(members)
    scores = people.fit("score", pairs)
    own = people.genome_of(brief.parent)
    parent, kinship = (own, "") if own else _stand_in(brief)
    crossed: list[tuple[Member, Genome]] = [(m, g) for m in brief.references if (g := people.genome_of(m))]
    disliked = weights(brief.judged)
    move = _move(brief, parent, [genome for _, genome in crossed], scores, disliked)
    partner = crossed[move.reference][0] if move.reference >= 0 else None
    telling = words.Telling(brief.parent, parent, move, partner, scores, len(pairs))
    tasks = {task: people.fit(task, pairs) for task in people.tasks_of(members)}
    predictions = words.predictions(telling, tasks)
    draft = Draft(
        title=words.title(telling),
        motivation=" ".join(part for part in [kinship, words.motivation(telling)] if part),
        hypothesis=words.hypothesis(telling, predictions),
        predictions=predictions,
        program=render(move.genome),
        genome=encode(move.genome),
        change=describe(parent, move.genome),
    )
    return [*words.thinking(telling, draft, kinship), *words.avoided(disliked)], draft


def _repair(brief: RepairBrief) -> Fix:
    genome = decode(brief.genome)
    if genome is None:
        return Fix(diagnosis=f"{brief.failed}: the program has no genome, so no remedy is known", program="")
    if render(genome).strip() != brief.program.strip():
        return Fix(f"{brief.failed}: the program was edited after it was composed, so no remedy is known", "")
    diagnosis, mended = remedy(genome, brief.failed, brief.evidence, brief.attempt)
    if mended is None:
        return Fix(diagnosis=diagnosis, program="")
    return Fix(diagnosis, render(mended), encode(mended))
