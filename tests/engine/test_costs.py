"""The predicted cost of a trial: learned from the run's own trials, with an interval that holds what it promises."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from statsmodels.regression.linear_model import OLS

from engine import costs
from store import events as ev
from store.folding import fold
from store.journal import GENESIS
from store.state import RunState
from tests.store.history import seal_record


def measure(step_seconds: float) -> float:
    return 100.0 * step_seconds


class Story:
    """A run in which programs were vetted and trained."""

    def __init__(self) -> None:
        self.state, self.head = RunState(), GENESIS
        self.tell(ev.RunCreated("r", ev.FORMAT, "0", ""))

    def tell(self, event: ev.Event) -> None:
        record, _ = seal_record(self.state.seq + 1, 1e9 + self.state.seq, "engine", event, self.head)
        self.state, self.head = fold(self.state, record), record.hash

    def program(self, name: str, step_seconds: float) -> None:
        self.tell(ev.ExperimentOpened(name, "evolver"))
        self.tell(ev.ProposalDrafted(name, name, "", "", f"p-{name}"))
        self.tell(ev.ProgramVetted(name, f"p-{name}", True, [], "", step_seconds=step_seconds))

    def trial(self, name: str, seed: int, cpu_seconds: float, tier: str = "probe", cached: bool = False) -> None:
        trial = f"{name}-s{seed}"
        self.tell(ev.TrialStarted(trial, name, f"p-{name}", tier, seed, "L2"))
        self.tell(
            ev.TrialFinished(
                trial, name, f"p-{name}", tier, seed, [], 0, 0.0, 0, 0, cpu_seconds, 1.0, "", "", "", cached=cached
            )
        )


def test_nothing_is_claimed_before_three_programs_have_been_trained() -> None:
    for ratios in ([], [2.0], [2.0, 3.0]):
        found = costs.predict(50.0, ratios)
        assert (found.cpu_seconds, found.low, found.high, found.learned) == (50.0, 0.0, 0.0, False)
        assert found.programs == len(ratios)
    assert costs.predict(50.0, [2.0, 3.0, 2.5]).learned


def test_the_interval_is_the_prediction_interval_of_a_regression_on_a_constant() -> None:
    ratios = [1.3, 1.9, 0.9, 1.4, 2.2, 1.1]
    model = OLS(np.log(ratios), np.ones(len(ratios))).fit()
    frame = model.get_prediction(np.ones((1, 1))).summary_frame(alpha=0.05)
    found = costs.predict(80.0, ratios)
    assert found.cpu_seconds == pytest.approx(80 * math.exp(frame["mean"][0]))
    assert found.low == pytest.approx(80 * math.exp(frame["obs_ci_lower"][0]))
    assert found.high == pytest.approx(80 * math.exp(frame["obs_ci_upper"][0]))


@pytest.mark.parametrize("programs", [3, 5, 30])
def test_the_next_trial_lies_within_as_often_as_is_said(programs: int) -> None:
    draw, inside, rounds = random.Random(programs), 0, 1500
    for _ in range(rounds):
        *ratios, following = (draw.lognormvariate(0.7, 0.4) for _ in range(programs + 1))
        found = costs.predict(10.0, ratios)
        inside += found.low <= 10.0 * following <= found.high
    assert inside / rounds == pytest.approx(0.95, abs=0.025)


def test_what_counts_is_the_first_trial_of_each_program_trained_here() -> None:
    story = Story()
    story.program("a", 0.5)
    story.trial("a", 0, 100.0)
    story.trial("a", 1, 900.0)  # the same program again teaches nothing new
    story.program("b", 0.2)
    story.trial("b", 0, 30.0, cached=True)  # trained in another run
    story.trial("b", 1, 60.0)
    story.program("c", 0.2)
    story.trial("c", 0, 500.0, tier="explore")
    story.program("d", 0.0)  # its step was never measured
    story.trial("d", 0, 50.0)
    story.program("e", 0.1)
    story.tell(ev.TrialStarted("e-s0", "e", "p-e", "probe", 0, "L2"))
    story.tell(ev.TrialFailed("e-s0", "e", "overrun", cpu_seconds=1e6))
    assert costs.ratios(story.state, "probe", measure) == [pytest.approx(2.0), pytest.approx(3.0)]
    assert costs.ratios(story.state, "explore", measure) == [pytest.approx(25.0)]
