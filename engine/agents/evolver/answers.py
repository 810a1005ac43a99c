"""Answers to people's questions without a model: what the genes, their effects and the predictions say, and no more."""

from __future__ import annotations

import re

from engine.agents.evolver import population as people
from engine.agents.evolver.dislikes import named
from engine.agents.evolver.effects import Estimates, with_interval
from engine.agents.evolver.genome import Genome, Value, active, differences, family, replace
from engine.agents.evolver.knowledge import known
from engine.agents.evolver.render import render
from engine.agents.protocol import Member, QuestionBrief

LIMITS = (
    "I am a program without a language model. I can tell what the genes of this experiment are, what it changes "
    "against its parent, what these genes are estimated to be worth, and what is predicted; ask about one of these, or "
    "name a gene or a task."
)
MOST_CHARACTERS = 4_000

# What a question may be about, by the beginnings of its words.
_SUBJECTS = {
    "change": r"chang|differ|parent|new\b|modif|instead|why|reason|motiv|idea|purpose",
    "genes": r"gene|consist|compos|structure|architect|what is|made of|how does|how do|work",
    "effects": r"effect|worth|help|hurt|gain|evidence|estimate|interval|confiden|sure|certain|why|reason",
    "predictions": r"predict|expect|hypothes|will|should|if\b",
    "result": r"result|score|measur|held|outcome|better|worse|rank|stand",
    "risks": r"risk|finding|danger|safe|leak|warn|capab",
}


def answer(brief: QuestionBrief) -> str:
    """What is known that has to do with the question."""
    asked = brief.question.casefold()
    subjects = {name for name, pattern in _SUBJECTS.items() if re.search(rf"\b(?:{pattern})", asked)}
    genome = people.genome_of(brief.own)
    parent = people.genome_of(brief.parent) if brief.parent is not None else None
    genes = named(asked)
    tasks = [one.task for one in brief.predictions if one.task.casefold() in asked]
    parts: list[str] = []
    if not (subjects or genes or tasks):
        parts.append(LIMITS)
    if genome is None:
        parts.append("This program has no genome, so of its workings I know nothing; I only repeat what is on record.")
        parts += [f"Its stated change: {brief.change}."] if "change" in subjects and brief.change else []
    else:
        parts += _trust(brief.own, genome)
        parts += _genes(genome, genes) if genes or "genes" in subjects else []
        if genes or subjects & {"change", "effects"}:
            parts += _changes(brief, parent, genome, genes)
    if tasks or "predictions" in subjects:
        parts += _predictions(brief, tasks)
    if "result" in subjects or "held" in asked:
        parts += _result(brief)
    if "risks" in subjects:
        parts += _risks(brief)
    return "\n".join(parts)[:MOST_CHARACTERS]


def _trust(own: Member, genome: Genome) -> list[str]:
    """Genes describe a program only while it is the one that they are rendered to."""
    if not own.source or own.origin == "baseline" or render(genome).strip() == own.source.strip():
        return []
    return ["Mind: the program is not what its genes are rendered to, so what I say of the genes may not hold for it."]


def _genes(genome: Genome, chosen: list[str]) -> list[str]:
    meant = active(genome)
    chosen = chosen or [gene for gene, value in meant.items() if value not in ("none", 0, 1, "identity")]
    name = family(genome)
    lines = [f"It belongs to {name[0].upper()}{name[1:]}."]
    for gene in chosen:
        value = getattr(genome, gene)
        why = known(gene, value).reason if gene in meant else "has no effect beside the other genes"
        lines.append(f"- {gene}={value}: it {why}." if why else f"- {gene}={value}.")
    return lines


def _changes(brief: QuestionBrief, parent: Genome | None, genome: Genome, chosen: list[str]) -> list[str]:
    if parent is None or brief.parent is None:
        return ["There is no parent with genes to compare it with."]
    changed = differences(parent, genome)
    above = brief.parent.title or brief.parent.id
    if not changed:
        return [f"In its genes nothing differs from its parent, {above}."]
    pairs = people.measured([*brief.population, brief.parent, brief.own])
    scores = people.fit("score", pairs)
    lines = [f"Against its parent, {above}:"]
    for gene, (old, new) in changed.items():
        lines.append(_change(scores, parent, genome, gene, old, new, len(pairs)))
    whole = with_interval(*scores.difference(parent, genome))
    lines.append(f"All changes together are estimated at {whole} noise units (95 % interval).")
    lines += [f"{gene} is not changed." for gene in chosen if gene not in changed]
    return lines


def _change(scores: Estimates, parent: Genome, genome: Genome, gene: str, old: Value, new: Value, programs: int) -> str:
    told = f"- {gene} goes from {old} to {new}"
    if gene not in active(genome):
        return f"{told}, which has no effect beside the other genes."
    reason = known(gene, new).reason
    told += f": it {reason}" if reason else ""
    alone = replace(parent, **{gene: new})
    if alone == parent:
        return f"{told}. It follows from the other changes."
    effect, times = with_interval(*scores.difference(parent, alone)), scores.tried(gene, new)
    if not times:
        return f"{told}. It was not yet measured in this run; from the literature alone {effect} noise units."
    return f"{told}. Estimated effect {effect} noise units, from {programs} measured programs, {times} of them with it."


def _predictions(brief: QuestionBrief, tasks: list[str]) -> list[str]:
    wanted = [one for one in brief.predictions if not tasks or one.task in tasks]
    if not wanted:
        return ["Nothing is predicted."]
    verdicts = {one.task: one for one in brief.outcomes}
    lines = [f"Predicted before the run: {brief.hypothesis}" if brief.hypothesis else "Predicted before the run:"]
    for one in wanted:
        line = f"- {one.task} {one.direction} by about {one.size:.3g}: {one.reason}"
        found = verdicts.get(one.task)
        lines.append(f"{line}; {found.verdict}, measured {found.measured:+.3g}" if found else line)
    return lines


def _result(brief: QuestionBrief) -> list[str]:
    own = brief.own
    if not own.seeds:
        return [f"It is not measured yet ({brief.stands})."]
    interval = with_interval(own.score, own.low, own.high)
    return [f"It scores {interval} noise units against the baseline over {own.seeds} seeds ({brief.stands})."]


def _risks(brief: QuestionBrief) -> list[str]:
    found = [f"- {one.severity} {one.kind}, line {one.line}: {one.message}" for one in brief.findings[:8]]
    lines = ["Found by the assessment:", *found] if found else ["The assessment found nothing."]
    return [*lines, "I do not read programs, so I cannot add to that."]
