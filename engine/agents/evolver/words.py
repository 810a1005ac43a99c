"""What the evolver says: titles, motivations, predictions and reports in plain words, each number with its interval."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from engine.agents.evolver import population as people
from engine.agents.evolver.effects import Effect, Estimates, with_interval
from engine.agents.evolver.genome import GENES, Genome, Value, active, differences, family, replace
from engine.agents.evolver.knowledge import known
from engine.agents.evolver.mutation import Move
from engine.agents.protocol import Analysis, AnalysisBrief, Draft, Member
from store.events import Prediction

# Below these a difference is called `same`: task units, and noise floor units for the score.
SAME_TASK = 0.005
SAME_SCORE = 0.1
MOST_NAMED = 3
MOST_LESSONS = 4


class Telling(NamedTuple):
    """All that a proposal's texts are made of; `programs`: how many measured programs the estimates rest on."""

    parent: Member
    genome: Genome
    move: Move
    partner: Member | None
    scores: Estimates
    programs: int

    @property
    def changes(self) -> dict[str, tuple[Value, Value]]:
        """Gene → (old, new), genes that mean something in the child first."""
        meant = active(self.move.genome)
        changed = differences(self.genome, self.move.genome)
        return dict(sorted(changed.items(), key=lambda item: item[0] not in meant))


def title(telling: Telling) -> str:
    """`Gated DeltaNet with strength reflect, no window`."""
    names = {gene: gene.replace("_", " ") for gene in telling.changes}
    changed = [
        f"no {names[gene]}" if new in ("none", 0) else f"{names[gene]} {new}"
        for gene, (_, new) in telling.changes.items()
    ]
    more = f" and {len(changed) - MOST_NAMED} more" if len(changed) > MOST_NAMED else ""
    name = family(telling.move.genome)
    return f"{name[0].upper()}{name[1:]} with {', '.join(changed[:MOST_NAMED])}{more}"


def _gene_evidence(telling: Telling, gene: str, old: Value, new: Value) -> str:
    """What is known of one change, measured or read."""
    alone = replace(telling.genome, **{gene: new})
    if alone == telling.genome:
        return "It follows from the other changes."
    if not telling.scores.tried(gene, new):
        return f"`{gene}={new}` was not yet tried in this run."
    change = with_interval(*telling.scores.difference(telling.genome, alone))
    times = telling.scores.tried(gene, new)
    return (
        f"Against `{gene}={old}` the estimate is {change} noise units, from {telling.programs} measured programs, "
        f"{times} of them with `{gene}={new}`."
    )


def motivation(telling: Telling) -> str:
    """Why this child: what changes, what the change does, and what the run knows about it."""
    parent, move = telling.parent, telling.move
    stands = "is not yet scored"
    if parent.seeds:
        stands = f"stands at {with_interval(parent.score, parent.low, parent.high)} noise units against the baseline"
    parts = [f"The parent, {parent.title or parent.id}, {stands}."]
    if telling.partner is not None:
        parts.append(f"This child takes genes from {telling.partner.title or telling.partner.id}.")
    for gene, (old, new) in list(telling.changes.items())[:MOST_NAMED]:
        reason = known(gene, new).reason
        parts.append(f"`{gene}` goes from {old} to {new}: it {reason}. {_gene_evidence(telling, gene, old, new)}")
    if not move.steered:
        parts.append(
            "The choice was random on purpose: a share of moves ignores the estimates, to find what they miss."
        )
    return " ".join(parts)


def predictions(telling: Telling, tasks: dict[str, Estimates]) -> list[Prediction]:
    """Task by task and for the score, what the estimates expect against the parent."""
    expected = []
    for task, estimates in {**tasks, "score": telling.scores}.items():
        size, low, high = estimates.difference(telling.genome, telling.move.genome)
        same = SAME_SCORE if task == "score" else SAME_TASK
        direction = "same" if abs(size) < same else "up" if size > 0 else "down"
        gene = _leading(telling, estimates)
        change = f"{_precise(size, task)} [{_precise(low, task)}, {_precise(high, task)}]"
        reason = f"mostly by `{gene}`; expected change {change}"
        expected.append(Prediction(task, direction, round(abs(size), 4), reason))  # type: ignore[arg-type]
    return expected


def _precise(size: float, task: str) -> str:
    return f"{size:+.2f}" if task == "score" else f"{size:+.3f}"


def _leading(telling: Telling, estimates: Estimates) -> str:
    """The changed gene that carries most of the expected change."""

    def alone(gene: str) -> float:
        changed = replace(telling.genome, **{gene: telling.changes[gene][1]})
        return abs(estimates.difference(telling.genome, changed)[0])

    return max(telling.changes, key=alone)


def hypothesis(telling: Telling, expected: list[Prediction]) -> str:
    """One falsifiable sentence, and what its failure would mean."""
    moved = [p for p in expected if p.direction != "same" and p.task != "score"]
    moved.sort(key=lambda prediction: -prediction.size)
    genes = " and ".join(f"`{gene}`" for gene in list(telling.changes)[:MOST_NAMED])
    if not moved:
        return f"Changing {genes} moves no task by more than {SAME_TASK}; a difference would mean that genes interact."
    effects = ", ".join(f"{p.task} goes {p.direction} by about {p.size:.3f}" for p in moved[:2])
    return f"If changing {genes} matters here as expected, {effects}. If not, something else limits the parent."


def thinking(telling: Telling, draft: Draft, kinship: str) -> list[str]:
    """The lines streamed to the transcript."""
    ranked = [effect for effect in telling.scores.report() if effect.decided][:MOST_NAMED]
    lines = [
        f"Parent: {telling.parent.title or telling.parent.id}. Measured programs with a genome: {telling.programs}."
    ]
    lines += [kinship] if kinship else []
    if ranked:
        lines.append("Strongest so far: " + "; ".join(f"{effect.name} {_row(effect)}" for effect in ranked) + ".")
    else:
        lines.append("No gene's effect is decided yet; what the literature says leads.")
    how = "steered by a draw from the estimated effects" if telling.move.steered else "at random on purpose"
    lines.append(f"Move: {telling.move.kind}, {how}: {draft.change}.")
    lines += [f"Expect {p.task}: {p.direction}, {p.reason}." for p in draft.predictions]
    return lines


def avoided(disliked: Mapping[tuple[str, Value], float]) -> list[str]:
    """A line on what is tried less often because supervisors refused it."""
    most = sorted(disliked, key=lambda column: -disliked[column])[:MOST_NAMED]
    named = ", ".join(f"{gene}={value}" for gene, value in most)
    return [f"Tried less often, because supervisors refused programs with it: {named}."] if named else []


def _row(effect: Effect) -> str:
    return f"{with_interval(effect.effect, effect.low, effect.high)} (n={effect.n})"


def analysis(brief: AnalysisBrief) -> Analysis:
    """The Analyst's report."""
    result, parent = brief.result, brief.parent
    members = people.unique([*brief.population, *([parent] if parent else []), result])
    pairs = people.measured(members)
    scores = people.fit("score", pairs)
    rows = scores.report()
    changes = _changes(result, parent)
    evidence = [
        *_task_evidence(brief),
        *(
            f"prediction on {o.task}: {o.verdict}, measured {o.measured:+.3f}{f' ({o.note})' if o.note else ''}"
            for o in brief.outcomes
        ),
        *(f"{effect.name}: {_row(effect)} noise units against its gene's average" for effect in rows[:6]),
    ]
    return Analysis(_summary(brief, members), evidence, _lessons(brief, changes, rows), _next(result, scores, members))


def _changes(result: Member, parent: Member | None) -> dict[str, tuple[Value, Value]]:
    child, origin = people.genome_of(result), people.genome_of(parent) if parent else None
    return differences(origin, child) if child and origin else {}


def _versus_parent(brief: AnalysisBrief) -> tuple[str, str]:
    """The verdict in one word and the numbers behind it."""
    if brief.against_parent is None:
        return "undecided", "no seed is shared with the parent"
    middle, low, high = brief.against_parent
    verdict = "better" if low > 0 else "worse" if high < 0 else "undecided"
    return verdict, f"{with_interval(middle, low, high)} noise units against the parent"


def _summary(brief: AnalysisBrief, members: list[Member]) -> str:
    result = brief.result
    verdict, numbers = _versus_parent(brief)
    than = {"better": "better than its parent", "worse": "worse than its parent"}.get(
        verdict, "not told apart from its parent"
    )
    others = [member.score for member in members if member.seeds and member.id != result.id]
    rank = 1 + sum(score > result.score for score in others)
    held = sum(outcome.verdict == "held" for outcome in brief.outcomes)
    foretold = f" {held} of {len(brief.outcomes)} predictions held." if brief.outcomes else ""
    return (
        f"{result.title or result.id} scores {with_interval(result.score, result.low, result.high)} noise units "
        f"against the baseline over {result.seeds} seed{'s' * (result.seeds != 1)}, rank {rank} of {len(others) + 1}. "
        f"It is {than} ({numbers}).{foretold}"
    )


def _task_evidence(brief: AnalysisBrief) -> list[str]:
    lines = []
    for task, value in brief.result.tasks.items():
        noise = brief.noise.get(task, 0.0)
        size = f", {value / noise:+.1f} times the noise" if noise > 0 else ""
        kin = brief.parent.tasks.get(task) if brief.parent else None
        against = f", {value - kin:+.3f} against the parent" if kin is not None else ""
        lines.append(f"{task}: {value:+.3f} against the baseline{size}{against}")
    return lines


def _lessons(brief: AnalysisBrief, changes: dict[str, tuple[Value, Value]], rows: list[Effect]) -> list[str]:
    """Short sentences with gene names, found by later recalls."""
    lessons = []
    verdict, numbers = _versus_parent(brief)
    if changes and brief.parent:
        made = "; ".join(f"{gene} {old} → {new}" for gene, (old, new) in list(changes.items())[:MOST_NAMED])
        told = {"better": "helped", "worse": "hurt"}.get(verdict, "made no clear difference")
        lessons.append(f"{made} {told} on {brief.parent.title or brief.parent.id}: {numbers}.")
        lessons += _largest_task(brief, made)
    wrong = [outcome.task for outcome in brief.outcomes if outcome.verdict == "not held"]
    if wrong and changes:
        lessons.append(f"The effect of {', '.join(changes)} on {', '.join(wrong)} was predicted wrongly.")
    for effect in rows:
        if effect.decided and (effect.gene in changes or not changes):
            verb = "raises" if effect.effect > 0 else "lowers"
            lessons.append(f"Over the population {effect.name} {verb} the score by {_row(effect)}.")
    return lessons[:MOST_LESSONS]


def _largest_task(brief: AnalysisBrief, made: str) -> list[str]:
    """The task that moved most against the parent, when it moved by more than twice the noise."""
    kin = brief.parent.tasks if brief.parent else {}
    moved = {
        task: value - kin[task]
        for task, value in brief.result.tasks.items()
        if task in kin and abs(value - kin[task]) > 2 * brief.noise.get(task, float("inf"))
    }
    if not moved:
        return []
    task = max(moved, key=lambda name: abs(moved[name]) / max(brief.noise[name], 1e-9))
    times = abs(moved[task]) / max(brief.noise[task], 1e-9)
    return [f"{made} moved {task} by {moved[task]:+.3f}, {times:.0f} times its noise."]


def _next(result: Member, scores: Estimates, members: list[Member]) -> list[str]:
    """The single changes of this program that promise most, and those about which least is known."""
    genome = people.genome_of(result)
    if genome is None:
        return ["Describe the program by genes, or cross its nearest kin, to learn from it."]
    tried = people.tried(members, [])
    options = []
    for gene, values in GENES.items():
        for value in values:
            child = replace(genome, **{gene: value})
            if getattr(child, gene) == value and child != genome and child not in tried:
                options.append((gene, value, scores.difference(genome, child)))
    best = sorted(options, key=lambda option: -option[2][2])[:MOST_NAMED]
    return [
        f"Try {gene}={value}: {'expected' if scores.tried(gene, value) else 'not yet tried, expected'} "
        f"{with_interval(*interval)}; it {known(gene, value).reason}."
        for gene, value, interval in best
    ]
