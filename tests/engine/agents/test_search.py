"""The evolver's space, its estimates and its moves."""

from __future__ import annotations

import random

import numpy as np
import pytest

from engine.agents.evolver.effects import Observation, estimate, noise_of, row
from engine.agents.evolver.genome import GENES, SEEDS, Genome, decode, distance, encode, family, normalise, replace
from engine.agents.evolver.knowledge import KNOWN
from engine.agents.evolver.mutation import choose, neighbours
from engine.agents.evolver.population import nearest_seed
from engine.linear_attention import baselines


def random_genome(rng: random.Random) -> Genome:
    return normalise(Genome(**{gene: rng.choice(values) for gene, values in GENES.items()}))


def test_the_space_is_large_and_normalising_twice_changes_nothing() -> None:
    rng = random.Random(0)
    seen = {random_genome(rng) for _ in range(6000)}
    assert len(seen) > 4000
    assert all(normalise(genome) == genome for genome in seen)


def test_every_seed_is_a_valid_genome_of_a_baseline_and_they_differ() -> None:
    assert set(SEEDS) == set(baselines.names()) - {"softmax_attention"}
    assert len(set(SEEDS.values())) == len(SEEDS)
    for genome in SEEDS.values():
        assert normalise(genome) == genome


@pytest.mark.parametrize("name", list(SEEDS))
def test_a_baseline_is_recognised_by_its_recurrence(name: str) -> None:
    kin = SEEDS[nearest_seed(baselines.source(name))]
    same_family = {family(SEEDS[name]), family(kin)}
    assert len(same_family) == 1 or same_family == {"retention", "Mamba-2"}


def test_json_round_trip_and_refusal_of_anything_else() -> None:
    rng = random.Random(1)
    for _ in range(50):
        genome = random_genome(rng)
        assert decode(encode(genome)) == genome
    invalid = ["", "[]", "{", '{"write": "eval"}', '{"steps": 3}', '{"colour": "red"}', encode(SEEDS["gla"]) * 50]
    assert [decode(text) for text in invalid] == [None] * len(invalid)


def test_every_gene_value_is_known() -> None:
    assert set(KNOWN) == {(gene, value) for gene, values in GENES.items() for value in values}


def planted(seed: int, programs: int, noise: float) -> tuple[np.ndarray, list[Observation]]:
    rng, numbers = random.Random(seed), np.random.default_rng(seed)
    size = row(SEEDS["gla"]).size
    truth = numbers.normal(0, 1, size) * (numbers.random(size) < 0.5)
    genomes = [random_genome(rng) for _ in range(programs)]
    values = [float(row(genome) @ truth + noise * numbers.normal()) for genome in genomes]
    return truth, [Observation(genome, value, noise) for genome, value in zip(genomes, values, strict=True)]


def test_planted_effects_are_recovered_and_intervals_cover_them() -> None:
    covered, errors, guesses = [], [], []
    for seed in range(10):
        truth, observations = planted(seed, programs=80, noise=0.5)
        estimates = estimate("score", observations)
        rng = random.Random(100 + seed)
        for _ in range(30):
            old, new = random_genome(rng), random_genome(rng)
            middle, low, high = estimates.difference(old, new)
            real = float((row(new) - row(old)) @ truth)
            covered.append(low <= real <= high)
            errors.append(middle - real)
            guesses.append(real)
    assert 0.88 <= np.mean(covered) <= 1.0
    assert np.std(errors) < 0.5 * np.std(guesses)


def test_the_report_names_a_strong_effect_and_calls_pure_noise_undecided() -> None:
    rng, numbers = random.Random(5), np.random.default_rng(5)
    genomes = [random_genome(rng) for _ in range(60)]
    strong = [Observation(g, 4.0 * (g.convolution == "all") + 0.5 * numbers.normal(), 0.5) for g in genomes]
    top = estimate("score", strong).report()[0]
    assert (top.name, top.decided) == ("convolution=all", True)
    assert top.low < 4.0 * (1 - top.n / 60) < top.high
    noise = estimate("score", [Observation(g, float(numbers.normal()), 1.0) for g in genomes]).report()
    assert sum(effect.decided for effect in noise) <= 0.15 * len(noise)


def test_noise_comes_from_the_interval_and_from_the_seeds_where_there_is_none() -> None:
    assert noise_of(-1.0, 1.0, 5) == pytest.approx(1 / 2.776, rel=1e-3)
    assert noise_of(-1e9, 1e9, 1) == pytest.approx(2**0.5)
    assert noise_of(-1e9, 1e9, 4) < noise_of(-1e9, 1e9, 1)


def test_the_same_seed_makes_the_same_move_and_nothing_tried_is_tried_again() -> None:
    parent, references = SEEDS["gated_deltanet"], [SEEDS["gla"], SEEDS["retnet"]]
    estimates = estimate("score", [])
    tried: set[Genome] = set(SEEDS.values())
    for seed in range(60):
        first = choose(parent, references, tried, estimates, random.Random(seed))
        assert first is not None
        assert first == choose(parent, references, tried, estimates, random.Random(seed))
        assert first.genome not in tried
        tried.add(first.genome)


def test_a_crossover_takes_every_gene_from_one_of_its_two() -> None:
    parent, reference = SEEDS["linear_attention"], SEEDS["kda"]
    everything_near = set(neighbours(parent))
    for seed in range(200):
        move = choose(parent, [reference], everything_near, estimate("score", []), random.Random(seed))
        if move is not None and move.kind == "crossover":
            assert move.reference == 0
            assert distance(move.genome, parent) > 0
            assert distance(move.genome, reference) < distance(parent, reference) + 3
            return
    pytest.fail("no crossover in 200 moves")


def test_a_neighbour_changes_little() -> None:
    for genome in SEEDS.values():
        near = neighbours(genome)
        assert len(near) >= 20
        assert genome not in near
        assert max(distance(genome, child) for child in near) <= 7


def climb(truth: np.ndarray, steered: bool) -> float:
    """The best true value after 30 children of the three best so far."""
    numbers = np.random.default_rng(0)
    scores: dict[Genome, float] = {genome: float(row(genome) @ truth) for genome in SEEDS.values()}
    for seed in range(30):
        best = sorted(scores, key=lambda genome: -scores[genome])
        observed = [Observation(genome, value, 0.3) for genome, value in scores.items()] if steered else []
        move = choose(best[seed % 3], best[3:6], scores, estimate("score", observed), random.Random(seed))
        assert move is not None
        scores[move.genome] = float(row(move.genome) @ truth + 0.3 * numbers.normal())
    return max(float(row(genome) @ truth) for genome in scores)


def test_search_climbs_a_planted_landscape_faster_with_what_it_measured() -> None:
    gains = []
    for seed in range(5):
        truth, _ = planted(seed, programs=1, noise=0.0)
        start = max(float(row(genome) @ truth) for genome in SEEDS.values())
        learned = climb(truth, steered=True)
        assert learned > start + 1.0
        gains.append(learned - climb(truth, steered=False))
    assert np.mean(gains) > 0.5


def test_replacing_a_gene_repairs_what_it_breaks() -> None:
    assert replace(SEEDS["linear_attention"], write="delta").key_norm == "l2"
    assert replace(SEEDS["linear_attention"], decay="head").output_norm == "rms"
    assert replace(SEEDS["deltanet_negative"], write="add").strength == "gate"
