"""Changes of phase against each other and against the latch: whatever the order, nothing runs that was promised not to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import pytest

from engine.client.records import write_latch
from engine.client.rundir import RunPaths
from engine.halting import Halting, Refusal
from engine.runtime import Runtime
from engine.sandboxes import Sandboxes
from engine.slots import Slots
from engine.supervision.sandbox import Launcher
from store import events as ev
from store.config import RunConfig


@pytest.fixture
async def halting(tmp_path: Path) -> AsyncIterator[Halting]:
    RunPaths(tmp_path).create()
    runtime = Runtime(tmp_path, RunConfig())
    sandboxes = Sandboxes(cast(Launcher, None), memory_mb=1, disk_mb=1)
    slots = Slots(2)

    def no_drill(ground: Path) -> Launcher:
        raise AssertionError("nothing here arms")

    await runtime.commit(ev.RunCreated("r", ev.FORMAT, "0", ""))
    await runtime.commit(ev.RunArmed("L2", 4, 1.0, 26, 26))
    await runtime.commit(ev.RunResumed())
    yield Halting(runtime, sandboxes, slots, no_drill)
    await runtime.close()


def running(halting: Halting) -> bool:
    return halting.runtime.state.phase == "running" and halting.slots.open and not halting.sandboxes.frozen


def frozen(halting: Halting) -> bool:
    return halting.runtime.state.phase == "frozen" and not halting.slots.open and halting.sandboxes.frozen


async def test_a_latch_that_was_taken_away_by_hand_is_noticed_when_it_comes_back(halting: Halting) -> None:
    latch = RunPaths(halting.runtime.paths.root).latch
    for _ in range(2):
        latch.touch()
        await halting.look_at_latch()
        assert frozen(halting)
        with pytest.raises(Refusal, match="rearm"):
            await halting.resume("person:a")
        latch.unlink()
        await halting.look_at_latch()
        await halting.resume("person:a")
        assert running(halting)


async def test_a_stop_that_is_pulled_during_a_resume_wins(halting: Halting, monkeypatch: pytest.MonkeyPatch) -> None:
    await halting.freeze("", "person:a")
    thaw = halting.sandboxes.thaw

    async def pulled_meanwhile() -> None:
        write_latch(halting.runtime.paths.root, "person:b", "smoke")
        looking = asyncio.create_task(halting.look_at_latch())
        await asyncio.sleep(0.1)
        await thaw()
        looking_too.append(looking)

    looking_too: list[asyncio.Task[None]] = []
    monkeypatch.setattr(halting.sandboxes, "thaw", pulled_meanwhile)
    with pytest.raises(Refusal, match="pulled"):
        await halting.resume("person:a")
    await asyncio.gather(*looking_too)
    assert frozen(halting)
    assert "smoke" in halting.runtime.state.phase_reason


async def test_a_resume_waits_until_a_park_is_through(halting: Halting, monkeypatch: pytest.MonkeyPatch) -> None:
    park = halting.sandboxes.park

    async def slowly(grace: float) -> tuple[int, int]:
        await asyncio.sleep(0.3)
        return await park(0.0)

    monkeypatch.setattr(halting.sandboxes, "park", slowly)
    parking = asyncio.create_task(halting.park("", "person:a"))
    await asyncio.sleep(0.05)
    assert halting.runtime.state.phase == "parked"
    await halting.resume("person:b")
    assert parking.done()
    assert running(halting)
    assert not halting.sandboxes.parked


async def test_nothing_goes_on_once_the_engine_leaves(halting: Halting) -> None:
    await halting.pause("", "person:a")
    await halting.leave()
    with pytest.raises(Refusal, match="leaving"):
        await halting.resume("person:a")


async def test_under_the_latch_nothing_is_parked_and_a_leaving_engine_does_not_thaw(halting: Halting) -> None:
    write_latch(halting.runtime.paths.root, "person:b", "smoke")
    await halting.look_at_latch()
    with pytest.raises(Refusal, match="latched"):
        await halting.park("", "person:a")
    assert "killed" in await halting.leave()
    assert halting.sandboxes.frozen
