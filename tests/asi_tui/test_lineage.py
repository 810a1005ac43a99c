"""The tree of experiments: what it says, how it folds, and that neither depth nor number stalls it."""

from __future__ import annotations

import random
import time
import unicodedata
from typing import Any

import pytest

from asi_tui.ancestry import COLLAPSE_FROM, POOL, Ancestry
from asi_tui.app import AsiApp
from asi_tui.folding import SHOWN_CHILDREN, Folding
from asi_tui.lines import text_of
from asi_tui.screens.experiment import ExperimentScreen
from asi_tui.screens.lineage import LineageScreen
from asi_tui.screens.lineage.path import PathScreen
from engine.sampling import branch_share
from store import events as ev
from store.folding import fold
from store.state import RunState
from tests.asi_tui.fakes import Fake, app_for
from tests.asi_tui.test_app import painted, picture, settled, until
from tests.asi_tui.test_safe import HOSTILE


class Run(Fake):
    """Grows trees quickly."""

    def seed(self) -> Run:
        self.start()
        self.record(ev.ExperimentOpened("b0", "baseline"))
        self.record(ev.ProposalDrafted("b0", "gated_deltanet", "", "", "p"))
        self.record(ev.ExperimentScored("b0", "probe", 0.0, -0.4, 0.4, 4))
        self.record(ev.ExperimentClosed("b0", "ranked"))
        return self

    def grow(self, name: str, parent: str, value: float | None = None, outcome: Any = "failed") -> None:
        """One experiment; without a value it ends as `outcome`, or stays open when that is empty."""
        self.record(ev.ExperimentOpened(name, "evolver", parent))
        self.record(ev.ProposalDrafted(name, f"title of {name}", "", "", f"program of {name}"))
        if value is not None:
            self.record(ev.ExperimentScored(name, "probe", value, value - 0.3, value + 0.3, 2, [], 0.2, -0.1, 0.5))
            self.record(ev.ExperimentClosed(name, "ranked"))
        elif outcome:
            self.record(ev.ExperimentClosed(name, outcome))


def wood(number: int, seed: int = 1) -> Run:
    """Many experiments at random."""
    run, chance = Run().seed(), random.Random(seed)
    known = ["b0"]
    for index in range(number):
        name, parent = f"e{index:05}", chance.choice(known[-200:] if chance.random() < 0.9 else known[:50])
        kind = chance.random()
        if index > number - 6:
            run.grow(name, parent, None, "")
        elif kind < 0.6:
            run.grow(name, parent, chance.gauss(index / number, 1.0))
            known.append(name)
        else:
            run.grow(name, parent, None, "failed" if kind < 0.8 else "duplicate" if kind < 0.9 else "rejected")
    return run


def summary(tree: Ancestry) -> dict[str, tuple[int, int, float]]:
    return {node.id: (node.generation, node.size, node.best) for node in tree.nodes.values()}


def brute(state: RunState) -> dict[str, tuple[int, int, float]]:
    """The same by walking up from every experiment."""
    found = {one: [0, 0, float("-inf")] for one in state.experiments}
    for one in state.experiments.values():
        score = one.scored.score if one.scored is not None and one.ranked else float("-inf")
        above: Any = one
        while above is not None:
            entry = found[above.id]
            entry[2] = max(entry[2], score)
            entry[1] += above is not one
            above = state.experiments.get(above.parent)
            found[one.id][0] += above is not None
    return {one: (entry[0], entry[1], entry[2]) for one, entry in found.items()}


def test_a_followed_tree_is_the_tree_of_the_state_at_every_moment() -> None:
    full, part, tree = wood(120), RunState(), Ancestry()
    for index, record in enumerate(full.records):
        fold(part, record)
        if index % 3 == 0:
            tree.follow(part)
    tree.follow(part)
    assert summary(tree) == brute(part)
    anew = Ancestry()
    anew.follow(part)
    assert summary(anew) == summary(tree)
    assert anew.shares()[1:] == tree.shares()[1:]
    best = next(one for one in part.ranking() if one.origin != "baseline")
    assert tree.best is not None and tree.best.id == best.id
    assert [node.id for node in sorted(tree.open.values(), key=lambda n: n.order)] == [
        one.id for one in part.experiments.values() if one.open
    ]


def test_shares_are_those_of_the_ranking_and_the_alarm_is_the_engines() -> None:
    run = wood(150)
    tree = Ancestry()
    tree.follow(run.state)
    shares = tree.shares()
    top = run.state.ranking()[:POOL]
    assert shares.pool == len(top)
    assert shares.baselines_in_pool == sum(one.origin == "baseline" for one in top)
    assert sum(share.in_pool for share in shares.branches) + shares.baselines_in_pool == len(top)
    founder, part = branch_share(run.state)
    largest = shares.largest
    assert largest is not None
    assert largest.founder.id == founder
    assert largest.scored / shares.scored == pytest.approx(part)


def test_a_score_that_is_measured_anew_moves_the_branch() -> None:
    run = Run().seed()
    run.grow("e1", "b0", 0.5)
    run.grow("e2", "b0", 0.7)
    tree = Ancestry()
    tree.follow(run.state)
    assert tree.best is not None and tree.best.id == "e2"
    run.record(ev.ExperimentScored("e2", "probe", -0.7, -1.0, -0.4, 3))
    tree.follow(run.state)
    assert tree.best is not None and tree.best.id == "e1"
    assert summary(tree) == brute(run.state)


def test_one_branch_that_owns_more_than_half_is_a_collapse() -> None:
    run = Run().seed()
    run.grow("e0", "b0", 0.1)
    for index in range(1, COLLAPSE_FROM - 1):
        run.grow(f"e{index}", f"e{index - 1}", 0.1 * index)
    tree = Ancestry()
    tree.follow(run.state)
    assert not tree.shares().collapsed
    run.grow("last", "b0", 0.3)
    tree.follow(run.state)
    assert tree.shares().collapsed


def test_what_nobody_looks_for_shares_a_line() -> None:
    run = Run().seed()
    for index in range(30):
        run.grow(f"e{index}", "b0", 1.0 - index / 30)
    run.grow("f1", "b0")
    run.grow("f2", "b0")
    run.grow("d1", "b0", None, "duplicate")
    tree, folding = Ancestry(), Folding()
    tree.follow(run.state)
    lines = folding.lines(tree)
    assert [line.kind for line in lines] == ["node"] * (1 + SHOWN_CHILDREN) + ["quiet", "dead"]
    assert len(lines[-2].members) == 30 - SHOWN_CHILDREN
    folding.turn("dead:b0", True)
    assert [line.node.id for line in folding.lines(tree)][-3:] == ["f1", "f2", "d1"]
    folding.everything()
    assert [line.key for line in folding.lines(tree)] == ["b0"]
    folding.reveal(tree, tree.nodes["e29"])
    assert "e29" in [line.key for line in folding.lines(tree)]


def test_a_line_of_thousands_of_generations_neither_recurses_nor_breaks_the_layout() -> None:
    run = Run().seed()
    run.grow("e0", "b0", 0.0)
    for index in range(1, 3_000):
        run.grow(f"e{index}", f"e{index - 1}", index / 3_000)
    tree, folding = Ancestry(), Folding()
    tree.follow(run.state)
    assert len(folding.lines(tree)) == 3_001
    assert len(tree.nodes["e2999"].path()) == 3_001


def test_a_parent_that_nobody_knows_makes_a_root() -> None:
    run = Run().seed()
    run.grow("e1", "nowhere", 0.1)
    run.grow("e2", "e2", 0.1)
    tree = Ancestry()
    tree.follow(run.state)
    assert [node.id for node in tree.roots] == ["b0", "e1", "e2"]


def lineage(app: AsiApp) -> LineageScreen:
    assert isinstance(app.screen, LineageScreen)
    return app.screen


async def test_an_empty_run_explains_itself() -> None:
    app = app_for(Fake().start())
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        await pilot.press("6")
        await settled(pilot)
        assert "become the roots" in picture(app)
        for key in ("j", "k", "h", "l", "enter", "d", "z", "*", "i", "G"):
            await pilot.press(key)
        assert isinstance(app.screen, LineageScreen)


async def test_every_key_of_the_tree() -> None:
    app = app_for(Fake().busy())
    async with app.run_test(size=(160, 45)) as pilot:
        await settled(pilot)
        await pilot.press("6")
        await settled(pilot)
        screen = lineage(app)
        shown = picture(app)
        for words in ("★ e0001", "! e0007", "asks for you", "training seed 0 43%", "+1.62 ±0.40", "better", "worse",
                      "base → e0001 ↑+1.62", "75% of all 4 scored proposals descend from e0001"):  # fmt: skip
            assert words in shown, words
        assert screen.cursor == "e0001"
        await pilot.press("h")
        assert "(7 below" in picture(app)
        await pilot.press("l", "l")
        assert screen.cursor == "e0004"
        await pilot.press("left")
        assert screen.cursor == "e0001"
        await pilot.press("i")
        assert screen.cursor == "e0005"
        await pilot.press("asterisk")
        assert screen.cursor == "e0001"
        await pilot.press("G")
        assert screen.cursor == "b2"
        await pilot.press("g", "j", "k", "pagedown", "pageup", "ctrl+d", "ctrl+u")
        assert screen.cursor == "b0"
        await pilot.press("z")
        assert "e0001" not in "".join(line[:90] for line in painted(app)[2:6])
        await pilot.press("slash", *"e0008", "enter")
        assert screen.cursor == "e0008"
        await pilot.press("z", "z", "asterisk", "enter")
        assert isinstance(app.screen, ExperimentScreen)
        await pilot.press("escape")
        assert isinstance(app.screen, LineageScreen)


async def test_the_way_from_the_root_shows_what_each_step_changed() -> None:
    app = app_for(Fake().busy())
    async with app.run_test(size=(100, 20)) as pilot:
        await settled(pilot)
        await pilot.press("6", "slash", *"e0008", "enter", "d")
        assert isinstance(app.screen, PathScreen)
        await until(pilot, lambda: "on its way" not in picture(app) and "+" in picture(app))
        assert "base → e0008, 3 steps" in picture(app)
        await pilot.press("tab")
        assert "2. e0001 → e0003" in painted(app)[2]
        await pilot.press("tab", "shift+tab", "escape")
        assert isinstance(app.screen, LineageScreen)


async def test_a_click_opens_and_a_click_on_the_mark_folds() -> None:
    app = app_for(Fake().busy())
    async with app.run_test(size=(120, 40)) as pilot:
        await settled(pilot)
        await pilot.press("6")
        await settled(pilot)
        row = next(y for y, line in enumerate(painted(app)) if "▾ ★ e0001" in line)
        column = painted(app)[row].index("▾")
        await pilot.press("j")  # a mark under the cursor belongs to the whole line
        await pilot.click(offset=(column, row))
        assert "▸ ★ e0001" in picture(app)
        await pilot.click(offset=(column + 8, row))
        assert isinstance(app.screen, ExperimentScreen)


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
async def test_hostile_text_is_inert_in_the_tree(text: str) -> None:
    fake = Fake(text.encode("utf-8", "replace").decode() * 3).busy()
    app = app_for(fake)
    async with app.run_test(size=(140, 40)) as pilot:
        await settled(pilot)
        for keys in (("6",), ("j", "j"), ("d",)):
            await pilot.press(*keys)
            await settled(pilot)
            assert all(unicodedata.category(c) not in ("Cc", "Cf", "Cs") or c == "\n" for c in picture(app))
    assert fake.orders == []


@pytest.mark.parametrize("size", [(60, 16), (61, 17), (80, 24), (119, 30), (120, 30), (160, 45), (200, 50), (250, 70)])
async def test_the_tree_fits_every_size(size: tuple[int, int]) -> None:
    run = Run().seed()
    run.grow("e0", "b0", 0.0)
    for index in range(1, 300):
        run.grow(f"e{index}", f"e{index - 1}", index / 300)
    app = app_for(run)
    async with app.run_test(size=size) as pilot:
        await settled(pilot)
        await pilot.press("6")
        await settled(pilot)
        screen = lineage(app)
        rows = screen.body(size[0], size[1] - 2)
        assert len(rows) <= size[1] - 2
        assert max(len(text_of(line)) for line in rows) <= size[0]
        assert "e299" in picture(app) and "more …" in picture(app)
        assert "⋯" in picture(app)


async def test_twenty_thousand_experiments_do_not_stall_the_screen() -> None:
    run = wood(20_000)
    app = app_for(run)
    async with app.run_test(size=(160, 45)) as pilot:
        await settled(pilot)
        await pilot.press("6")
        await until(pilot, lambda: lineage(app).line is not None)
        screen = lineage(app)
        times = []
        for index in range(5):
            run.grow(f"new{index}", "e00010", 0.1 * index)
            for record in run.records[-4:]:
                fold(app.model.state, record)
            begun = time.perf_counter()
            screen.body(160, 43)
            times.append(time.perf_counter() - begun)
        assert min(times) < 0.2
        await pilot.press("slash", *"e19990", "enter")
        assert screen.cursor == "e19990"
        print(f"body after a change: {min(times) * 1e3:.1f} ms")
