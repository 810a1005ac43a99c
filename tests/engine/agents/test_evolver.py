"""The evolver as the loop meets it: proposals, repairs and reports."""

from __future__ import annotations

import ast

import msgspec
import pytest

from engine.agents.evolver import SEEDS, Evolver, Genome, decode, encode, render
from engine.agents.evolver.genome import distance, replace
from engine.agents.protocol import Analysis, AnalysisBrief, Fix, Member, ProposalBrief, RepairBrief
from store.events import PredictionOutcome

TASKS = {"recall": 0.1, "noisy_recall": 0.05, "parity": 0.0, "bytes": 0.02}


def member(name: str, genome: Genome, score: float = 0.0, parent: str = "") -> Member:
    tasks = {task: value * score for task, value in TASKS.items()}
    return Member(name, name, render(genome), encode(genome), parent, score, score - 1, score + 1, 3, tasks)


POPULATION = [member(name, genome, float(index)) for index, (name, genome) in enumerate(SEEDS.items())]


def brief(seed: int = 0, parent: Member | None = None, **changes: object) -> ProposalBrief:
    parent = parent or POPULATION[6]
    made = ProposalBrief("e1", seed, parent, POPULATION[:3], POPULATION, [], "")
    return msgspec.structs.replace(made, **changes)


async def test_a_proposal_is_a_program_with_predictions_in_plain_words() -> None:
    said: list[str] = []
    draft = await Evolver().propose(brief(), said.append)
    ast.parse(draft.program)
    genome = decode(draft.genome)
    assert genome is not None
    assert render(genome) == draft.program
    assert {prediction.task for prediction in draft.predictions} == {*TASKS, "score"}
    assert all(prediction.size >= 0 and prediction.reason for prediction in draft.predictions)
    assert "→" in draft.change
    assert "noise units" in draft.motivation
    assert len(said) >= 4
    assert draft.change in "".join(said)


async def test_the_same_brief_gets_the_same_answer_and_another_seed_another() -> None:
    drafts = [await Evolver().propose(brief(seed), print) for seed in (1, 1, 2, 3, 4)]
    assert drafts[0] == drafts[1]
    assert len({draft.program for draft in drafts}) >= 3


async def test_nothing_is_proposed_twice() -> None:
    tried: list[str] = []
    seen = {source.source for source in POPULATION}
    for _ in range(40):
        draft = await Evolver().propose(brief(seed=7, tried=tried), print)
        assert draft.program not in seen
        seen.add(draft.program)
        tried.append(draft.genome)


async def test_a_parent_without_a_genome_gets_a_child_of_its_nearest_kin() -> None:
    foreign = Member("p1", "a person's mixer", "y = my.gated_delta_rule(q, k, v, g, b)\n", score=2.0, seeds=3)
    draft = await Evolver().propose(brief(parent=foreign), print)
    assert "gated_deltanet" in draft.motivation
    genome = decode(draft.genome)
    assert genome is not None
    assert genome != SEEDS["gated_deltanet"]


async def test_an_empty_population_is_enough_to_start() -> None:
    parent = Member("gla", "gla", "", encode(SEEDS["gla"]))
    draft = await Evolver().propose(brief(parent=parent, population=[], references=[]), print)
    assert "not yet scored" in draft.motivation
    assert draft.predictions


async def repaired(genome: Genome, failed: str, evidence: str = "", program: str = "", attempt: int = 1) -> Fix:
    request = RepairBrief("e1", 0, program or render(genome), encode(genome), failed, evidence, attempt)
    return await Evolver().repair(request, print)


@pytest.mark.parametrize(
    ("failed", "evidence", "start", "gene", "value"),
    [
        ("stability", "inf at 8 times the length", {"feature": "identity"}, "key_norm", "l2"),
        ("nan", "loss became NaN at step 40", {}, "key_norm", "l2"),
        ("causal", "y[:17] changed by 0.2", {"window": 16}, "window", 0),
        ("complexity", "exponent 1.8", {"window": 32}, "window", 0),
        ("budget", "too many floats", {"decay": "head", "timescales": 2}, "timescales", 1),
        ("decode", "step differs by 0.1", {"position": "rotary"}, "position", "none"),
        ("gradient", "no gradient reaches: bonus", {"skip": "bonus"}, "skip", "none"),
        ("shapes", "size mismatch", {"widths": "wide_values"}, "widths", "square"),
    ],
)
async def test_a_known_failure_gets_its_remedy(
    failed: str, evidence: str, start: dict[str, str | int], gene: str, value: str | int
) -> None:
    genome = replace(Genome(), **start)
    fix = await repaired(genome, failed, evidence)
    mended = decode(fix.genome)
    assert mended is not None
    assert getattr(mended, gene) == value
    assert fix.program == render(mended)
    assert gene in fix.diagnosis


async def test_repairs_go_on_to_the_next_remedy_and_end() -> None:
    genome = replace(SEEDS["linear_attention"], feature="squared_relu", skip="value")
    seen = {genome}
    for attempt in range(1, 20):
        fix = await repaired(genome, "diverged", attempt=attempt)
        mended = decode(fix.genome)
        if mended is None:
            assert fix.program == ""
            assert attempt > 1
            return
        assert mended not in seen
        seen.add(mended)
        genome = mended
    pytest.fail("the remedies never ran out")


async def test_what_the_evolver_did_not_write_it_does_not_mend() -> None:
    edited = await repaired(SEEDS["gla"], "nan", program=render(SEEDS["gla"]) + "# a person's line\n")
    foreign = await Evolver().repair(RepairBrief("e1", 0, "x = 1", "", "nan", "", 1), print)
    unknown = await repaired(SEEDS["gla"], "stateless")
    assert [fix.program for fix in (edited, foreign, unknown)] == ["", "", ""]
    assert all(fix.diagnosis for fix in (edited, foreign, unknown))


async def analysed(against: tuple[float, float, float] | None) -> Analysis:
    parent = POPULATION[6]
    child = member("e9", replace(SEEDS["gated_deltanet"], convolution="all"), 9.0, parent.id)
    outcomes = [PredictionOutcome("recall", "held", 0.3), PredictionOutcome("bytes", "not held", -0.01)]
    noise = {"recall": 0.02, "bytes": 0.02}
    request = AnalysisBrief("e9", child, parent, [*POPULATION, child], [], outcomes, against, noise)
    return await Evolver().analyse(request, print)


async def test_a_report_says_how_sure_it_is_and_teaches_by_gene_names() -> None:
    better, undecided, unshared = [await analysed(against) for against in ((3.0, 1.0, 5.0), (3.0, -1.0, 7.0), None)]
    assert "better than its parent (+3.00 [+1.00, +5.00]" in better.summary
    assert "not told apart" in undecided.summary
    assert "no seed is shared" in unshared.summary
    assert "rank 1 of 10" in better.summary
    assert "convolution none → all helped" in better.lessons[0]
    assert "no clear difference" in undecided.lessons[0]
    assert any("bytes" in lesson and "wrongly" in lesson for lesson in better.lessons)
    assert any(line.startswith("recall: ") and "times the noise" in line for line in better.evidence)
    assert better.next


async def test_next_ideas_are_single_steps_that_were_not_tried() -> None:
    report = await analysed(None)
    genome = replace(SEEDS["gated_deltanet"], convolution="all")
    for line in report.next:
        gene, value = line.removeprefix("Try ").split(":")[0].split("=")
        child = replace(genome, **{gene: int(value) if value.isdigit() else value})
        assert distance(genome, child) >= 1
        assert child not in SEEDS.values()


async def test_a_program_without_a_genome_is_analysed_too() -> None:
    result = Member("m1", "a model's mixer", "", score=1.0, low=0.5, high=1.5, seeds=2, tasks={"recall": 0.1})
    report = await Evolver().analyse(AnalysisBrief("m1", result, None, POPULATION, [], [], None, {}), print)
    assert "a model's mixer scores +1.00 [+0.50, +1.50]" in report.summary
    assert report.next
