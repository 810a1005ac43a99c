"""Tasks ask what they say they ask, and sealed data cannot be drawn without the key."""

import numpy as np
import pytest

from engine.linear_attention.tasks import (
    IGNORE,
    KEYS,
    TASKS,
    VALUES,
    draw_noisy_recall,
    draw_parity,
    draw_recall,
    sealed_random,
    training_batch,
)
from engine.linear_attention.tiers import TIERS

CORPUS = np.frombuffer(bytes(range(256)) * 40, dtype=np.uint8)


@pytest.mark.parametrize("name", list(TASKS))
@pytest.mark.parametrize("length", [16, 33, 64, 141])
def test_tokens_and_targets_are_in_range(name: str, length: int) -> None:
    task = TASKS[name]
    batch = task.draw(np.random.default_rng(0), 7, length, True, CORPUS)
    assert batch.tokens.shape == batch.targets.shape == (7, length)
    assert batch.tokens.dtype == batch.targets.dtype == np.int32
    assert batch.tokens.min() >= 0
    assert batch.tokens.max() < task.vocabulary
    asked = batch.targets[batch.targets != IGNORE]
    assert len(asked)
    assert asked.min() >= 0
    assert asked.max() < task.vocabulary


@pytest.mark.parametrize("draw", [draw_recall, draw_noisy_recall])
def test_recall_asks_for_the_latest_value_of_a_key_seen_before(draw: object) -> None:
    batch = draw(np.random.default_rng(1), 20, 64, True, None)  # type: ignore[operator]
    asked = 0
    for tokens, targets in zip(batch.tokens, batch.targets, strict=True):
        latest: dict[int, int] = {}
        for position, token in enumerate(tokens):
            if token < KEYS and position + 1 < len(tokens):
                assert targets[position] == latest.get(token, IGNORE)
                asked += targets[position] != IGNORE
                latest[token] = tokens[position + 1]
                assert KEYS <= latest[token] < KEYS + VALUES
            else:
                assert targets[position] == IGNORE
    assert asked > 100


def test_noise_is_only_in_the_noisy_task() -> None:
    plain = draw_recall(np.random.default_rng(2), 8, 65, True, None)
    noisy = draw_noisy_recall(np.random.default_rng(2), 8, 64, True, None)
    assert plain.tokens.max() < KEYS + VALUES
    assert (noisy.tokens >= KEYS + VALUES).mean() == pytest.approx(0.2, abs=0.02)


def test_parity_is_the_running_sum_and_is_evaluated_late() -> None:
    training = draw_parity(np.random.default_rng(3), 5, 20, True, None)
    evaluation = draw_parity(np.random.default_rng(3), 5, 20, False, None)
    assert (training.targets == training.tokens.cumsum(1) % 2).all()
    assert (evaluation.targets[:, :10] == IGNORE).all()
    assert (evaluation.targets[:, 10:] == training.targets[:, 10:]).all()


def test_bytes_ask_for_the_next_byte_and_need_a_corpus() -> None:
    batch = TASKS["bytes"].draw(np.random.default_rng(4), 3, 50, True, CORPUS)
    assert (batch.tokens[:, 1:] == batch.targets[:, :-1]).all()
    with pytest.raises(ValueError, match="corpus"):
        TASKS["bytes"].draw(np.random.default_rng(4), 3, 50, True, CORPUS[:40])


def test_training_data_depend_on_seed_and_step_alone() -> None:
    plan = TIERS["probe"].plan("recall")
    first, again = training_batch(plan, 5, 9, None), training_batch(plan, 5, 9, None)
    assert (first.tokens == again.tokens).all()
    assert (first.tokens != training_batch(plan, 6, 9, None).tokens).any()
    assert (first.tokens != training_batch(plan, 5, 8, None).tokens).any()


def test_sealed_data_depend_on_key_task_and_purpose() -> None:
    def draw(*parts: object) -> int:
        return int(sealed_random(*parts).integers(1 << 62))  # type: ignore[arg-type]

    base = draw(b"a" * 32, "recall", "final")
    assert base == draw(b"a" * 32, "recall", "final")
    others = {draw(b"b" * 32, "recall", "final"), draw(b"a" * 32, "parity", "final"), draw(b"a" * 32, "recall", "x")}
    assert len(others | {base}) == 4


@pytest.mark.parametrize("tier", list(TIERS.values()), ids=list(TIERS))
def test_plans_are_consistent(tier: object) -> None:
    for plan in tier.plans:  # type: ignore[attr-defined]
        assert plan.task in TASKS
        lengths = [plan.length_at(step) for step in range(plan.steps)]
        assert lengths == sorted(lengths)
        assert lengths[-1] == plan.length
        assert plan.checkpoint_steps()[-1] == plan.steps
        assert plan.tokens_until(plan.steps) == sum(
            training_batch(plan, 0, step, CORPUS).tokens.size for step in range(plan.steps)
        )
