"""Rendered genomes are programs that a person can review and that honour the contract when they are executed."""

from __future__ import annotations

import ast
import difflib
import random

import pytest
import torch

from engine.agents.evolver.genome import GENES, SEEDS, Genome, normalise, replace
from engine.agents.evolver.render import render
from engine.linear_attention import ops
from engine.linear_attention.program import load_mixer

ALLOWED_IMPORTS = {"torch", "torch.nn", "math", "engine.linear_attention.ops"}
D_MODEL, HEADS, LENGTH = 32, 2, 37


def random_genome(rng: random.Random) -> Genome:
    return normalise(Genome(**{gene: rng.choice(values) for gene, values in GENES.items()}))


def sample(count: int, seed: int) -> list[Genome]:
    rng = random.Random(seed)
    return [random_genome(rng) for _ in range(count)]


def imported(source: str) -> tuple[set[str], set[str]]:
    modules, names = set(), set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            modules.add(node.module or "")
            if node.module == "engine.linear_attention.ops":
                names |= {alias.name for alias in node.names}
    return modules, names


@pytest.mark.parametrize(("gene", "value"), [(gene, value) for gene, values in GENES.items() for value in values])
def test_every_value_of_every_gene_can_be_reached_and_parses(gene: str, value: str | int) -> None:
    reached = [g for g in (replace(seed, **{gene: value}) for seed in SEEDS.values()) if getattr(g, gene) == value]
    assert reached
    for genome in reached:
        ast.parse(render(genome))


def test_random_genomes_import_only_what_the_contract_allows_and_use_all_they_import() -> None:
    for genome in sample(200, seed=1):
        source = render(genome)
        modules, names = imported(source)
        assert modules <= ALLOWED_IMPORTS
        assert names <= set(ops.__all__)
        body = source.split("class Mixer")[1]
        assert all(f"{name}(" in body for name in names)
        assert max(len(line) for line in source.splitlines()) <= 120


def test_one_changed_gene_is_a_small_diff() -> None:
    rng = random.Random(2)
    for _ in range(100):
        old = random_genome(rng)
        gene = rng.choice(list(GENES))
        new = replace(old, **{gene: rng.choice(GENES[gene])})
        diff = [
            line
            for line in difflib.unified_diff(render(old).splitlines(), render(new).splitlines(), lineterm="", n=0)
            if line[:1] in "+-" and not line.startswith(("+++", "---"))
        ]
        assert len(diff) <= 60
        assert (old == new) == (not diff)


def build(genome: Genome) -> torch.nn.Module:
    torch.manual_seed(0)
    mixer = load_mixer(render(genome))(D_MODEL, HEADS, 0, 256)
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return mixer


EXECUTED = [pytest.param(genome, id=name) for name, genome in SEEDS.items()] + [
    pytest.param(genome, id=f"random{index}") for index, genome in enumerate(sample(25, seed=3))
]


@pytest.mark.parametrize("genome", EXECUTED)
def test_a_rendered_mixer_honours_the_contract(genome: Genome) -> None:
    mixer = build(genome)
    x = torch.randn(3, LENGTH, D_MODEL)
    y = mixer(x)
    assert y.shape == x.shape
    y.square().mean().backward()
    for name, parameter in mixer.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().max() > 0, name

    with torch.no_grad():
        for t in (1, 17, LENGTH - 1):
            changed = x.clone()
            changed[:, t:] = torch.randn_like(changed[:, t:])
            assert torch.equal(mixer(changed)[:, :t], y[:, :t])
        other = x.clone()
        other[1] = torch.randn_like(other[1])
        assert torch.equal(mixer(other)[0], y[0])

        state, steps = None, []
        for t in range(LENGTH):
            out, state = mixer.step(x[:, t], state)
            steps.append(out)
        assert (torch.stack(steps, 1) - y).abs().max() <= 1e-3
        assert torch.isfinite(mixer(torch.randn(1, 8 * 32, D_MODEL))).all()
        assert torch.isfinite(mixer(1e4 * x)).all()
        assert mixer(x[:, :1]).shape == (3, 1, D_MODEL)


def test_no_genome_needs_many_more_parameters_than_a_baseline() -> None:
    for genome in sample(60, seed=4):
        mixer = load_mixer(render(genome))(64, 2, 0, 128)
        assert sum(p.numel() for p in mixer.parameters()) <= 6.5 * 64**2
