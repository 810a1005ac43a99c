"""Screen 4: curves against parent and baseline, the history of trials, what ending one costs, the machine."""

from __future__ import annotations

import time
import unicodedata
from typing import Any

import pytest

from asi_tui.model import Curve
from asi_tui.screens.experiment import ExperimentScreen
from asi_tui.screens.training import TrainingScreen
from asi_tui.screens.training.curves import compare, diverged
from asi_tui.screens.training.machine import sparkline
from engine.client import protocol
from store import events as ev
from tests.asi_tui.fakes import Fake, app_for
from tests.asi_tui.test_app import painted, picture, settled, until
from tests.asi_tui.test_safe import HOSTILE

TASKS = ("recall", "parity", "byte-lm")


def curve(offset: float, tasks: tuple[str, ...] = ("recall",), steps: int = 200) -> Curve:
    made = Curve()
    made.add([protocol.CurvePoint(task, step, 2 + offset) for task in tasks for step in range(0, steps, 4)], [])
    return made


class Several(Fake):
    """Live curves on three tasks, and two GPUs."""

    def live(self) -> list[Any]:
        gpu = protocol.Device("H100", 0.9, 60 * 2**30, 80 * 2**30, 61.0, 640.0)
        out: list[Any] = [protocol.LiveLoad(0.5, 3 * 2**30, 8 * 2**30, 2**35, 2, 2, 250.0, [gpu, gpu])]
        for trial in self.state.running_trials:
            losses = [protocol.CurvePoint(task, step, 3 - step / 100) for task in TASKS for step in range(0, 160, 4)]
            out.append(protocol.LiveCurve(trial.id, trial.experiment, "recall", 160, 400, 0.43, losses, [], 9.3, 26.0))
        return out


def test_a_trial_is_compared_at_its_own_step_with_the_spread_over_seeds() -> None:
    found = compare(curve(0.0, steps=100), [curve(0.2), curve(0.4)], "recall", False)
    assert found is not None
    assert (found.step, found.seeds) == (96, 2)
    assert found.difference == pytest.approx(-0.3)
    assert found.spread == pytest.approx(0.1414, abs=1e-3)
    single = compare(curve(0.0), [curve(0.2)], "recall", False)
    assert single is not None
    assert single.spread is None
    assert compare(curve(0.0), [curve(0.2, steps=50)], "recall", False) is None
    assert compare(Curve(), [curve(0.2)], "recall", False) is None


def test_a_loss_that_is_no_number_is_found() -> None:
    made = curve(0.0)
    assert diverged(made, "recall") is None
    made.add([protocol.CurvePoint("recall", 120, float("nan")), protocol.CurvePoint("recall", 124, 1e30)], [])
    assert diverged(made, "recall") == 120


def test_sparklines_show_the_newest_values() -> None:
    assert sparkline([0.0, 1.0], 4) == "  ▁█"
    assert sparkline([1.0] * 9 + [0.0], 3) == "██▁"
    assert len(sparkline([5.0, -1.0], 10)) == 10


async def test_the_difference_at_the_same_step_and_the_price_are_told() -> None:
    app = app_for(Fake().busy())
    async with app.run_test(size=(120, 30)) as pilot:
        await settled(pilot)
        await pilot.press("4")
        await until(pilot, lambda: "at step 156" in picture(app) and "to the parent, 1 seed" in picture(app))
        assert "to the baseline, 4 seeds" in picture(app)
        assert "of work; park keeps it" in picture(app)
        await pilot.press("m")
        await until(pilot, lambda: "sealed accuracy" in picture(app))


async def test_a_wall_shows_several_tasks_and_every_gpu() -> None:
    app = app_for(Several().busy())
    async with app.run_test(size=(200, 50)) as pilot:
        await settled(pilot)
        await pilot.press("4")
        await settled(pilot)
        shown = picture(app)
        for words in ("recall (1 of 3", "parity (2 of 3", "byte-lm (3 of 3", "gpu 0", "gpu 1", "61 °C", "640 W", "250 ms"):
            assert words in shown
        await pilot.press("t")
        await settled(pilot)
        assert "parity (2 of 3" in next(line for line in painted(app) if "of 3 tasks" in line)[:66]


async def test_all_ended_trials_can_be_reached_and_filtered() -> None:
    app = app_for(Fake().busy())
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        await pilot.press("4", "G")
        await settled(pilot)
        screen = app.screen
        assert isinstance(screen, TrainingScreen)
        assert screen.chosen == "b0-s0"
        await pilot.press("g", "/")
        await pilot.press(*"softmax", "enter")
        await settled(pilot)
        assert "1 ended that read “softmax”" in picture(app)
        await pilot.press("down", "down", "enter")
        await settled(pilot)
        assert isinstance(app.screen, ExperimentScreen)
        await pilot.press("escape")
        await settled(pilot)
        await pilot.press("escape")
        await settled(pilot)
        assert "10 ended" in picture(app)


async def test_anomalies_failures_and_parked_trials_say_why() -> None:
    fake = Fake().busy()
    app = app_for(fake)
    async with app.run_test(size=(120, 30)) as pilot:
        await settled(pilot)
        await pilot.press("4")
        fake.send(ev.TrialAnomaly("e0005-s0", "e0005", "nan", "loss is not a number"))
        await until(pilot, lambda: "✗ nan: loss is not a number" in picture(app))
        fake.send(ev.TrialFailed("e0005-s0", "e0005", "nan in step 7"))
        await until(pilot, lambda: "✗ failed: nan in step 7" in picture(app))
        fake.send(ev.TrialParked("e0006-s1", "e0006", "ada", "c" * 64, 12.0))
        await pilot.press("g")
        screen = app.screen
        assert isinstance(screen, TrainingScreen)
        screen.choose("e0006-s1")
        await until(pilot, lambda: "goes on from its checkpoint" in picture(app))


async def test_a_click_chooses_a_trial() -> None:
    app = app_for(Fake().busy())
    async with app.run_test(size=(120, 30)) as pilot:
        await settled(pilot)
        await pilot.press("4")
        await settled(pilot)
        y = next(y for y, line in enumerate(painted(app)) if " e0004 " in line)
        await pilot.click(offset=(12, y))
        await settled(pilot)
        assert isinstance(app.screen, TrainingScreen)
        assert app.screen.chosen == "e0004-s0"


@pytest.mark.parametrize("size", [(60, 16), (80, 24), (160, 45), (200, 50), (250, 70)])
@pytest.mark.parametrize("kind", ["start", "busy"])
async def test_every_size(size: tuple[int, int], kind: str) -> None:
    app = app_for(getattr(Several(), kind)())
    async with app.run_test(size=size) as pilot:
        await settled(pilot)
        for key in ("4", "m", "t", "j", "pagedown", "pageup", "k"):
            await pilot.press(key)
        await settled(pilot)
        assert len(painted(app)) == size[1]
        assert "STOP" in painted(app)[-1]
        assert "machine" in picture(app)


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
async def test_hostile_text_is_inert(text: str) -> None:
    hostile = text.encode("utf-8", "replace").decode()
    fake = Fake(hostile).busy()
    fake.record(ev.TrialAnomaly("e0005-s0", "e0005", hostile, hostile))
    fake.record(ev.TrialFailed("e0006-s1", "e0006", hostile))
    app = app_for(fake)
    async with app.run_test(size=(120, 40)) as pilot:
        await settled(pilot)
        await pilot.press("4")
        await settled(pilot)
        shown = picture(app)
        assert all(unicodedata.category(c) not in ("Cc", "Cf", "Cs") or c == "\n" for c in shown)
        assert len(painted(app)) == 40


async def test_twenty_thousand_trials_are_no_burden() -> None:
    fake = Fake().busy()
    for number in range(20_000):
        name = f"x{number:05}"
        fake.record(ev.ExperimentOpened(name, "evolver", "b0"))
        fake.record(ev.TrialStarted(f"{name}-s0", name, "0" * 64, "probe", 0, "L2"))
        fake.record(ev.TrialFailed(f"{name}-s0", name, "no reason"))
    app = app_for(fake)
    async with app.run_test(size=(160, 45)) as pilot:
        await settled(pilot)
        await pilot.press("4")
        await settled(pilot)
        screen = app.screen
        assert isinstance(screen, TrainingScreen)
        begin = time.perf_counter()
        for _ in range(10):
            screen.body(160, 43)
        assert (time.perf_counter() - begin) / 10 < 0.1
