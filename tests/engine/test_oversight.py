"""Caps, clocks and the dead man's switch: what counts, what does not, and what follows."""

from __future__ import annotations

import pytest

from engine.supervision.deadman import DeadMan
from engine.supervision.ledger import accounts, crossed, lacking, may_open
from store import events as ev
from store.config import Budget, Deadman
from store.folding import fold
from store.journal import GENESIS
from store.state import RunState
from tests.store.history import seal_record


class Story:
    """A state told event by event, with the time of each."""

    def __init__(self) -> None:
        self.state, self.head = RunState(), GENESIS
        self.at(0, ev.RunCreated("r", ev.FORMAT, "0", ""))

    def at(self, time: float, event: ev.Event) -> None:
        record, _ = seal_record(self.state.seq + 1, 1e9 + time, "engine", event, self.head)
        self.state, self.head = fold(self.state, record), record.hash

    def proposal(self, name: str, cost: float) -> None:
        self.at(0, ev.ExperimentOpened(name, "evolver"))
        self.at(0, ev.ProposalDrafted(name, name, "", "", "p"))
        self.at(0, ev.RiskAssessed(name, "p", "probe", [], cost))


def used(story: Story, config: Budget, currency: str, now: float = 0.0) -> float:
    return next(a.used for a in accounts(story.state, config, 1e9 + now, 0.0) if a.currency == currency)


def test_time_counts_while_the_run_works_and_no_clock_that_jumps_fools_it() -> None:
    story, caps = Story(), Budget(wall_hours=10)
    story.at(0, ev.RunResumed())
    assert used(story, caps, "wall hours", 3600) == pytest.approx(1)
    story.at(3600 * 101, ev.ClockJumped(3600 * 100))  # set forward a hundred hours after the first one
    assert used(story, caps, "wall hours", 3600 * 102) == pytest.approx(2)
    story.at(3600 * 2, ev.ClockJumped(-3600 * 100))  # and back again
    assert used(story, caps, "wall hours", 3600 * 2) == pytest.approx(2)
    story.at(3600 * 2, ev.RunPaused())
    story.at(3600 * 9, ev.RunResumed())
    assert used(story, caps, "wall hours", 3600 * 10) == pytest.approx(3)
    story.at(3600 * 10, ev.RunFrozen(3))
    assert used(story, caps, "wall hours", 3600 * 20) == pytest.approx(3)


def test_caps_warn_once_then_stop_once() -> None:
    story, caps = Story(), Budget(tokens=1000, money=2.0)
    story.at(0, ev.AgentCalled("c", "e", "researcher", "llm", ""))
    story.at(0, ev.AgentReplied("c", "e", "researcher", "", 1.0, tokens_in=500, tokens_out=350, cost=0.5))
    (warning,) = crossed(story.state, accounts(story.state, caps, 1e9, 0.0))
    assert (warning.currency, warning.used, warning.hard) == ("tokens", 850, False)
    story.at(1, warning)
    assert crossed(story.state, accounts(story.state, caps, 1e9, 0.0)) == []
    story.at(2, ev.AgentReplied("c", "e", "researcher", "", 1.0, tokens_in=200, cost=2.0))
    stops = crossed(story.state, accounts(story.state, caps, 1e9, 0.0))
    assert [(stop.currency, stop.hard) for stop in stops] == [("tokens", True), ("money", True)]


def test_what_is_in_flight_is_reserved_and_every_outcome_is_paid_for() -> None:
    story, caps = Story(), Budget(cpu_hours=1.0)
    for name in ("e1", "e2"):
        story.proposal(name, 1200.0)
        story.at(1, ev.TrialStarted(f"{name}-s0", name, "p", "probe", 0, "L2"))
    (account,) = accounts(story.state, caps, 1e9, 0.0)
    assert (account.used, account.reserved) == (0.0, pytest.approx(2 / 3))
    assert lacking(story.state, caps, 1100.0) is None
    stop = lacking(story.state, caps, 1300.0)
    assert stop is not None
    assert stop.hard
    story.at(2, ev.TrialParked("e1-s0", "e1", "engine", "c", 300.0))
    story.at(3, ev.TrialStarted("e1-s0", "e1", "p", "probe", 0, "L2", resumed=True))
    (account,) = accounts(story.state, caps, 1e9, 0.0)
    assert account.used * 3600 == pytest.approx(300)
    assert account.reserved * 3600 == pytest.approx(900 + 1200)
    story.at(4, ev.TrialFailed("e1-s0", "e1", "nan", cpu_seconds=500.0))
    story.at(5, ev.TrialKilled("e2-s0", "e2", "person:ada", 70.0))
    story.at(6, ev.ProgramVetted("e2", "p", True, [], "", seconds=30.0))
    (account,) = accounts(story.state, caps, 1e9, 0.0)
    assert (account.used * 3600, account.reserved) == (pytest.approx(600), 0.0)
    # A person who resumes beyond the cap is not asked again.
    story.at(7, stop)
    assert lacking(story.state, caps, 9999.0) is None


def test_proposals_in_flight_count_against_their_cap() -> None:
    story, caps = Story(), Budget(experiments=2)
    assert may_open(story.state, caps)
    story.proposal("e1", 1.0)
    story.proposal("e2", 1.0)
    assert not may_open(story.state, caps)
    assert may_open(story.state, Budget())


def test_the_dead_man_is_graded_and_only_renewed_by_a_person() -> None:
    now = [100.0]
    deadman = DeadMan(Deadman(pause_minutes=10, freeze_minutes=30), lambda: now[0])
    assert (deadman.stage, deadman.left("running"), deadman.left("paused")) == ("", 600.0, 1800.0)
    now[0] += 601
    assert (deadman.stage, deadman.left("running"), deadman.left("paused")) == ("pause", 0.0, 1199.0)
    now[0] += 1200
    assert (deadman.stage, deadman.left("paused"), deadman.left("frozen")) == ("freeze", 0.0, None)
    deadman.renew()
    assert (deadman.stage, deadman.left("running")) == ("", 600.0)
    off = DeadMan(Deadman(), lambda: 1e9)
    assert (off.stage, off.left("running")) == ("", None)
    eager = DeadMan(Deadman(pause_minutes=10, freeze_minutes=5), lambda: now[0])
    now[0] += 3600
    assert eager.stage == "freeze"
