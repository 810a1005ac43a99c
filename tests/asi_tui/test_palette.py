"""Everything that can be done, by name."""

from __future__ import annotations

import time
from typing import Any

import msgspec
import pytest

from asi_tui.screens.approvals import ApprovalsScreen
from asi_tui.screens.experiment import ExperimentScreen
from asi_tui.screens.palette import MOST, PaletteScreen, best_things, rank
from asi_tui.screens.short import SMALLEST
from tests.asi_tui.fakes import Fake, app_for
from tests.asi_tui.test_app import painted, picture, quiet, settled, until
from tests.asi_tui.test_safe import HOSTILE, harmless

EVIL = " ".join(text for name, text in HOSTILE.items() if name != "surrogate")


def test_nearer_matches_rank_first() -> None:
    texts = ["gated delta rule", "delta rule", "wood tar", "dry lentil tea", "nothing"]
    found = sorted((place, text) for text in texts if (place := rank("delt", text)) is not None)
    assert [text for _, text in found] == ["delta rule", "gated delta rule", "dry lentil tea"]
    assert rank("dr", "delta rule") is not None
    assert rank("a b", "axxb") is not None
    assert rank("[.*", "x[y.z*") is not None


async def palette(pilot: Any) -> PaletteScreen:
    await settled(pilot)
    await pilot.press("ctrl+p")
    await settled(pilot)
    assert isinstance(pilot.app.screen, PaletteScreen)
    return pilot.app.screen


async def test_letters_find_and_enter_opens() -> None:
    fake = Fake().busy()
    app = app_for(fake)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await palette(pilot)
        await pilot.press(*"qhousx", "backspace", "ctrl+w", *"househ")
        await settled(pilot)
        assert screen.filter == "househ"
        await pilot.press("enter")
        await settled(pilot)
        assert isinstance(app.screen, ExperimentScreen)
        assert app.screen.experiment == "e0003"
        await palette(pilot)
        await pilot.press(*"r2", "enter")
        await settled(pilot)
        assert isinstance(app.screen, ApprovalsScreen)
        assert app.screen.chosen == "r2"
    assert {name for name, _ in fake.orders} <= {"look"}


async def test_moving_and_closing_do_nothing_else() -> None:
    fake = Fake().busy()
    app = app_for(fake)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await palette(pilot)
        await pilot.press("down", "ctrl+n", "tab", "up")
        assert screen.cursor == 2
        await pilot.press("ctrl+p", "pagedown", "end", "home")
        assert screen.cursor == 0
        await pilot.press(*"zzzzqqq", "enter")
        await settled(pilot)
        assert app.screen.NAME == "Mission"  # type: ignore[attr-defined]
        await palette(pilot)
        await pilot.press("p", "q", "S", "escape")
        await settled(pilot)
        assert app.screen.NAME == "Mission"  # type: ignore[attr-defined]
        assert app.is_running
    assert fake.orders == []


async def test_commands_and_keys_of_the_screen_it_came_from_run() -> None:
    fake = Fake().busy()
    app = app_for(fake)
    async with app.run_test(size=(100, 30)) as pilot:
        await palette(pilot)
        await pilot.press(*"freeze", "enter")
        await until(pilot, lambda: fake.orders)
        assert fake.orders[0][0] == "freeze"
        await pilot.press("8")
        await palette(pilot)
        await pilot.press(*"check chain", "enter")
        await until(pilot, lambda: "good up to" in picture(app))
        await palette(pilot)
        await pilot.press(*"knowledge", "enter")
        await settled(pilot)
        assert app.screen.NAME == "Knowledge"  # type: ignore[attr-defined]


async def test_nothing_is_approved_from_here() -> None:
    fake = Fake().busy()
    app = app_for(fake)
    async with app.run_test(size=(100, 30)) as pilot:
        await settled(pilot)
        await pilot.press("2", "right")
        await quiet(pilot)
        screen = await palette(pilot)
        await pilot.press(*"approve")
        await settled(pilot)
        assert all(one.shown != "a" for one in screen.choices())
        await quiet(pilot)
        await pilot.press("enter")
        await settled(pilot)
    assert [name for name, _ in fake.orders if name == "approve"] == []


async def test_what_cannot_be_seen_is_not_done() -> None:
    fake = Fake().busy()
    app = app_for(fake)
    async with app.run_test(size=(SMALLEST[0] - 1, SMALLEST[1])) as pilot:
        await palette(pilot)
        await pilot.press(*"freeze", "enter")
        await settled(pilot)
    assert fake.orders == []


async def test_the_stop_key_works_over_it() -> None:
    app = app_for(Fake().busy())
    async with app.run_test(size=(80, 24)) as pilot:
        await palette(pilot)
        await pilot.press("f12")
        await until(pilot, lambda: app.emergency.pressed)


@pytest.mark.parametrize("size", [(60, 16), (80, 24), (160, 45), (250, 70)])
async def test_it_fits_and_hostile_titles_are_inert(size: tuple[int, int]) -> None:
    app = app_for(Fake(EVIL).busy())
    async with app.run_test(size=size) as pilot:
        await palette(pilot)
        await pilot.press(*"e000")
        await settled(pilot)
        lines = painted(app)
        assert len(lines) == size[1]
        assert all(harmless(line) for line in lines)
        await pilot.click(offset=(5, 4))
        await settled(pilot)


async def test_twenty_thousand_experiments_are_searched_quickly() -> None:
    fake = Fake().busy()
    one = fake.state.experiments["e0003"]
    for number in range(20_000):
        name = f"g{number:05}"
        fake.state.experiments[name] = msgspec.structs.replace(one, id=name, title=f"{one.title} {number}", trials=[])
    app = app_for(fake)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await palette(pilot)
        for letters in ("e", "de", "dphh", "g19999", "zqx"):
            begin = time.monotonic()
            found = best_things(letters, screen._things)
            assert time.monotonic() - begin < 0.5
            assert len(found) <= MOST
        assert best_things("g19999", screen._things)[0][1].id == "g19999"
