"""The rubber-stamp meter, what oversight amounts to over a run, and how programs are compared within bounds."""

from __future__ import annotations

import difflib
import random
from pathlib import Path
from typing import Any

import msgspec

from asi_tui.difference import MOST_LINES, compare
from asi_tui.lines import text_of, width_of
from asi_tui.screens.diff import side_rows, source_rows, unified_rows
from store import events as ev
from store.attention import attention
from store.oversight import oversight
from tests.asi_tui.fakes import Fake, app_for
from tests.asi_tui.test_app import picture, settled, until
from tests.asi_tui.test_deciding import ask

# --- the meter -------------------------------------------------------------------------------------------------------


def decided(fake: Fake, number: int, seconds: float, decision: Any = "approve", after: float = 30.0) -> None:
    """One answer of Ada, `after` seconds after the question."""
    name, request = f"e{number:04}", f"r{number}"
    program = ask(fake, name, request)
    fake.record(ev.ApprovalVoted(request, decision, "ada", program, seconds=seconds, seen=0.5), after)
    fake.record(ev.ApprovalDecided(name, program, "probe", decision, "ada", request, rule="costs"))


def test_the_meter_warns_of_haste_and_of_too_many() -> None:
    careful = Fake().start()
    for number in range(1, 5):
        decided(careful, number, 20.0, "approve" if number < 4 else "reject")
    found = attention(careful.state, careful.now)
    assert (found.decided, found.approved, found.waited, found.seconds, found.fast) == (4, 0.75, 30.0, 20.0, 0.0)
    assert found.warning == ""
    assert attention(careful.state, careful.now + 4_000).decided == 0
    hasty = Fake().start()
    for number in range(1, 6):
        decided(hasty, number, 2.0)
    assert "5 of the last 5 approvals took under 5 s" in attention(hasty.state, hasty.now).warning
    busy = Fake().start()
    for number in range(1, 9):
        decided(busy, number, 60.0)
    assert "8 decisions of one person" in attention(busy.state, busy.now).warning


async def test_the_meter_stands_on_the_screen_and_in_the_brief() -> None:
    fake = Fake().start()
    for number in range(1, 6):
        decided(fake, number, 2.0)
    ask(fake, "e0009", "r9")
    app = app_for(fake)
    async with app.run_test(size=(80, 24)) as pilot:
        app.model.clock = lambda: fake.now
        await settled(pilot)
        for key in ("2", "b"):
            await pilot.press(key)
            await until(pilot, lambda: "5 of the last 5 approvals took under 5 s" in picture(app))


def test_oversight_tells_the_auditor_what_was_asked_and_what_was_not(tmp_path: Path, capsys: Any) -> None:
    from asi_tui.arguments import handler, parser
    from store.journal import Journal

    fake = Fake().start()
    decided(fake, 1, 2.0)
    decided(fake, 2, 20.0, "reject")
    ask(fake, "e0003", "r3", [ev.Finding("capability", "medium", "x")])
    fake.record(ev.ApprovalDecided("e0003", "p", "probe", "expire", "clock", "r3"))
    program = fake.propose("e0004", 4, "e0001")
    fake.record(ev.ApprovalDecided("e0004", program, "probe", "approve", "policy", rule="cheap"))
    fake.record(ev.AttentionChecked("r1", "e0001", "ada", False, "reads the future", "n"))
    found = oversight(fake.records)
    assert (found.asked, found.decided, found.approved, found.expired, found.pending) == (3, 2, 1, 1, 0)
    assert [(one.name, one.decided, one.approved) for one in found.by_finding] == [("cost", 2, 1)]
    assert [(one.name, one.decided) for one in found.allowed] == [("cheap", 1)]
    assert [(one.who, one.answers, one.fast) for one in found.people] == [("ada", 2, 1)]
    assert (found.caught, found.missed) == (0, 1)

    (tmp_path / "run.toml").write_text("")
    with Journal.open(tmp_path / "journal") as journal:
        for record in fake.records:
            journal.append(record.data, record.actor)
    assert handler("stats")(parser().parse_args(["stats", "oversight", str(tmp_path)])) == 0
    told = capsys.readouterr().out
    for words in ("asked about programs: 3", "50% approved", "allowed by cheap: 1", "0 caught, 1 missed", "ada: 2 answers"):
        assert words in told
    assert handler("stats")(parser().parse_args(["stats", "oversight", str(tmp_path), "--json"])) == 0
    assert msgspec.json.decode(capsys.readouterr().out)["expired"] == 1


# --- differences ----------------------------------------------------------------------------------------------------


def test_differences_are_bounded_and_nothing_added_stands_beyond_the_edge() -> None:
    long = "x = 1  # " + "a" * 300 + "HIDDEN"
    found = compare("a\nb\nc\n", f"a\nb\n{long}\nc\n")
    for rows in (unified_rows(found, 80), side_rows(found, 160), source_rows(long, 80)):
        assert "HIDDEN" in "".join(text_of(one).replace(" ", "").strip("│+-") for one in rows).replace("│", "")
        assert max(width_of(one) for one in rows) <= 160
    lines = [f"{number % 7}" for number in range(50_000)]
    large = compare("\n".join(lines), "\n".join(reversed(lines)))
    assert large.cut
    assert len(large.after) == MOST_LINES


def test_the_hunks_of_a_difference_make_the_new_program_of_the_old_one() -> None:
    dice = random.Random(7)
    for _ in range(60):
        old = [f"line {dice.randrange(30)}" for _ in range(40)]
        new = [line for line in old if dice.random() > 0.1]
        for _ in range(3):
            new.insert(dice.randrange(len(new) + 1), f"new {dice.randrange(9)}")
        found = compare("\n".join(old), "\n".join(new))
        rebuilt, told = list(old), 0
        for hunk in reversed(found.hunks):
            for tag, i1, i2, j1, j2 in reversed(hunk):
                if tag != "equal":
                    rebuilt[i1:i2] = new[j1:j2]
                    told += max(i2 - i1, j2 - j1)
        assert rebuilt == new
        least = difflib.SequenceMatcher(None, old, new, autojunk=False)
        changes = sum(max(i2 - i1, j2 - j1) for tag, i1, i2, j1, j2 in least.get_opcodes() if tag != "equal")
        assert told <= 2 * changes
