"""What supervisors refuse is tried less often, and comes back when they approve it."""

from __future__ import annotations

import msgspec
import pytest

from engine.agents.evolver import Evolver, decode, encode
from engine.agents.evolver.dislikes import MOST, weights
from engine.agents.evolver.genome import SEEDS, Value, replace
from engine.agents.protocol import Judged
from tests.engine.agents.test_evolver import brief

PARENT = SEEDS["gated_deltanet"]
SEEDS_TRIED = 300


def judged(approved: bool = False, reason: str = "", **genes: Value) -> Judged:
    return Judged(encode(replace(PARENT, **genes)), encode(PARENT), approved, reason)


async def share(gene: str, value: Value, decisions: list[Judged]) -> float:
    """How often a first proposal introduces a gene value, over fixed seeds."""
    asked, found = brief(judged=decisions, population=[], references=[]), 0
    for seed in range(SEEDS_TRIED):
        draft = await Evolver().propose(msgspec.structs.replace(asked, seed=seed), lambda text: None)
        genome = decode(draft.genome)
        assert genome is not None
        found += getattr(genome, gene) == value != getattr(PARENT, gene)
    return found / SEEDS_TRIED


async def test_a_refused_gene_becomes_rare_and_an_approval_brings_it_back() -> None:
    before = await share("strength", "reflect", [])
    assert before > 0.06
    refusal = judged(reason="strength again: it blew up last week", strength="reflect", window=16)
    after = await share("strength", "reflect", [refusal])
    assert after < 0.4 * before
    forgiven = [refusal, *[judged(approved=True, strength="reflect")] * 5]
    assert await share("strength", "reflect", forgiven) > 2 * after


async def test_the_same_decisions_give_the_same_proposal_and_none_change_nothing() -> None:
    refused = [judged(reason="too slow", window=16)]
    drafts = [await Evolver().propose(brief(5, judged=refused), print) for _ in range(2)]
    assert drafts[0] == drafts[1]
    assert await Evolver().propose(brief(5, judged=[]), print) == await Evolver().propose(brief(5), print)
    foreign = [Judged("", encode(PARENT), False, "no"), Judged("{", "", False, "no")]
    assert await Evolver().propose(brief(5, judged=foreign), print) == await Evolver().propose(brief(5), print)


async def test_a_refusal_says_nothing_about_what_a_gene_is_worth() -> None:
    """Predictions are checked against measurements; what people dislike must not move them."""
    refused = [judged(window=16)]
    for seed in range(20):
        plain, wary = [await Evolver().propose(brief(seed, judged=known), lambda text: None) for known in ([], refused)]
        if plain.genome == wary.genome:
            assert plain.predictions == wary.predictions
            return
    pytest.fail("no seed gave the same move")


def test_blame_goes_to_the_gene_that_the_reason_names_and_to_all_where_it_names_none() -> None:
    both = {"window": 16, "skip": "value"}
    assert weights([judged(reason="I do not want a Window here", **both)]) == {("window", 16): 1.0}
    assert weights([judged(reason="no", **both)]) == {("window", 16): 0.5, ("skip", "value"): 0.5}
    assert weights([judged(reason="the key norm is wrong", **both)]) == weights([judged(**both)])
    assert weights([judged(**both)] * 20) == {("window", 16): MOST, ("skip", "value"): MOST}
    approvals = [judged(approved=True, **both)] * 12
    assert weights([judged(**both), *approvals]) == {} == weights(approvals)


async def test_the_transcript_says_what_is_avoided() -> None:
    said: list[str] = []
    await Evolver().propose(brief(judged=[judged(window=16)]), said.append)
    assert any("supervisors refused programs with it: window=16" in line for line in said)
