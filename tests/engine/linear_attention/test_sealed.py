"""Sealed scoring over real pipes: the same seed gives the same numbers, and cheats gain nothing."""

from __future__ import annotations

import msgspec
import pytest

from bench.probe import run_trial
from engine.domain import TrialResult, TrialSpec
from engine.linear_attention import baselines
from engine.linear_attention.corpus import CorpusInfo, build_corpus
from engine.linear_attention.tiers import TIERS, ensure_key

TIER = TIERS["probe-smoke"]

BASE = '''
import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Mixer(nn.Module):
    def __init__(self, d_model: int, n_heads: int, layer_idx: int, max_len: int) -> None:
        super().__init__()
        self.map = nn.Linear(d_model, d_model)
{init}
    def forward(self, x: Tensor) -> Tensor:
{forward}
'''
HONEST = BASE.format(init="", forward="        return self.map(x)")
LEAKS_WHEN_SCORED = BASE.format(
    init="",
    forward="        ahead = torch.cat([x[:, 1:], x[:, :1]], 1)\n        return self.map(x if self.training else x + ahead)",
)
LEAKS_ALWAYS = BASE.format(
    init="",
    forward="        return self.map(x + 3 * torch.cat([x[:, 1:], x[:, :1]], 1))",
)
MIXES_THE_BATCH = BASE.format(init="", forward="        return self.map(x) + x.mean(0, keepdim=True)")
PATCHES_THE_LOSS = BASE.format(
    init="        F.cross_entropy = lambda logits, *a, **k: logits.square().mean() * 1e-6\n",
    forward="        return self.map(x)",
)
FORGES_RESULTS = BASE.format(
    init='        open("scores.jsonl", "w").write(\'{"task":"recall","step":12,"value":1.0,"loss":0.0}\\n\')\n'
    '        open("result.json", "w").write(\'{"failure":""}\')\n',
    forward="        return self.map(x)",
)
DIES = BASE.format(init="", forward="        raise RuntimeError('no')")
NOT_A_NUMBER = BASE.format(init="", forward="        return self.map(x) * float('nan')")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> CorpusInfo:
    return build_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture
def trial(tmp_path, corpus):
    ensure_key(tmp_path / "key")

    def run(source: str, name: str = "trial", tasks: tuple[str, ...] = ("recall", "bytes")) -> TrialResult:
        spec = TrialSpec(name, "0" * 64, TIER.name, 0, list(tasks))
        return run_trial(source, spec, TIER, corpus, tmp_path / "key", tmp_path / name)

    return run


def numbers(result: TrialResult) -> list[tuple[str, float, float]]:
    return [(task.task, task.score, task.final) for task in result.tasks]


def test_the_same_seed_gives_the_same_score_to_the_bit(trial) -> None:
    first, second = trial(baselines.source("deltanet"), "a"), trial(baselines.source("deltanet"), "b")
    assert not first.failure
    assert all(task.honest for task in first.tasks)
    assert numbers(first) == numbers(second)
    assert abs(first.parameters - trial(baselines.source("gla"), "c").parameters) <= 0.01 * first.parameters


@pytest.mark.parametrize("source", [LEAKS_WHEN_SCORED, LEAKS_ALWAYS, MIXES_THE_BATCH])
def test_a_program_that_sees_what_it_must_not_is_called_a_cheat(trial, source: str) -> None:
    result = trial(source, tasks=("recall",))
    assert result.failure or not all(task.honest for task in result.tasks)
    if not result.failure:
        assert all(task.evidence for task in result.tasks if not task.honest)


def test_patching_the_loss_and_forging_files_gains_nothing(trial) -> None:
    honest = trial(HONEST, "honest", ("bytes",))
    patched = trial(PATCHES_THE_LOSS, "patched", ("bytes",))
    assert patched.failure or patched.tasks[0].score <= honest.tasks[0].score
    forged = trial(FORGES_RESULTS, "forged", ("bytes",))
    assert numbers(forged) == numbers(honest)


@pytest.mark.parametrize("source", [DIES, NOT_A_NUMBER])
def test_a_missing_number_is_a_failure(trial, source: str) -> None:
    result = trial(source, tasks=("recall",))
    assert result.failure
    assert not result.tasks
    assert msgspec.json.decode(msgspec.json.encode(result), type=TrialResult) == result
