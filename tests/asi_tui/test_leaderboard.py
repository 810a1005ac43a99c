"""Screen 5 pressed like a person presses it: pages, order, condition, columns, comparison, front, questions, files."""

from __future__ import annotations

import csv
import io
import json
import time
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

from asi_tui.preferences import load_preferences, preferences_path
from asi_tui.screens.experiment import ExperimentScreen
from asi_tui.screens.leaderboard import LeaderboardScreen
from asi_tui.screens.leaderboard.compare import CompareScreen
from asi_tui.screens.leaderboard.pareto import COSTS, ParetoScreen, front_of
from asi_tui.screens.leaderboard.sql import SqlScreen
from asi_tui.screens.leaderboard.standing import (
    Best,
    difference,
    look_through,
    seeds_to_separate,
    sign,
    task_difference,
)
from engine.client.protocol import BoardRow, TaskGain
from store import events as ev
from store.state import Experiment
from tests.asi_tui.fakes import Fake, app_for
from tests.asi_tui.test_app import painted, picture, settled, until
from tests.asi_tui.test_safe import HOSTILE

BEST = Best("e1", 2.0, 1.5, 2.5, 3, 0)


def one(name: str = "e2", score: float = 1.0, half: float | None = 0.3, seeds: int = 3, **more: Any) -> BoardRow:
    low, high = (None, None) if half is None else (score - half, score + half)
    return BoardRow(name, score, low=low, high=high, seeds=seeds, **more)


# --- how rows stand --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (one("e1", 2.0, 0.5), "★"),
        (one(score=1.4), "~"),
        (one(score=0.9), " "),
        (one(score=1.9, half=None, seeds=1), "?"),
        (one(score=9.0, half=0.1, seeds=1), "?"),
        (one(score=9.0, half=0.1, origin="baseline"), "↑"),
    ],
)
def test_signs_say_what_is_known(row: BoardRow, expected: str) -> None:
    assert sign(row, BEST) == expected


def test_one_seed_is_never_the_best() -> None:
    fake = Fake().start()
    for name, value, seeds in (("e1", 1.0, 3), ("e2", 5.0, 1)):
        fake.propose(name, 0)
        fake.score(name, value, 0.5, seeds)
    from asi_tui.model import Model

    model = Model("x")
    model.state = fake.state
    found = look_through(model)
    assert found.best is not None
    assert found.best.experiment == "e1"
    assert found.ranked == 2


def test_more_seeds_are_asked_for_the_smaller_the_gap_is() -> None:
    near, far = seeds_to_separate(one(score=1.9), BEST), seeds_to_separate(one(score=1.0), BEST)
    assert near > far >= 2
    assert seeds_to_separate(one(score=2.0), BEST) == 0
    assert seeds_to_separate(one(score=1.0, half=None, seeds=1), BEST) >= 2


def test_differences_prefer_what_was_measured_in_pairs() -> None:
    child = one("c", 2.0, 0.3, parent="p", against_parent=0.5, against_parent_low=0.1, against_parent_high=0.9)
    parent = one("p", 1.2, 0.4)
    assert difference(child, parent) == (0.5, 0.1, 0.9, True)
    assert difference(parent, child) == (-0.5, -0.9, -0.1, True)
    free = difference(parent, one("x", 0.2, 0.3))
    assert (free.value, free.paired) == (pytest.approx(1.0), False)
    assert free.high == pytest.approx(1.5)
    assert difference(parent, one("y", 0.0, None)).low is None
    gains = [[TaskGain("recall", value, 0.1)] for value in (0.4, 0.1)]
    found = task_difference(one("a", tasks=gains[0], seeds=2), one("b", tasks=gains[1], seeds=2), "recall")
    assert found is not None
    assert found.value == pytest.approx(3.0)
    assert found.high == pytest.approx(3.0 + 1.96 * 2**0.5)
    assert task_difference(one("a", tasks=[TaskGain("t", 1.0)]), one("b", tasks=[TaskGain("t", 1.0)]), "t") is None


def test_the_front_has_no_row_that_another_beats() -> None:
    rows = [one("a", 1.0, parameters=10), one("b", 2.0, parameters=20), one("c", 1.5, parameters=30),
            one("d", 9.0, parameters=5, seeds=1), one("e", 1.0, parameters=12), one("f", 3.0)]  # fmt: skip
    assert [found.experiment for found in front_of(rows, COSTS[0])] == ["a", "b"]


# --- the table -------------------------------------------------------------------------------------------------------


async def test_the_empty_board_says_so() -> None:
    app = app_for(Fake().start())
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        await pilot.press("5", "s", "o", "m", "=", "v", "e", "j", "enter", "c")
        await settled(pilot)
        assert "nobody is ranked yet" in picture(app)


async def test_intervals_signs_and_words_at_80_columns() -> None:
    app = app_for(Fake().busy())
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        await pilot.press("5")
        await settled(pilot)
        lines = painted(app)
        assert "★" in lines[3]
        assert "●" in lines[3]
        assert "?" in lines[5][:4]
        shown = picture(app)
        assert "95 % interval +1.42 to +2.22 over 3 seeds" in shown
        assert "the best proposal" in shown
        await pilot.press("j", "j", "j")
        assert "worse than the best, e0001" in picture(app)


async def test_sorting_and_filtering_happen_in_the_engine() -> None:
    fake = Fake().busy()
    app = app_for(fake)
    async with app.run_test(size=(100, 30)) as pilot:
        await settled(pilot)
        await pilot.press("5")
        await until(pilot, lambda: "7 rows" in picture(app))  # before there are rows there is nothing to sort
        await pilot.press("s", "s")
        await until(pilot, lambda: "by score" in picture(app))
        await pilot.press("f", *"seeds>2", "enter")
        await until(pilot, lambda: "where seeds>2" in picture(app))
        assert "7 in all" in picture(app)
        assert "e0003" not in picture(app)
        await pilot.press("f", "ctrl+u", *"nonsense(", "enter")
        await until(pilot, lambda: "refused:" in picture(app))
        assert "where seeds>2" in picture(app)
        assert "e0001" in picture(app)
        await pilot.press("f", "ctrl+u", *"seeds>99", "enter")
        await until(pilot, lambda: "no row satisfies" in picture(app))
        await pilot.press("f", "ctrl+u", "enter")
        await until(pilot, lambda: "7 rows" in picture(app))
        asked = [(target, fields["reverse"], fields["where"]) for name, target, fields in fake.asked
                 if name == "leaderboard"]  # fmt: skip
        assert ("score", False, "seeds>2") in asked
        await pilot.press("o")
        await until(pilot, lambda: "reversed" in picture(app))


async def test_the_cursor_stays_with_its_experiment_while_rows_move() -> None:
    fake = Fake().busy()
    app = app_for(fake)
    async with app.run_test(size=(100, 30)) as pilot:
        await settled(pilot)
        await pilot.press("5")
        await settled(pilot)
        await pilot.press("j", "j", "j")
        screen = app.screen
        assert isinstance(screen, LeaderboardScreen)
        chosen, before = screen.cursor, screen.index
        assert chosen == "e0003"
        tasks = [ev.TaskDifference("recall", 0.1, 0.02)]
        fake.send(ev.ExperimentScored("e0003", "probe", 4.0, 3.5, 4.5, 3, tasks))
        await until(pilot, lambda: screen.index != before)
        assert (screen.cursor, screen.index) == (chosen, 0)


async def test_columns_are_chosen_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    app = app_for(Fake().busy())
    async with app.run_test(size=(160, 45)) as pilot:
        await settled(pilot)
        await pilot.press("5")
        await settled(pilot)
        assert "tok/s" in picture(app)
        screen = app.screen
        assert isinstance(screen, LeaderboardScreen)
        await pilot.press("c")
        for _ in range(40):
            if screen.chooser is not None and screen.chooser._names[screen.chooser.at - 1] == "speed":
                break
            await pilot.press("j")
        await pilot.press("space", "k", "enter")
        await until(pilot, lambda: preferences_path().exists())
        await pilot.pause(0.2)
        assert "tok/s" not in painted(app)[2]
        assert "speed" not in load_preferences().columns
        assert "seeds" in load_preferences().columns


async def test_marked_rows_are_compared_side_by_side() -> None:
    app = app_for(Fake().busy())
    async with app.run_test(size=(100, 30)) as pilot:
        await settled(pilot)
        await pilot.press("5")
        await settled(pilot)
        await pilot.press("m", "down", "down", "space", "=")
        await settled(pilot)
        await settled(pilot)
        assert isinstance(app.screen, CompareScreen)
        page = app.screen.copied()
        for words in ("e0003", "in quadrature", "state floats", "program of e0003 against e0001", "training loss"):
            assert words in page
        await pilot.press("m", "t", "G")
        assert "sealed score" in app.screen.copied()
        await pilot.press("escape")
        await settled(pilot)
        assert "2 marked" in picture(app)
        await pilot.press("escape", "g", "=")
        await settled(pilot)
        assert isinstance(app.screen, CompareScreen)
        assert "paired" in app.screen.copied()


async def test_the_front_is_drawn_and_opens() -> None:
    app = app_for(Fake().busy())
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        await pilot.press("5")
        await settled(pilot)
        await pilot.press("v")
        await until(pilot, lambda: "on the front" in picture(app) and isinstance(app.screen, ParetoScreen))
        for name in ("training FLOPs", "state", "CPU time", "slowness", "parameters"):
            await pilot.press("x")
            await until(pilot, lambda name=name: f"against {name}" in picture(app))
        await settled(pilot)
        await pilot.press("j", "k", "end", "enter")
        await settled(pilot)
        assert isinstance(app.screen, ExperimentScreen)


async def test_free_questions_scroll_and_remember(tmp_path: Path) -> None:
    SqlScreen.history.clear()
    app = app_for(Fake().busy())
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        await pilot.press("5")
        await settled(pilot)
        await pilot.press("Q", *"select * from leaderboard", "enter")
        await until(pilot, lambda: "7 rows" in picture(app))
        assert "experiment" in painted(app)[3]
        await pilot.press("l", "l")
        assert "column 3 of" in picture(app)
        await pilot.press("h", "h")
        await pilot.press("Q", "ctrl+u", *"select nothing from", "enter")
        await until(pilot, lambda: "refused:" in picture(app))
        await pilot.press("Q", "up", "up", "enter")
        await until(pilot, lambda: "7 rows" in picture(app))
        target = tmp_path / "answer.csv"
        await pilot.press("e", "ctrl+u", *str(target), "enter")
        await until(pilot, target.exists)
        assert len(list(csv.reader(io.StringIO(target.read_text())))) == 8
        await pilot.press("escape")
        await settled(pilot)
        assert isinstance(app.screen, LeaderboardScreen)


async def test_a_lost_line_keeps_the_rows() -> None:
    fake = Fake().busy()
    app = app_for(fake)
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        await pilot.press("5")
        await settled(pilot)
        fake.connected = False
        fake.send(ev.ExperimentScored("e0003", "probe", 4.0, 3.5, 4.5, 3, []))
        await pilot.pause(1.6)
        await pilot.press("j", "s", "v")
        await settled(pilot)
        await pilot.press("escape", "=")
        await settled(pilot)
        await pilot.press("escape")
        await settled(pilot)
        assert "e0001" in picture(app)


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
async def test_hostile_text_is_inert(text: str) -> None:
    fake = Fake(text.encode("utf-8", "replace").decode() * 3).busy()
    app = app_for(fake)
    async with app.run_test(size=(160, 40)) as pilot:
        await settled(pilot)
        for keys in (("5",), ("=",), ("escape", "v"), ("escape", "c"), ("escape", "Q", *"select * from leaderboard"),
                     ("enter",)):  # fmt: skip
            await pilot.press(*keys)
            await settled(pilot)
            shown = picture(app)
            assert all(unicodedata.category(c) not in ("Cc", "Cf", "Cs") or c == "\n" for c in shown), keys
            assert len(painted(app)) == 40
    assert fake.orders == []


@pytest.mark.parametrize("size", [(60, 16), (80, 24), (131, 30), (200, 50), (250, 70)])
async def test_every_screen_fits_every_size(size: tuple[int, int]) -> None:
    app = app_for(Fake().busy())
    async with app.run_test(size=size) as pilot:
        await settled(pilot)
        for keys in (("5",), ("c",), ("escape", "="), ("escape", "v"), ("escape", "Q", "escape")):
            await pilot.press(*keys)
            await settled(pilot)
            lines = painted(app)
            assert len(lines) == size[1]
            assert "STOP" in lines[-1]


# --- twenty thousand rows --------------------------------------------------------------------------------------------


class Big(Fake):
    """Twenty thousand ranked experiments, with answers made ahead."""

    def many(self, count: int = 20_000) -> Big:
        self.start()
        self.rows: list[dict[str, Any]] = []
        for index in range(count):
            name, score = f"e{index + 1:05}", 3.0 - index / 4_000
            scored = ev.ExperimentScored(name, "probe", score, score - 0.3, score + 0.3, 3, [])
            self.state.experiments[name] = Experiment(
                name, "evolver", title=f"Design {index}", step="closed", outcome="ranked", scored=scored
            )
            tasks = [{"task": task, "difference": score / 9, "noise": 0.1} for task in ("recall", "lm")]
            self.rows.append({"experiment": name, "score": score, "rank": index + 1, "title": f"Design {index}",
                              "low": score - 0.3, "high": score + 0.3, "seeds": 3, "parameters": 10_000 + index * 7919
                              % 9_973, "tasks": tasks, "origin": "evolver"})  # fmt: skip
        return self

    def _board(self, target: str, reverse: bool = False, where: str = "", offset: int = 0, limit: int = 200,
               **_: Any) -> str:  # fmt: skip
        return json.dumps({"rows": self.rows[offset : offset + limit], "total": len(self.rows)})


async def test_twenty_thousand_rows_never_stall(tmp_path: Path) -> None:
    fake = Big().many()
    app = app_for(fake)
    async with app.run_test(size=(200, 50)) as pilot:
        await until(pilot, lambda: app.model.known, 30)
        await pilot.pause(0.3)
        begun = time.monotonic()
        await pilot.press("5")
        await until(pilot, lambda: "Design 0" in picture(app))
        assert time.monotonic() - begun < 3.0
        screen = app.screen
        assert isinstance(screen, LeaderboardScreen)
        spent = []
        for index in range(20):
            screen.move(900 if index % 2 else -850)
            begun = time.perf_counter()
            screen.body(200, 46)
            spent.append(time.perf_counter() - begun)
            await pilot.pause(0.02)
        assert sorted(spent)[len(spent) // 2] < 0.1
        await pilot.press("G")
        await until(pilot, lambda: "Design 19999" in picture(app))
        assert all(fields["limit"] <= 1_000 for name, _, fields in fake.asked if name == "leaderboard")
        target = tmp_path / "all.parquet"
        await pilot.press("e", "ctrl+u", *str(target), "enter")
        await until(pilot, target.exists, 30)
        assert parquet.read_table(target).num_rows == 20_000
        await pilot.press("v")
        await until(pilot, lambda: "of 20,000 on the front" in picture(app), 30)
