import unicodedata
from pathlib import Path

import pytest

from store import audit, journal, telling
from store import events as ev
from store.journal import Journal
from tests.store import history


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return history.write_run(tmp_path / "run", 14, seed=3)


def rewrite(run: Path, steps: list[history.Step]) -> None:
    """Replace the journal by one whose chain is right, whatever it tells."""
    for segment in journal.segments(run / "journal"):
        segment.unlink()
    moments = iter([step.time for step in steps])
    with Journal.open(run / "journal", clock=lambda: next(moments)) as book:
        for step in steps:
            book.append(step.event, step.actor)


def test_every_kind_has_words() -> None:
    records = history.records(12)
    assert {type(record.data) for record in records} == set(ev.AnyEvent.__args__)
    assert set(telling._WORDS) == set(ev.AnyEvent.__args__)
    for record in records:
        words = audit.describe(record)
        assert 4 < len(words) <= 320
        assert words.isprintable()


def test_words_are_inert() -> None:
    nasty = "a\x1b]52;c;ZXZpbA==\x07\nb\u202ec\u2066d\x9be\x00\r\u2028f[@click=app.bell]x[/]" + "z" * 5000
    for event in (
        ev.NoteAdded(nasty),
        ev.ProposalDrafted("e1", nasty, nasty, nasty, nasty),
        ev.TrialFailed("t", "e", nasty, nasty),
        ev.RunKilled(nasty, 1.0, nasty),
    ):
        record, _ = history.seal_record(1, 0.0, "engine", event, journal.GENESIS)
        words = audit.describe(record)
        assert len(words) <= 320
        assert all(unicodedata.category(c) not in ("Cc", "Cf", "Zl", "Zp", "Cs") for c in words)


def test_an_untouched_run_is_clean(run: Path) -> None:
    report = audit.verify_run(run)
    assert report.ok, report.problems
    records = history.records(14, seed=3)
    assert (report.records, report.head) == (len(records), records[-1].hash)
    launched = [r.data.trial for r in records if isinstance(r.data, ev.TrialStarted)]
    assert report.launches == len([trial for trial in launched if not trial.startswith("b-")])
    assert len(launched) > len(set(launched))  # one that was parked went on, and that is a launch like any other
    assert report.blobs > 50


def test_a_changed_record_is_named(run: Path) -> None:
    path = run / "journal" / "000001.jsonl"
    path.write_bytes(path.read_bytes().replace(b"slower decay helps", b"faster decay helps", 1))
    report = audit.verify_run(run)
    changed = next(r.seq for r in history.records(14, seed=3) if getattr(r.data, "hypothesis", "").startswith("slower"))
    assert report.first is not None
    assert report.first.seq == changed
    assert "does not match its hash" in str(report.first)


def test_a_torn_or_missing_journal_is_reported(run: Path, tmp_path: Path) -> None:
    path = run / "journal" / "000001.jsonl"
    path.write_bytes(path.read_bytes()[:-10])
    report = audit.verify_run(run)
    assert report.first is not None
    assert "no end" in report.first.what
    assert not audit.verify_run(tmp_path / "nothing").ok


def test_blobs_are_checked(run: Path) -> None:
    records = history.records(14, seed=3)
    drafted = [r for r in records if isinstance(r.data, ev.ProposalDrafted)]
    (run / "blobs" / drafted[5].data.program).unlink()
    (run / "blobs" / drafted[4].data.program).write_text("something else")
    report = audit.verify_run(run)
    assert [problem.seq for problem in report.problems] == [drafted[4].seq, drafted[5].seq]
    assert "does not match" in report.problems[0].what
    assert "missing" in report.problems[1].what


def test_a_changed_curve_is_named(run: Path) -> None:
    records = history.records(14, seed=3)
    finished = next(r for r in records if isinstance(r.data, ev.TrialFinished) and not r.data.cached)
    path = run / "trials" / finished.data.trial / "work" / "points.jsonl"
    path.write_text(path.read_text().replace("0.9", "0.8", 1))
    report = audit.verify_run(run)
    assert [problem.seq for problem in report.problems] == [finished.seq]


def launches(steps: list[history.Step]) -> list[int]:
    found = [i for i, s in enumerate(steps) if isinstance(s.event, ev.TrialStarted) and s.event.experiment[0] == "e"]
    return found


@pytest.mark.parametrize("case", ["none", "other program", "other tier", "taken back", "no request", "late", "forged"])
def test_a_launch_without_a_valid_approval_is_named(run: Path, case: str) -> None:
    steps = history.history(14, seed=3)
    asked = [
        i
        for i, step in enumerate(steps)
        if isinstance(step.event, ev.ApprovalDecided) and step.event.request and step.event.decision == "approve"
    ]
    at = asked[0]
    decision = steps[at].event
    assert isinstance(decision, ev.ApprovalDecided)
    launch = next(i for i in launches(steps) if i > at)
    fields = {name: getattr(decision, name) for name in decision.__struct_fields__}
    match case:
        case "none":
            steps[at] = steps[at]._replace(event=ev.NoteAdded("nobody asked"))
        case "other program":
            steps[at] = steps[at]._replace(event=ev.ApprovalDecided(**{**fields, "program": steps[8].event.program}))
        case "other tier":
            steps[at] = steps[at]._replace(event=ev.ApprovalDecided(**{**fields, "tier": "verify"}))
        case "taken back":
            back = ev.ApprovalDecided(**{**fields, "decision": "reject"})
            steps.insert(at + 1, steps[at]._replace(event=back))
            launch += 1
        case "no request":
            steps[at] = steps[at]._replace(event=ev.ApprovalDecided(**{**fields, "request": "r99999"}))
        case "late":
            request = next(i for i, s in enumerate(steps) if getattr(s.event, "request", "") == decision.request)
            asked_for = steps[request].event
            old = {name: getattr(asked_for, name) for name in asked_for.__struct_fields__}
            steps[request] = steps[request]._replace(event=ev.ApprovalRequested(**{**old, "expires": 5.0}))
        case "forged":
            steps[at] = steps[at]._replace(event=ev.ApprovalDecided(**{**fields, "request": ""}))
    rewrite(run, steps)
    assert journal.verify(run / "journal").ok
    report = audit.verify_run(run)
    assert launch + 1 in [problem.seq for problem in report.problems]
    assert any("without an approval" in problem.what for problem in report.problems)


def test_events_about_unknown_things_are_named(run: Path) -> None:
    steps = history.history(14, seed=3)
    steps.insert(5, steps[5]._replace(event=ev.ExperimentClosed("e9999", "ranked")))
    rewrite(run, steps)
    report = audit.verify_run(run)
    assert report.first is not None
    assert report.first.seq == 6
    assert "e9999" in report.first.what
