"""What the scaling screen says of made-up runs whose truth is known, and how it is drawn."""

from __future__ import annotations

import math
import random
import time
import unicodedata
from typing import Any

import numpy as np
import pytest

from asi_tui.fits import Fit, bend, curve, fit_growth
from asi_tui.growth import FEWEST_CONTROLS, Outcome, measure, observe, wilson
from asi_tui.lines import text_of, width_of
from asi_tui.plot import Band, Frame, Points, Series, Stroke, chart, plot, ticks
from asi_tui.screens.scaling import ScalingScreen
from asi_tui.screens.scaling.charts import VIEWS, Look, picture
from asi_tui.screens.scaling.sentences import hours, sentences
from store import events as ev
from tests.asi_tui.fakes import Fake, app_for
from tests.asi_tui.test_app import painted, settled, until
from tests.asi_tui.test_app import picture as screen_picture
from tests.asi_tui.test_safe import HOSTILE


def outcomes(number: int, chance: random.Random, rate: Any = 0.2, control: float = 0.1, beat: float = 0.2) -> list[Outcome]:
    """Proposals with a success of probability `rate`, perhaps one that depends on the place in the run."""
    out = []
    for index in range(number):
        better = chance.random() < (rate(index / number) if callable(rate) else rate)
        score = chance.gauss(0.8 if better else -0.5, 0.2)
        out.append(Outcome(f"e{index:05}", chance.random() < control, chance.uniform(0.02, 0.06), better, score,
                           score - 0.4, score + 0.4, chance.random() < beat))  # fmt: skip
    return out


def fitted(costs: Any, hits: Any, resamples: int = 200) -> Fit:
    found = fit_growth(list(costs), list(hits), np.random.default_rng(1), resamples)
    assert found is not None
    return found


def test_wilson_agrees_with_the_literature_and_with_statsmodels() -> None:
    # Newcombe 1998, Statistics in Medicine 17, table I, method 3.
    for hits, tries, low, high in ((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611),
                                   (1, 29, 0.0061, 0.1718)):  # fmt: skip
        found = wilson(hits, tries)
        assert (round(found.low, 4), round(found.high, 4)) == (low, high)
    proportion = pytest.importorskip("statsmodels.stats.proportion")
    for hits, tries in ((1, 12), (12, 12), (7, 50), (0, 3)):
        low, high = proportion.proportion_confint(hits, tries, method="wilson")
        assert wilson(hits, tries)[1:] == pytest.approx((low, high), abs=1e-9)
    assert wilson(0, 0)[1:] == (0.0, 1.0)


def test_the_bend_solves_its_equation_and_agrees_with_a_search_by_force() -> None:
    for u in (0.01, 0.5, 2.0, 9.0, 80.0):
        assert float(bend(1 / u - 1 / math.expm1(u))) == pytest.approx(u, rel=1e-3)
    assert float(bend(0.5)) == float(bend(0.7)) == 0.0
    places = np.array([0.05, 0.1, 0.2, 0.25, 0.5, 0.9])

    def likelihood(u: float) -> float:
        ceiling = len(places) / -math.expm1(-u)
        return len(places) * math.log(ceiling * u) - u * places.sum()

    grid = np.linspace(0.01, 20, 20_000)
    best = grid[int(np.argmax([likelihood(u) for u in grid]))]
    assert float(bend(places.mean())) == pytest.approx(best, abs=2e-3)


def test_saturating_runs_give_back_their_ceiling_and_scale_and_the_intervals_cover() -> None:
    number, ceiling, scale, runs = 1_000, 300.0, 600.0, 50
    found = []
    for seed in range(runs):
        chance = random.Random(seed)
        hits = [chance.random() < ceiling / scale * math.exp(-(index + 0.5) / scale) for index in range(number)]
        fit = fitted([1.0] * number, hits, 150)
        assert fit.shape == "saturating" and fit.ceiling is not None and fit.scale is not None
        found.append((fit.ceiling, fit.scale))
        x, value, low, high = fit.band[-1]
        assert x == 1.5 * number and low <= value <= high
    # Of 50 intervals that cover in 93 of 100 cases, fewer than 42 do so once in a hundred times.
    assert sum(one.low < ceiling < one.high for one, _ in found) >= 42
    assert sum(one.low < scale < one.high for _, one in found) >= 42
    assert sum(one.value for one, _ in found) / runs == pytest.approx(ceiling, rel=0.05)
    assert sum(one.value for _, one in found) / runs == pytest.approx(scale, rel=0.08)


def test_a_constant_rate_is_a_line_and_its_interval_covers() -> None:
    covered = bends = 0
    for seed in range(60):
        chance = random.Random(seed)
        fit = fitted([1.0] * 400, [chance.random() < 0.1 for _ in range(400)], 150)
        covered += fit.rate.low <= 0.1 <= fit.rate.high
        bends += fit.shape == "saturating"
    assert covered >= 52
    assert bends <= 8


def test_the_fitted_curves_go_through_the_data_at_their_end() -> None:
    for u in (0.0, 0.3, 5.0):
        assert float(curve(8.0, 40.0, 8.0, u)) == pytest.approx(40.0)
        assert float(curve(0.0, 40.0, 8.0, u)) == 0.0
    assert float(curve(4.0, 40.0, 8.0, 0.0)) == 20.0


def test_a_fit_says_when_it_may_not_be_carried_on() -> None:
    few = fitted([1.0] * 40, [index % 8 == 7 for index in range(40)])
    assert any("only 5 candidates" in one for one in few.cautions)
    assert any("factor of" in one for one in few.cautions)
    late = fitted([1.0] * 400, [index > 300 or index % 40 == 0 for index in range(400)])
    assert any("foretold" in one for one in late.cautions)
    assert fit_growth([1.0] * 9, [True, True] + [False] * 7, np.random.default_rng(0), 10) is None
    assert fit_growth([0.0] * 9, [True] * 9, np.random.default_rng(0), 10) is None
    assert fit_growth([], [], np.random.default_rng(0), 10) is None


def test_the_comparison_with_controls_finds_a_difference_that_is_there_and_none_that_is_not() -> None:
    chance = random.Random(5)
    one = [each._replace(better=chance.random() < (0.05 if each.control else 0.4)) for each in
           outcomes(600, chance, control=0.3)]  # fmt: skip
    found = measure(one)
    assert found.difference is not None and found.difference.low > 0
    assert any("the search does better than chance" in text for text in sentences(found, "count", Look("hours", False)))
    covered = 0
    for seed in range(25):
        same = measure(outcomes(300, random.Random(seed), 0.2, control=0.3), 150)
        assert same.difference is not None
        covered += same.difference.low <= 0 <= same.difference.high
    assert covered >= 20
    few = measure([each._replace(control=index < FEWEST_CONTROLS - 1) for index, each in enumerate(one)])
    assert few.difference is None
    assert any("Too few controls" in text for text in sentences(few, "count", Look("hours", False)))


def test_the_same_outcomes_give_the_same_numbers() -> None:
    one = outcomes(200, random.Random(2))
    assert measure(one) == measure(list(one))


def test_curves_are_what_counting_gives() -> None:
    one = outcomes(300, random.Random(7))
    found = measure(one, 20)
    assert found.counts[-1].value == sum(each.better for each in one)
    assert found.counts[-1].hours == pytest.approx(sum(each.hours for each in one))
    assert found.control_counts[-1].value == sum(each.better for each in one if each.control)
    assert found.control_counts[-1].hours == pytest.approx(found.controls.hours)
    assert found.best[-1].value == max(each.score for each in one if each.score is not None)
    assert [mark.value for mark in found.best] == sorted(mark.value for mark in found.best)
    assert sum(mark.value for mark in found.beats) / len(found.beats) == pytest.approx(0.2, abs=0.08)


def test_only_proposals_that_are_over_count_and_unknown_intervals_are_no_candidates() -> None:
    fake = Fake().busy()
    found = {one.experiment: one for one in observe(fake.state)}
    assert set(found) == {"e0001", "e0002", "e0003", "e0004"}
    assert [found[name].better for name in sorted(found)] == [True, False, False, False]
    assert found["e0004"].score == 0.9 and found["e0004"].low is None
    assert found["e0001"].hours == pytest.approx(44.2 / 3600)


# --- charts ----------------------------------------------------------------------------------------------------------


def test_a_chart_has_round_ticks_and_keeps_its_size() -> None:
    assert ticks(0.0, 10.3, 6) == [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]
    assert ticks(0.0, 10.3, 5) == [0.0, 5.0, 10.0]
    layers = [Band([(0, 1, 3), (9, 5, 99)], "faint"), Stroke([(0, 0), (9, 9)], "series.0"),
              Points([(4, 4, 2, 6)], "series.1")]  # fmt: skip
    for frame in (Frame(0, 10, 0, 10, "h"), Frame(0.1, 10, 0, 10, "h", log=True), Frame(0, 10, 0, 1, "h", percent=True)):
        for width, height in ((60, 12), (24, 4), (200, 50)):
            rows = chart(layers, frame, width, height)
            assert len(rows) == height
            assert max(width_of(line) for line in rows) <= width
            assert " h" in text_of(rows[-1])
    assert "●" in "".join(map(text_of, chart(layers, Frame(0, 10, 0, 10, "h"), 60, 12)))
    assert text_of(chart(layers, Frame(0, 0, 0, 10, "h"), 60, 12)[0]) == "no room for a chart"


def test_a_straight_line_is_drawn_from_corner_to_corner() -> None:
    rows = [text_of(line)[9:] for line in chart([Stroke([(0, 0), (1, 1)], "")], Frame(0, 1, 0, 1, ""), 50, 11)][:-1]
    starts = [len(line) - len(line.lstrip(" \u2800")) for line in rows]
    assert starts == sorted(starts, reverse=True)
    assert rows[-1][0] != " " and rows[0][-1] != " "


def test_the_old_plot_still_draws() -> None:
    assert len(plot([Series("a", [(0, 1), (5, 2)], 0)], 60, 10, "steps")) == 10


def test_pictures_of_every_view_and_axis() -> None:
    found = measure(outcomes(300, random.Random(3), lambda place: 0.4 * math.exp(-3 * place)))
    for view in VIEWS:
        for clock in ("hours", "experiments"):
            for log in (False, True):
                rows = picture(found, view, Look(clock, log), 70, 18)  # type: ignore[arg-type]
                assert len(rows) == 18
                assert max(width_of(line) for line in rows) <= 70
                assert all(isinstance(text, str) for text in sentences(found, view, Look(clock, log)))  # type: ignore[arg-type]
    assert hours(0.5) == "30 min" and hours(4.2) == "4.2 h"


# --- the screen ------------------------------------------------------------------------------------------------------


class Long(Fake):
    """A run of many proposals."""

    def run(self, number: int) -> Long:
        self.start()
        chance = random.Random(1)
        self.record(ev.ExperimentOpened("b0", "baseline"))
        for index in range(number):
            name, trial = f"e{index:05}", f"e{index:05}-s0"
            control = chance.random() < 0.15
            self.record(ev.ExperimentOpened(name, "control" if control else "evolver", "b0", control=control))
            self.record(ev.ProposalDrafted(name, self.text or f"title {index}", "", "", "p"))
            self.record(ev.TrialStarted(trial, name, "p", "probe", 0, "L2"))
            self.record(ev.TrialFinished(trial, name, "p", "probe", 0, [], 1, 1.0, 1, 1, chance.uniform(60, 200), 1.0,
                                         "d", "p", "r"))  # fmt: skip
            value = chance.gauss(0.0, 0.6)
            self.record(ev.ExperimentScored(name, "probe", value, value - 0.5, value + 0.5, 2, [], value / 2,
                                            value / 2 - 0.4, value / 2 + 0.4))  # fmt: skip
            self.record(ev.ExperimentClosed(name, "ranked"))
        return self


async def test_an_empty_run_says_what_will_appear() -> None:
    app = app_for(Fake().start())
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        await pilot.press("7")
        await until(pilot, lambda: "Nothing to draw yet" in screen_picture(app))
        for key in ("t", "x", "l", "w", "j"):
            await pilot.press(key)
        assert isinstance(app.screen, ScalingScreen)


async def test_every_key_of_the_curves() -> None:
    app = app_for(Long().run(120))
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        await pilot.press("7")
        await until(pilot, lambda: "candidates better" in screen_picture(app))
        shown = screen_picture(app)
        for words in ("of CPU and 120 proposals", "not claims", "Random-parent controls", "per hour", "by CPU time"):
            assert words in " ".join(shown.split()), words
        await pilot.press("x")
        assert "by experiments" in screen_picture(app)
        await pilot.press("l")
        assert "by log experiments" in screen_picture(app)
        await pilot.press("t")
        assert "best score so far" in painted(app)[1]
        await pilot.press("t")
        assert "children better than their parents" in painted(app)[1]
        await pilot.press("w")
        assert "in words" in painted(app)[1]
        await pilot.press("G")
        assert "Wilson" in screen_picture(app)
        await pilot.press("g", "j", "k", "pagedown", "pageup", "w", "t")
        assert "candidates better than the baseline" in painted(app)[1]


@pytest.mark.parametrize("size", [(60, 16), (80, 24), (110, 30), (149, 40), (160, 45), (200, 50), (250, 70)])
async def test_the_curves_fit_every_size(size: tuple[int, int]) -> None:
    app = app_for(Long().run(60))
    async with app.run_test(size=size) as pilot:
        await settled(pilot)
        await pilot.press("7")
        screen = app.screen
        assert isinstance(screen, ScalingScreen)
        await until(pilot, lambda: screen.growth is not None)
        for key in ("", "t", "t", "w"):
            if key:
                await pilot.press(key)
            rows = screen.body(size[0], size[1] - 2)
            assert len(rows) <= size[1] - 2
            assert max(width_of(line) for line in rows) <= size[0]
        assert ("best score so far" in screen_picture(app)) or size[0] < 150


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
async def test_hostile_text_is_inert_beside_the_curves(text: str) -> None:
    fake = Long(text.encode("utf-8", "replace").decode()).run(15)
    app = app_for(fake)
    async with app.run_test(size=(160, 40)) as pilot:
        await settled(pilot)
        await pilot.press("7")
        await until(pilot, lambda: "candidates better" in screen_picture(app))
        assert all(unicodedata.category(c) not in ("Cc", "Cf", "Cs") or c == "\n" for c in screen_picture(app))
    assert fake.orders == []


async def test_twenty_thousand_proposals_are_measured_beside_the_screen() -> None:
    app = app_for(Long().run(20_000))
    async with app.run_test(size=(160, 45)) as pilot:
        await settled(pilot)
        await pilot.press("7")
        screen = app.screen
        assert isinstance(screen, ScalingScreen)
        await until(pilot, lambda: screen.growth is not None, 60)
        begun = time.perf_counter()
        screen._drawn = (None, [])
        screen.body(160, 43)
        first = time.perf_counter() - begun
        begun = time.perf_counter()
        screen.body(160, 43)
        again = time.perf_counter() - begun
        print(f"body anew {first * 1e3:.1f} ms, again {again * 1e3:.2f} ms")
        assert first < 0.3 and again < 0.02
