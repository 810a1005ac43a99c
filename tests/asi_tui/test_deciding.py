"""What decides on the approvals screen: by risk, blind where two decide, in batches, by rule, and never by accident."""

from __future__ import annotations

import time
from typing import Any

import pytest

from asi_tui.app import AsiApp
from asi_tui.screens.approvals import ApprovalsScreen
from store import events as ev
from store.policy import parse_policy
from tests.asi_tui.fakes import PROGRAM, Fake, app_for
from tests.asi_tui.test_app import painted, picture, quiet, settled, until
from tests.asi_tui.test_supervision import typed


def ask(fake: Fake, name: str, request: str, findings: list[ev.Finding] | None = None, **more: Any) -> str:
    """One more proposal, vetted, assessed, and a request about it."""
    program = fake.propose(name, int(name[1:]), "e0001")
    fake.vet(name, program)
    fake.record(ev.RiskAssessed(name, program, "probe", findings or [ev.Finding("cost", "low", "slow")], 60.0))
    fake.record(ev.ApprovalRequested(request, name, program, "probe", "costs", time.time() + 2_000, **more))
    return program


def about(app: AsiApp, fields: dict[str, Any]) -> dict[str, Any]:
    """What an order says beside who gave it and how long they looked."""
    return {name: value for name, value in fields.items() if name not in ("who", "seconds", "seen")}


async def open_card(pilot: Any, request: str) -> ApprovalsScreen:
    app = pilot.app
    app.open(request)
    await until(pilot, lambda: isinstance(app.screen, ApprovalsScreen) and app.screen.chosen == request)
    await settled(pilot)
    await quiet(pilot)
    return app.screen


# --- how deliberate --------------------------------------------------------------------------------------------------


async def test_from_the_bell_to_a_decision_it_takes_two_keys_and_what_was_seen_is_told() -> None:
    fake = Fake().start()
    program = ask(fake, "e0001", "r1")
    app = app_for(fake)
    began = time.monotonic()
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        await pilot.press("2")
        await settled(pilot)
        shown = picture(app)
        for words in ("rule “costs” asks", "cost: slow", "about 60 s", "up by about 0.05", "The parent forgets too early"):
            assert words in shown, words
        await quiet(pilot)
        await pilot.press("a")
        await until(pilot, lambda: fake.orders)
        name, fields = fake.orders[0]
        assert (name, fields["target"], fields["program"]) == ("approve", "r1", program)
        assert 0.8 <= fields["seconds"] <= time.monotonic() - began
        assert 0.0 < fields["seen"] < 1.0


async def test_a_card_that_was_scrolled_to_its_end_is_seen_whole() -> None:
    fake = Fake().start()
    ask(fake, "e0001", "r1")
    app = app_for(fake)
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        await open_card(pilot, "r1")
        await pilot.press("pagedown", "pagedown", "end")
        await quiet(pilot)
        await pilot.press("a")
        await until(pilot, lambda: fake.orders)
        assert fake.orders[0][1]["seen"] == 1.0


async def test_a_low_risk_can_be_undone_until_it_takes_effect() -> None:
    fake = Fake().start()
    ask(fake, "e0001", "r1")
    app = app_for(fake)
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        await open_card(pilot, "r1")
        fake.send(ev.ApprovalVoted("r1", "approve", app.who, takes_effect=time.time() + 30))
        await until(pilot, lambda: "approved by you, takes effect in" in picture(app))
        assert "u undo" in painted(app)[-1]
        await pilot.press("u")
        await until(pilot, lambda: fake.orders)
        assert fake.orders[0][0] == "undo"
        fake.send(ev.ApprovalWithdrawn("r1", app.who))
        await until(pilot, lambda: "approved by you" not in picture(app))
        fake.send(ev.ApprovalVoted("r1", "approve", app.who, takes_effect=time.time() - 1))
        await until(pilot, lambda: "takes effect now" in picture(app))
        assert "u undo" not in picture(app)


async def test_two_people_decide_with_a_code_and_without_seeing_each_other() -> None:
    fake = Fake().start()
    program = ask(fake, "e0001", "r1", people=2, risk="R2")
    app = app_for(fake)
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        await open_card(pilot, "r1")
        assert "each without seeing the other" in " ".join(picture(app).split())
        fake.send(ev.ApprovalVoted("r1", "approve", "mallory", reason="fine by me"))
        await until(pilot, lambda: len(app.model.state.requests["r1"].votes) == 1)
        await settled(pilot)
        for key in ("2", "1", "2"):
            await pilot.press(key)
            await settled(pilot)
            assert "mallory" not in picture(app)
            assert "fine by me" not in picture(app)
        assert "1 person still" not in picture(app)
        await pilot.press("8")
        await until(pilot, lambda: "an answer to r1, which is told once" in picture(app))
        assert "mallory" not in picture(app)
        await pilot.press("2")
        await quiet(pilot)
        await pilot.press("a", *program[:4], "enter")
        await until(pilot, lambda: fake.orders)
        assert fake.orders[0][0] == "approve"
        fake.send(ev.ApprovalVoted("r1", "approve", app.who, takes_effect=time.time() + 60))
        await until(pilot, lambda: "approved by you, mallory" in picture(app))


@pytest.mark.parametrize("reason", ["", "the ablation needs it"])
async def test_the_highest_risk_needs_a_code_and_a_reason(reason: str) -> None:
    fake = Fake().start()
    program = ask(fake, "e0001", "r1", people=2, risk="R3")
    app = app_for(fake)
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        await open_card(pilot, "r1")
        await pilot.press("a", *program[:4], "enter")
        await typed(pilot, reason)
        await pilot.pause(0.2)
        assert [fields["reason"] for _, fields in fake.orders] == ([reason] if reason else [])
        assert reason or "needs a reason" in picture(app)


async def test_what_touches_the_supervision_cannot_be_approved() -> None:
    fake = Fake().start()
    ask(fake, "e0001", "r1", risk="R4")
    app = app_for(fake)
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        await open_card(pilot, "r1")
        await pilot.press("a")
        await pilot.pause(0.2)
        assert "can never be approved" in picture(app)
        assert fake.orders == []


# --- votes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("subject", ["pause", "cancel"])
async def test_a_vote_has_a_short_card_and_is_shown_live(subject: Any) -> None:
    fake = Fake().busy()
    fake.record(ev.ApprovalRequested("r9", "e0005" if subject == "cancel" else "", "", "", "a vote",
                                     time.time() + 900, 2, 3, subject, reason="ada asks: it \x1b[31mleaks"))  # fmt: skip
    app = app_for(fake)
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        assert "vote: shall" in picture(app)
        await open_card(pilot, "r9")
        shown = picture(app)
        assert "0 for, 0 against" in shown
        assert "ada asks: it ␛[31mleaks" in shown
        assert "2 people of 3 who are listed" in shown
        fake.send(ev.ApprovalVoted("r9", "reject", "grace", reason="not now"))
        await until(pilot, lambda: "0 for, 1 against" in picture(app))
        assert "grace" in picture(app)
        assert "not now" in picture(app)
        await quiet(pilot)
        await pilot.press("a")
        await until(pilot, lambda: fake.orders)
        assert about(app, fake.orders[0][1]) == {"target": "r9", "program": "", "reason": ""}
        await pilot.press("b")
        await settled(pilot)
        assert "vote: shall" in picture(app)


# --- decided elsewhere -----------------------------------------------------------------------------------------------


async def test_a_card_that_somebody_else_decided_stays_until_one_moves_on() -> None:
    fake = Fake().start()
    ask(fake, "e0001", "r1")
    ask(fake, "e0002", "r2")
    app = app_for(fake)
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        screen = await open_card(pilot, "r1")
        await pilot.press("r")
        fake.send(ev.ApprovalDecided("e0001", fake.state.requests["r1"].program, "probe", "approve", "grace", "r1"))
        await until(pilot, lambda: "approved by grace" in picture(app))
        await typed(pilot, "no")  # the question was about r1 and still is: the engine says who was first
        await until(pilot, lambda: fake.orders)
        assert fake.orders[0][1]["target"] == "r1"
        assert screen.chosen == "r1"
        await quiet(pilot)
        await pilot.press("a", "r", "d", "A")
        await pilot.pause(0.2)
        assert len(fake.orders) == 1
        await pilot.press("right", "a")
        await pilot.pause(0.2)
        assert screen.chosen == "r2"
        assert len(fake.orders) == 1


async def test_a_test_of_attention_is_told_to_who_approved_it() -> None:
    fake = Fake().start()
    program = ask(fake, "e0001", "r1")
    fake.state.experiments["e0001"].seal = "5" * 64
    app = app_for(fake)
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        await open_card(pilot, "r1")
        fake.send(ev.ApprovalVoted("r1", "approve", app.who),
                  ev.ApprovalDecided("e0001", program, "probe", "approve", app.who, "r1"),
                  ev.AttentionChecked("r1", "e0001", app.who, False, "reads ahead", "5"),
                  ev.ExperimentClosed("e0001", "rejected", "a test of attention: reads ahead"))  # fmt: skip
        app.model.state.experiments["e0001"].seal = "5" * 64
        await until(pilot, lambda: "MISSED: this had been a test of attention: reads ahead" in picture(app))
        assert "approved by you" in picture(app)
        await pilot.press("escape")
        await until(pilot, lambda: "a test of attention" in picture(app) and "r1  approved" in picture(app))


# --- rules, questions, batches ---------------------------------------------------------------------------------------


async def test_approving_by_rule_shows_it_and_follows_the_policy() -> None:
    fake = Fake().start()
    ask(fake, "e0001", "r1")
    app = app_for(fake)
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        await open_card(pilot, "r1")
        await pilot.press("A")
        await until(pilot, lambda: any(name == "policy" for name, _, _ in fake.asked))
        await quiet(pilot)
        await pilot.press("A")
        await until(pilot, lambda: 'name = "like r2"' in picture(app))
        assert "code c0de" in picture(app)
        await typed(pilot, "nope")
        await quiet(pilot)
        assert fake.orders == []
        fake.refuses["policy"] = "no supervisor"
        await pilot.press("A")
        await typed(pilot, "c0de")
        await until(pilot, lambda: "r1 was not approved" in picture(app))
        assert [name for name, _ in fake.orders] == ["policy"]
        del fake.refuses["policy"]
        await quiet(pilot)
        await pilot.press("A")
        await typed(pilot, "c0de")
        await until(pilot, lambda: len(fake.orders) == 3)
        (name, fields), approved = fake.orders[1:]
        assert name == "policy"
        assert [one.name for one in parse_policy(fields["program"]).rule] == ["like r2", "costs"]
        assert (approved[0], approved[1]["target"]) == ("approve", "r1")


async def test_a_key_under_another_name_than_the_login_still_is_the_same_person() -> None:
    fake = Fake().start()
    program = ask(fake, "e0001", "r1", people=2, risk="R2")
    fake.record(ev.SignersAdopted("", ["ada.lovelace", "mallory"]))
    app = app_for(fake)
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        fake.now = time.time()
        fake.send(ev.ApprovalVoted("r1", "approve", "mallory"))
        await open_card(pilot, "r1")
        await pilot.press("a", *program[:4], "enter")
        await until(pilot, lambda: fake.orders)
        assert "approved by" not in picture(app)
        fake.now = time.time() + 1
        fake.send(ev.ApprovalVoted("r1", "approve", "ada.lovelace", takes_effect=time.time() + 60))
        await until(pilot, lambda: "approved by you, mallory" in picture(app))
        assert "u undo" in picture(app)


async def test_what_needs_a_code_never_becomes_a_rule() -> None:
    fake = Fake().busy()
    app = app_for(fake)
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        await open_card(pilot, "r1")
        await pilot.press("A")
        await pilot.pause(0.2)
        assert "can become a rule" in picture(app)
        assert fake.orders == []


async def test_a_question_to_the_researcher_is_answered_in_the_transcript() -> None:
    fake = Fake().busy()
    app = app_for(fake)
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        await open_card(pilot, "r1")
        await pilot.press("i")
        await typed(pilot, "why ctypes?")
        await until(pilot, lambda: fake.orders)
        assert about(app, fake.orders[0][1]) == {"target": "e0007", "reason": "why ctypes?"}
        await until(pilot, lambda: "asked the Researcher" in picture(app))
        fake.now = time.time()
        fake.send(ev.AgentCalled("c9", "e0007", "researcher", "model", ""),
                  ev.AgentReplied("c9", "e0007", "researcher", fake.blob("answer", "only for a clock"), 0.1))  # fmt: skip
        await until(pilot, lambda: "has answered: t reads it" in picture(app))
        await pilot.press("t")
        await until(pilot, lambda: "only for a clock" in picture(app))


async def test_look_alikes_are_decided_together_and_nothing_else_is() -> None:
    fake = Fake().start()
    for number in (1, 2, 3):
        ask(fake, f"e000{number}", f"r{number}")
    ask(fake, "e0004", "r4", [ev.Finding("cost", "high", "very slow")])
    ask(fake, "e0005", "r5", risk="R2", people=2)
    app = app_for(fake)
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        screen = await open_card(pilot, "r4")
        await pilot.press("M")
        assert "has to be read by itself" in picture(app)
        screen = await open_card(pilot, "r1")
        await pilot.press("M")
        await until(pilot, lambda: "3 marked" in picture(app))
        await quiet(pilot)
        await pilot.press("a")
        assert "r1, r2, r3" in picture(app)
        await typed(pilot, "2")
        await quiet(pilot)
        assert fake.orders == []
        await pilot.press("a")
        await typed(pilot, "3")
        await until(pilot, lambda: len(fake.orders) == 3)
        assert sorted(fields["target"] for _, fields in fake.orders) == ["r1", "r2", "r3"]
        assert {name for name, _ in fake.orders} == {"approve"}
        assert all(fields["program"] == fake.state.requests[fields["target"]].program for _, fields in fake.orders)
        await until(pilot, lambda: "approved by you: 3 requests" in picture(app))
        takes_effect = time.time() + 60
        fake.send(*(ev.ApprovalVoted(f"r{number}", "approve", app.who, takes_effect=takes_effect) for number in (1, 2, 3)))
        await until(pilot, lambda: picture(app).count("approved by you") > 3)
        screen.choose("r2")
        fake.orders.clear()
        await pilot.press("u")
        await until(pilot, lambda: len(fake.orders) == 3)
        assert sorted((name, fields["target"]) for name, fields in fake.orders) == [
            ("undo", "r1"), ("undo", "r2"), ("undo", "r3"),
        ]  # fmt: skip
        fake.send(*(ev.ApprovalWithdrawn(f"r{number}", app.who) for number in (1, 2, 3)))
        await until(pilot, lambda: "wait again" in picture(app))
        screen.marked = ["r1", "r4"]
        await quiet(pilot)
        await pilot.press("a")
        await pilot.pause(0.2)
        assert "only look-alikes" in picture(app)
        await pilot.press("r")
        await typed(pilot, "both bad")
        await until(pilot, lambda: len(fake.orders) == 5)
        assert {(name, fields["reason"]) for name, fields in fake.orders[3:]} == {("reject", "both bad")}


async def test_a_filter_leaves_what_has_its_words() -> None:
    fake = Fake().busy()
    app = app_for(fake)
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        screen = await open_card(pilot, "r1")
        await pilot.press("f")
        await typed(pilot, "MEDIUM exponential")
        await until(pilot, lambda: screen.chosen == "r2")
        assert "1 of 2" in picture(app)
        await pilot.press("f", "ctrl+u")
        await typed(pilot, "nowhere")
        await until(pilot, lambda: "nothing that waits has to do with" in picture(app))
        await pilot.press("f", "ctrl+u", "enter")
        await until(pilot, lambda: "2 in all" in picture(app))


# --- what is shown ---------------------------------------------------------------------------------------------------


async def test_a_repair_is_shown_against_what_was_approved_and_side_by_side() -> None:
    fake = Fake().start()
    approved = fake.blob("old", PROGRAM.replace("3 *", "777 *"))
    ask(fake, "e0001", "r0")
    ask(fake, "e0002", "r1", approved=approved, cpu_seconds=288.0)
    app = app_for(fake)
    async with app.run_test(size=(200, 50)) as pilot:
        await settled(pilot)
        await open_card(pilot, "r1")
        await until(pilot, lambda: "777 * d_model" in picture(app))
        assert "which was approved before" in picture(app)
        assert "up to 5 min of cpu in all" in " ".join(picture(app).split())
        await pilot.press("s")
        await until(pilot, lambda: any("777 *" in line and "5 * d_model" in line for line in painted(app)))
        await pilot.press("w")
        await until(pilot, lambda: "against its parent e0001" in picture(app) and "777" not in picture(app))
        await pilot.press("w")
        await until(pilot, lambda: "the whole program" in picture(app))


async def test_in_a_narrow_window_another_view_begins_where_the_program_does() -> None:
    fake = Fake().start()
    ask(fake, "e0001", "r0")
    ask(fake, "e0002", "r1")
    app = app_for(fake)
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        await open_card(pilot, "r1")
        assert "the whole program" not in picture(app)
        await pilot.press("w")
        await until(pilot, lambda: "the whole program" in picture(app) and "class Mixer" in picture(app))
        await pilot.press("w", "s")
        await until(pilot, lambda: "side by side needs a window of 150 columns" in picture(app))


async def test_a_program_of_five_megabytes_neither_freezes_nor_hides_that_it_is_cut() -> None:
    fake = Fake().start()
    ask(fake, "e0001", "r0")
    ask(fake, "e0002", "r1")
    fake.blobs[fake.state.requests["r0"].program] = "\n" * 2_500_000 + "x = 1\n" * 400_000
    fake.blobs[fake.state.requests["r1"].program] = "\n" * 2_400_000 + "x = 2\n" * 400_000
    app = app_for(fake)
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        await open_card(pilot, "r1")
        slowest = 0.0
        end = time.monotonic() + 120
        while "CUT:" not in picture(app):
            assert time.monotonic() < end
            began = time.monotonic()
            await pilot.press("pagedown")
            slowest = max(slowest, time.monotonic() - began)
        assert slowest < 5.0


@pytest.mark.parametrize("level", ["A0", "A3"])
async def test_the_autonomy_level_is_in_every_header_and_a_held_experiment_says_so(level: Any) -> None:
    fake = Fake().busy()
    fake.record(ev.AutonomyChanged(level, "an anomaly"))
    fake.record(ev.ExperimentHeld("e0005", "look first"))
    app = app_for(fake)
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        assert f"│ {level}" in painted(app)[0]
        assert any("e0005" in line and " held " in line for line in painted(app))
        app.open("e0005")
        await settled(pilot)
        assert "HELD: nothing new starts" in picture(app)
        await pilot.press("H")
        await until(pilot, lambda: fake.orders)
        assert fake.orders[0][0] == "release"
        await pilot.press("C", "enter")
        assert "needs a reason" in picture(app)
        await pilot.press("C")
        await typed(pilot, "hopeless")
        await until(pilot, lambda: len(fake.orders) == 2)
        assert about(app, fake.orders[1][1]) == {"target": "e0005", "reason": "hopeless"}
