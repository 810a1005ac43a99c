"""The ladder's number against closed forms and a simulation; the slots."""

from __future__ import annotations

import asyncio
import math
import random
import statistics

import pytest
from scipy import stats

from engine.scoring import UNKNOWN, compare, noise_floor, score_config
from engine.slots import Slots

CONFIG, _ = score_config()


def test_one_task_reduces_to_the_textbook_interval() -> None:
    draw = random.Random(1)
    baseline = {seed: {"recall": draw.gauss(0.5, 0.3)} for seed in range(5)}
    noise = noise_floor(baseline, CONFIG)
    spread = statistics.stdev(scores["recall"] for scores in baseline.values())
    sigma = math.hypot(spread, CONFIG.floor("recall"))
    assert noise.sigma["recall"] == pytest.approx(sigma)
    found = compare({0: {"recall": baseline[0]["recall"] + 2 * sigma}}, baseline, noise, CONFIG)
    assert found is not None
    half = stats.t.ppf(0.975, 4) * math.sqrt(2) * spread / sigma
    assert (found.mean, found.low, found.high) == pytest.approx((2.0, 2.0 - half, 2.0 + half))


def test_without_noise_nothing_is_known() -> None:
    baseline = {0: {"recall": 0.5}}
    found = compare({0: {"recall": 0.9}}, baseline, noise_floor(baseline, CONFIG), CONFIG)
    assert found is not None
    assert (found.low, found.high) == (-UNKNOWN, UNKNOWN)
    assert compare({1: {"recall": 0.9}}, baseline, noise_floor(baseline, CONFIG), CONFIG) is None


def test_no_task_decides_alone() -> None:
    draw = random.Random(2)
    baseline = {seed: {"parity": 0.5, "recall": draw.gauss(0.5, 0.1)} for seed in range(5)}
    noise = noise_floor(baseline, CONFIG)
    solved = {seed: {**scores, "parity": 1.0} for seed, scores in baseline.items()}
    found = compare(solved, baseline, noise, CONFIG)
    assert found is not None
    assert found.mean == pytest.approx(CONFIG.clip / 2)


def test_the_null_is_covered() -> None:
    """A copy of the baseline on fresh draws is inside its interval about 19 times in 20."""
    draw, inside, rounds = random.Random(3), 0, 300
    for _ in range(rounds):
        baseline = {seed: {t: draw.gauss(0.5, 0.2) for t in ("recall", "bytes")} for seed in range(5)}
        copy = {seed: {t: draw.gauss(0.5, 0.2) for t in ("recall", "bytes")} for seed in range(3)}
        found = compare(copy, baseline, noise_floor(baseline, CONFIG), CONFIG)
        assert found is not None
        inside += found.low <= 0 <= found.high
    assert inside / rounds > 0.88


async def test_slots_share_and_close() -> None:
    slots = Slots(1)
    served: list[str] = []

    async def work(name: str, baseline: bool) -> None:
        async with slots.hold(baseline=baseline):
            served.append(name)
            await asyncio.sleep(0)

    slots.set_open(False)
    jobs = [asyncio.create_task(work(f"p{n}", False)) for n in range(6)]
    jobs += [asyncio.create_task(work(f"b{n}", True)) for n in range(3)]
    await asyncio.sleep(0.01)
    assert served == []
    slots.set_open(True)
    await asyncio.gather(*jobs)
    assert [name[0] for name in served] == list("bppbppbpp")
    assert slots.used == 0
