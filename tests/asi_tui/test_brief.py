"""The morning brief: what it says and in which order, its forecasts, since when, on the screen and in the shell."""

from __future__ import annotations

import asyncio
import json
import os
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from asi_tui import briefing
from asi_tui.arguments import duration
from asi_tui.briefing import Situation
from asi_tui.forecast import forecasts, pace
from asi_tui.main import main
from asi_tui.screens.brief import BriefScreen
from asi_tui.screens.experiment import ExperimentScreen
from asi_tui.seen import last_seen, remember_seen, seen_path
from store import events as ev
from store.config import Budget, Loop, RunConfig
from store.journal import Journal
from store.state import RunState
from tests.asi_tui.fakes import Fake, app_for
from tests.asi_tui.test_app import painted, picture, settled, until
from tests.asi_tui.test_safe import HOSTILE, harmless

EVIL = " ".join(text for name, text in HOSTILE.items() if name != "surrogate")


@pytest.fixture(autouse=True)
def _state_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def night(finished: int = 10, text: str = "") -> Fake:
    """A run that has worked for two hours and more, one proposal every twelve minutes."""
    fake = Fake(text)
    fake.now = time.time() - finished * 720 - 100
    fake.start()
    for number in range(finished):
        name = f"e{number + 1:04}"
        program = fake.propose(name, number)
        fake.train(name, program, 0)
        fake.score(name, number / 10, 0.04, 3)
        fake.record(ev.ExperimentClosed(name, "ranked"), 720 - 60)
    return fake


# --- forecasts -------------------------------------------------------------------------------------------------------


def test_a_forecast_follows_the_recent_pace() -> None:
    fake = night(20)
    now = fake.now
    config = RunConfig(budget=Budget(experiments=30, wall_hours=8, cpu_hours=0.5))
    found = {one.currency: one for one in forecasts(fake.state, config, now)}
    assert set(found) == {"cpu hours", "wall hours", "experiments"}
    experiments = found["experiments"]
    assert (experiments.used, experiments.cap, experiments.experiments) == (20, 30, 10)
    assert experiments.rate == pytest.approx(5.0, rel=0.15)
    assert experiments.seconds == pytest.approx(2 * 3600, rel=0.15)
    assert "≈ 10 more experiments" in experiments.text
    wall = found["wall hours"]
    assert wall.seconds == pytest.approx(8 * 3600 - 20 * 720, rel=0.05)
    assert wall.spent.endswith("of 8 h 00 min")
    cpu = found["cpu hours"]
    assert cpu.used == pytest.approx(20 * 44.2 / 3600)
    assert cpu.experiments == pytest.approx((0.5 * 3600 - 20 * 44.2) / 44.2, abs=3)


def test_nothing_is_foretold_from_too_little() -> None:
    fake = Fake().start()
    config = RunConfig(budget=Budget(experiments=30, cpu_hours=1))
    found = forecasts(fake.state, config, fake.now + 60)
    assert pace(fake.state, fake.now + 60) is None
    assert all(one.seconds is None for one in found if one.currency != "wall hours")
    assert "too little is known" in next(one.text for one in found if one.currency == "cpu hours")
    assert forecasts(RunState(), RunConfig(), 0.0) == []


def test_a_cap_that_is_reached_is_said_to_be() -> None:
    fake = night(5)
    (one,) = [
        one for one in forecasts(fake.state, RunConfig(budget=Budget(cpu_hours=0.01)), fake.now)
        if one.currency == "cpu hours"
    ]  # fmt: skip
    assert one.text == "the cap is reached"
    assert one.share > 1


def test_a_paused_run_is_not_given_a_time_of_day() -> None:
    fake = night(5)
    fake.record(ev.RunPaused("lunch"))
    config = RunConfig(budget=Budget(wall_hours=8))
    (wall,) = [one for one in forecasts(fake.state, config, fake.now) if one.currency == "wall hours"]
    assert "of work to the cap" in wall.text


def test_the_first_end_that_is_set_counts() -> None:
    fake = night(4)
    config = RunConfig(loop=Loop(experiments=8), budget=Budget(experiments=30))
    (one,) = [one for one in forecasts(fake.state, config, fake.now) if one.currency == "experiments"]
    assert (one.cap, one.experiments) == (8, 4)


# --- what it says ----------------------------------------------------------------------------------------------------


def test_what_holds_up_everything_comes_first_then_what_expires_soonest() -> None:
    fake = Fake().busy()
    fake.record(ev.ApprovalRequested("r9", "e0005", "f" * 64, "probe", "late", time.time() + 60))
    fake.record(ev.RunPaused("budget"))
    found = briefing.brief(fake.state, RunConfig(), time.time(), None)
    assert found.needs[0].text.startswith("everything waits: paused, budget")
    # r1 and r2 were asked for with the same patience; what is left to the newest is least.
    assert [one.target for one in found.needs[1:]] == ["r9", "r1", "r2"]
    latched = briefing.needs(fake.state, RunConfig(), time.time(), Situation("Emergency stop by ada"))
    assert "Emergency stop by ada" in latched[0].text
    dead = Fake().start().state
    assert "the engine is not alive" in briefing.needs(dead, RunConfig(), 0.0, Situation(alive=False))[0].text


def test_all_places_waiting_is_said() -> None:
    fake = Fake().busy()
    found = briefing.needs(fake.state, RunConfig(loop=Loop(concurrency=2)), time.time(), Situation())
    assert "all 2 places wait" in found[0].text


def test_arming_that_failed_is_told() -> None:
    fake = Fake()
    fake.record(ev.RunCreated("quiet-heron", 1, "0.1.0", ""))
    fake.record(ev.ArmingFailed("an attack got through"))
    assert "an attack got through" in briefing.needs(fake.state, RunConfig(), fake.now, Situation())[0].text


def test_only_what_happened_since_is_told() -> None:
    fake = night(10)
    before = fake.state.experiments["e0007"].changed + 1
    found = briefing.changed(fake.state, before)
    assert found[0].text == "3 finished: 3 ranked"
    assert found[1].text.startswith("new best: e0010 +0.90 ±0.04 (its interval excludes zero)")
    assert "before: e0007 +0.60" in found[2].text
    assert "do not overlap" in found[2].text
    assert [one.target for one in found[3:5]] == ["e0009", "e0008"]
    later = briefing.changed(fake.state, fake.now + 1)
    assert [one.text for one in later] == ["nothing was finished"]


def test_a_best_that_may_be_noise_is_not_sold_as_one() -> None:
    fake = night(3)
    before = fake.now + 0.5
    fake.propose("e0100", 0)
    fake.score("e0100", 0.3, 2.0, 2)
    fake.record(ev.ExperimentClosed("e0100", "ranked"))
    found = briefing.changed(fake.state, before)
    assert "may be noise" in found[1].text
    assert "overlap: not told apart" in found[2].text


def test_failures_are_grouped_and_duplicates_have_a_share() -> None:
    fake = night(2)
    for number, (outcome, reason) in enumerate(
        (("failed", "causal: moved"), ("failed", "causal: leak"), ("rejected", "by ada"), ("duplicate", ""))
    ):
        fake.record(ev.ExperimentOpened(f"x{number}", "evolver"))
        fake.record(ev.ExperimentClosed(f"x{number}", outcome, reason))  # type: ignore[arg-type]
    told = [one.text for one in briefing.changed(fake.state, 0.0)]
    assert "not trained to the end: causal 2, by ada 1" in told
    assert "duplicates: 1 of 6 proposals (17%)" in told


def test_cheats_stand_before_errors_and_warnings() -> None:
    fake = Fake().busy()
    fake.record(ev.NoteAdded("disk slow", "error"))
    fake.record(ev.TrialFailed("e0005-s0", "e0005", "the points do not match", cheat=True))
    found = briefing.anomalies(fake.state, 0.0)
    assert found[0].text.startswith("CHEAT")
    assert found[0].target == "e0005"
    assert "disk slow" in found[1].text
    assert "parity is at chance" in found[2].text
    assert briefing.anomalies(fake.state, fake.now + 1) == []


# --- when one last looked --------------------------------------------------------------------------------------------


def test_the_last_look_is_kept_for_each_run_and_only_for_its_owner(tmp_path: Path) -> None:
    root, other = tmp_path / "a" / "run", tmp_path / "b" / "run"
    root.mkdir(parents=True)
    assert last_seen(root) is None
    assert remember_seen(root, 1_000.0) == ""
    assert last_seen(root) == 1_000.0
    assert last_seen(other) is None
    assert os.stat(seen_path(root)).st_mode & 0o777 == 0o600
    assert remember_seen(other, 1.0).endswith("is not there")
    for content in (b"", b"[]", b'{"run":"x","time":1e99}', b"\xff"):
        seen_path(root).write_bytes(content)
        assert last_seen(root) is None


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("30m", 1800), ("8h", 28800), ("2d", 172800)])
def test_durations(text: str, seconds: float) -> None:
    assert duration(text) == seconds


# --- the screen ------------------------------------------------------------------------------------------------------


async def test_a_night_is_one_page_of_24_lines() -> None:
    fake = night(12)
    app = app_for(fake)
    app.config = RunConfig(budget=Budget(experiments=100, wall_hours=12, cpu_hours=8))
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        await pilot.press("b")
        await until(pilot, lambda: "since the run began" in picture(app))
        shown = picture(app)
        for text in ("needs you", "12 finished: 12 ranked", "new best: e0012", "device time", "cap at", "next"):
            assert text in shown
        await pilot.press("m")
        await settled(pilot)
        await pilot.press("G", "g", "pagedown", "pageup", "m", "escape")
        await settled(pilot)
        assert app.screen.NAME == "Mission"  # type: ignore[attr-defined]


async def test_read_moves_the_beginning_and_enter_opens(tmp_path: Path) -> None:
    root = tmp_path / "quiet-heron"
    root.mkdir()
    app = app_for(Fake().busy(), root)
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        await pilot.press("b")
        await until(pilot, lambda: "4 finished" in picture(app))
        await pilot.press("a")
        await until(pilot, lambda: "nothing was finished" in picture(app))
        assert last_seen(root) == pytest.approx(time.time(), abs=30)
        await pilot.press("escape", "b")
        await until(pilot, lambda: "nothing was finished" in picture(app))
        screen = app.screen
        assert isinstance(screen, BriefScreen)
        screen.look_back(0.0)
        await pilot.press("down", "down", "down", "enter")
        await settled(pilot)
        assert isinstance(app.screen, ExperimentScreen)


async def test_leaving_is_the_last_look(tmp_path: Path) -> None:
    root = tmp_path / "quiet-heron"
    root.mkdir()
    app = app_for(Fake().start(), root)
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        await pilot.press("q")
    for _ in range(100):
        if last_seen(root) is None:
            await asyncio.sleep(0.05)
    assert last_seen(root) == pytest.approx(time.time(), abs=30)


@pytest.mark.parametrize("size", [(60, 16), (80, 24), (160, 45), (250, 70)])
@pytest.mark.parametrize("kind", ["start", "busy"])
async def test_the_brief_fits(size: tuple[int, int], kind: str) -> None:
    fake = getattr(Fake(EVIL * 2), kind)()
    app = app_for(fake)
    async with app.run_test(size=size) as pilot:
        await settled(pilot)
        await pilot.press("b")
        await settled(pilot)
        lines = painted(app)
        assert len(lines) == size[1]
        assert "needs you" in lines[1]
        assert all(harmless(line) for line in lines)
    assert fake.orders == []


def test_twenty_thousand_experiments_are_told_quickly() -> None:
    fake = night(3)
    one = fake.state.experiments["e0003"]
    for number in range(20_000):
        name = f"g{number:05}"
        fake.state.experiments[name] = msgspec.structs.replace(one, id=name, trials=[])
    begin = time.monotonic()
    briefing.brief(fake.state, RunConfig(budget=Budget(cpu_hours=3)), time.time(), None)
    assert time.monotonic() - begin < 1.5


# --- the shell -------------------------------------------------------------------------------------------------------


def test_the_shell_prints_the_same_without_an_engine(tmp_path: Path, capsys: Any) -> None:
    root = tmp_path / "idle"
    root.mkdir()
    (root / "run.toml").write_text('name = "idle"\n[budget]\nexperiments = 9\n')
    with Journal.open(root / "journal") as book:
        for record in Fake(EVIL).busy().records:
            book.append(record.data, "engine")
    assert main(["brief", str(root)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert all(harmless(line) for line in said)
    assert "needs you" in said
    assert any("the engine is not alive" in line for line in said)
    assert any("new best" in line for line in said)
    assert main(["brief", str(root), "--json", "--since", "1s"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["since_known"] is True
    assert {one["currency"] for one in found["spending"]} >= {"experiments", "disk GB"}
    assert last_seen(root) is None
    with pytest.raises(SystemExit):
        main(["brief", str(root), "--since", "soon"])
