"""Screen 8, the audit log, and screen 9, what the run knows."""

from __future__ import annotations

import time
from typing import Any

import msgspec
import pytest

from asi_tui.records import Filter, Records, look_of
from asi_tui.screens.approvals import ApprovalsScreen
from asi_tui.screens.audit import AuditScreen
from asi_tui.screens.experiment import ExperimentScreen
from asi_tui.screens.knowledge import KnowledgeScreen
from engine.client import protocol
from engine.client.protocol import AuditLine, AuditPage, Knowledge, Verified
from store import events as ev
from store.audit import describe
from tests.asi_tui.fakes import Fake, app_for
from tests.asi_tui.test_app import painted, picture, settled, until
from tests.asi_tui.test_safe import HOSTILE, harmless

EVIL = " ".join(text for name, text in HOSTILE.items() if name != "surrogate")


def answer(value: Any) -> protocol.Answer:
    return protocol.Answer(1, True, text=msgspec.json.encode(value).decode())


async def opened(pilot: Any, key: str = "8") -> Any:
    await settled(pilot)
    await pilot.press(key)
    await settled(pilot)
    return pilot.app.screen


async def test_records_stand_newest_first_and_enter_opens_what_they_are_about() -> None:
    app = app_for(Fake().busy())
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await opened(pilot)
        assert isinstance(screen, AuditScreen)
        shown = picture(app)
        assert "warning: parity is at chance" in painted(app)[2]
        assert "record 105" in shown
        assert "hash h105" in shown
        await pilot.press("j", "enter")
        await settled(pilot)
        assert isinstance(app.screen, ExperimentScreen)
        assert app.screen.experiment == "e0009"
        await pilot.press("escape", "j", "enter")
        await settled(pilot)
        assert isinstance(app.screen, ApprovalsScreen)
        assert app.screen.chosen == "r2"
        await pilot.press("8", "G")
        await settled(pilot)
        assert "record 1 " in picture(app)
        await pilot.press("k", "pageup", "pagedown", "g")
        await settled(pilot)
        assert screen.cursor == 0


async def test_filters_add_up_and_are_taken_back_one_at_a_time() -> None:
    app = app_for(Fake().busy())
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await opened(pilot)
        await pilot.press("j", "e")
        await settled(pilot)
        assert {line.experiment for line in screen.records.lines} == {"e0009"}
        assert "audit: e0009" in painted(app)[1]
        await pilot.press("escape", "f", *"trial", "enter")
        await settled(pilot)
        assert all("trial" in line.text or "trial" in line.kind for line in screen.records.lines)
        await pilot.press("t")
        await settled(pilot)
        assert {line.kind for line in screen.records.lines} == {"trial.started"}
        await pilot.press("w")
        await settled(pilot)
        assert "“trial”, engine, launch" in painted(app)[1]
        await pilot.press("escape")
        await settled(pilot)
        assert screen.filter == Filter("trial", "", "", "trial.started")
        await pilot.press("escape", "escape")
        await settled(pilot)
        assert screen.filter == Filter()
        await pilot.press("f", *"nonsuch", "enter")
        await settled(pilot)
        assert "no record is like this" in picture(app)


async def test_new_records_come_on_top_or_are_counted() -> None:
    fake = Fake().busy()
    app = app_for(fake)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await opened(pilot)
        fake.send(ev.NoteAdded("something new"))
        await until(pilot, lambda: "something new" in painted(app)[2])
        await pilot.press("j", "j")
        fake.send(*(ev.NoteAdded(f"number {index}") for index in range(12)))
        await until(pilot, lambda: "12 newer, g goes there" in picture(app))
        assert screen.chosen.text.startswith("e0009") or "e0008" in screen.chosen.text
        await pilot.press("g")
        await until(pilot, lambda: "number 11" in painted(app)[2])


async def test_older_pages_come_as_one_scrolls_and_empty_pages_go_on() -> None:
    fake = Fake().start()
    for number in range(1_000):
        fake.record(ev.NoteAdded(f"note {number} {'rare' if number == 3 else ''}"), 0.1)
    original = fake._audit

    def short(target: str, where: str = "", offset: int = 0, limit: int = 200, **more: Any) -> str:
        """The engine stops scanning early: a page of 100 records, whatever is found in them."""
        page = msgspec.json.decode(original(target, "", offset, 100, **more), type=AuditPage)
        lines = [line for line in page.lines if all(word in line.text for word in where.split())]
        return msgspec.json.encode(AuditPage(lines, page.before)).decode()

    fake._audit = short  # type: ignore[method-assign]
    app = app_for(fake)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await opened(pilot)
        assert len(screen.records.lines) < 300
        for _ in range(12):
            await pilot.press("G")
            await settled(pilot)
        assert [line.seq for line in screen.records.lines] == list(range(1_004, 0, -1))
        await pilot.press("g", "f", *"rare", "enter")
        await until(pilot, lambda: "note 3 rare" in picture(app))
        assert len(screen.records.lines) == 1


def test_a_gap_above_is_never_papered_over() -> None:
    def page(top: int, bottom: int) -> AuditPage:
        lines = [AuditLine(seq, 0.0, "engine", "note.added", "", "x", "h") for seq in range(top, bottom - 1, -1)]
        return AuditPage(lines, bottom if bottom > 1 else 0)

    records = Records()
    records.take_top(page(300, 101), Filter(), True, 300)
    records.take_older(page(100, 1), Filter())
    records.take_top(page(310, 111), Filter(), True, 310)
    assert [line.seq for line in records.lines] == list(range(310, 0, -1))
    records.take_top(page(900, 701), Filter(), False, 900)
    assert records.more
    assert records.lines[0].seq == 310
    records.take_top(page(900, 701), Filter(), True, 900)
    assert [line.seq for line in records.lines] == list(range(900, 700, -1))
    assert records.before == 701


async def test_verify_says_what_is_good_and_what_is_not() -> None:
    fake = Fake().busy()
    app = app_for(fake)
    async with app.run_test(size=(100, 30)) as pilot:
        await opened(pilot)
        assert "v checks the chain" in painted(app)[1]
        await pilot.press("v")
        await until(pilot, lambda: "chain, blobs and approvals good up to 105, head h105…" in picture(app))
        bad = Verified(90, "abcdef", 3, 2, [(17, "hash does not match"), (20, "blob is missing")])
        fake.says["verify"] = answer(bad)
        await pilot.press("v")
        await until(pilot, lambda: "record 17: hash does not match, and 1 more problem" in picture(app))
        assert "2 problems in 90 records" in painted(app)[1]
        fake.says["verify"] = protocol.Answer(1, False, error="disk is gone")
        await pilot.press("v")
        await until(pilot, lambda: "not checked: disk is gone" in picture(app))
        asked = [name for name, *_ in fake.asked].count("verify")
        await pilot.pause(0.5)
        assert [name for name, *_ in fake.asked].count("verify") == asked == 3


def test_every_kind_of_record_has_a_word() -> None:
    from asi_tui.records import KINDS

    kinds = {kind.__struct_config__.tag for kind in ev.AnyEvent.__args__}
    assert set(KINDS) == kinds
    decided = [
        AuditLine(1, 0.0, "x", "approval.decided", "e1",
                  describe(ev.Record(1, 0.0, "x", ev.ApprovalDecided("e1", "p", "probe", decision, "ada"), "", "")), "")
        for decision in ("approve", "reject", "defer", "expire")
    ]  # fmt: skip
    assert [look_of(line).word for line in decided] == ["approved", "rejected", "deferred", "expired"]
    cheat = describe(ev.Record(1, 0.0, "x", ev.TrialFailed("t", "e1", "no", cheat=True), "", ""))
    assert look_of(AuditLine(1, 0.0, "x", "trial.failed", "e1", cheat, "")).word == "CHEAT"


@pytest.mark.parametrize("size", [(60, 16), (80, 24), (160, 45), (200, 50), (250, 70)])
@pytest.mark.parametrize("kind", ["start", "busy"])
async def test_both_screens_fit_and_hostile_text_is_inert(size: tuple[int, int], kind: str) -> None:
    fake = getattr(Fake(EVIL * 2), kind)()
    app = app_for(fake)
    async with app.run_test(size=size) as pilot:
        for key in ("8", "9"):
            await opened(pilot, key)
            for press in ("j", "G", "enter", "escape"):
                await pilot.press(press)
                await settled(pilot)
                lines = painted(app)
                assert len(lines) == size[1]
                assert all(harmless(line) for line in lines)
    assert {name for name, _ in fake.orders} <= {"look"}


async def test_without_a_line_both_screens_say_so() -> None:
    fake = Fake()
    fake.mute = True
    fake.connected = False
    fake.queue.put_nowait(protocol.LiveLoad(0, 0, 0, 0, 0, 0, 0))
    app = app_for(fake)
    async with app.run_test(size=(80, 24)) as pilot:
        for key in ("8", "9"):
            await opened(pilot, key)
            assert "not there: not connected" in picture(app) or "waiting for the engine" in picture(app)


async def test_a_long_journal_is_drawn_quickly() -> None:
    app = app_for(Fake().busy())
    async with app.run_test(size=(200, 50)) as pilot:
        screen = await opened(pilot)
        line = screen.records.lines[0]
        screen.records.lines = [msgspec.structs.replace(line, seq=50_000 - index) for index in range(50_000)]
        screen.records.newest = 50_000
        begin = time.monotonic()
        for _ in range(10):
            screen.body(200, 48)
        assert (time.monotonic() - begin) / 10 < 0.1


# --- knowledge -------------------------------------------------------------------------------------------------------


async def test_knowledge_is_listed_searched_and_opened() -> None:
    app = app_for(Fake().busy())
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await opened(pilot, "9")
        assert isinstance(screen, KnowledgeScreen)
        assert "4 entries" in painted(app)[1]
        await pilot.press("j", "j")
        await settled(pilot)
        assert "Delta product of two Householder steps" in picture(app)
        await pilot.press("/", *"decay", "enter")
        await settled(pilot)
        assert "“decay”" in painted(app)[1]
        assert "why here: word match" in picture(app)
        await pilot.press("G", "g", "ctrl+d", "ctrl+u", "enter")
        await settled(pilot)
        assert isinstance(app.screen, ExperimentScreen)
        assert app.screen.experiment == "e0001"
        await pilot.press("escape", "escape")
        await settled(pilot)
        assert screen.words == ""


async def test_knowledge_that_no_experiment_taught_opens_nothing() -> None:
    fake = Fake().busy()
    fake.says["cognition"] = answer([Knowledge("paper-1", "Delta rule", "Fast weights.", "arXiv", "always")])
    app = app_for(fake)
    async with app.run_test(size=(160, 45)) as pilot:
        await opened(pilot, "9")
        assert "source: arXiv" in picture(app)
        await pilot.press("enter")
        await until(pilot, lambda: "no experiment of this run taught it" in picture(app))


async def test_an_empty_knowledge_explains_itself() -> None:
    app = app_for(Fake().start())
    async with app.run_test(size=(80, 24)) as pilot:
        await opened(pilot, "9")
        assert "Nothing is known yet" in picture(app)
