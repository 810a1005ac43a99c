"""The journal from its end."""

from __future__ import annotations

from pathlib import Path

import pytest

from store import backwards, journal
from store.audit import describe
from tests.store import history


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return history.write_run(tmp_path / "run", 30, seed=5, segment_bytes=30_000) / "journal"


@pytest.mark.parametrize("block", [777, 8_192, backwards.BLOCK])
def test_it_is_the_journal_turned_round(run: Path, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backwards, "BLOCK", block)
    records = list(journal.read(run))
    assert len(journal.segments(run)) > 5
    for before in (0, 1, 2, 3, 50, 51, 199, len(records), len(records) + 1, 10**12):
        assert list(backwards.read(run, before)) == [r for r in reversed(records) if r.seq < before]
    for before in range(2, len(records) + 2, 5):
        assert next(backwards.read(run, before)).seq == before - 1


def pages(run: Path, limit: int, experiment: str = "", words: str = "") -> list[int]:
    found: list[int] = []
    before = 2**60
    while before:
        page = backwards.search(run, before, limit, experiment, words)
        assert len(page.found) <= limit
        assert page.before < before
        found += [entry.record.seq for entry in page.found]
        before = page.before
    return found


def test_pages_find_everything_once(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = list(reversed(list(journal.read(run))))
    assert pages(run, 7) == [record.seq for record in records]
    own = [record.seq for record in records if getattr(record.data, "experiment", "") == "e0003"]
    assert pages(run, 3, "e0003") == own
    both = [r.seq for r in records if all(w in f"{r.data.kind} {r.actor} {describe(r)}".casefold() for w in ("ada", "approved"))]
    assert pages(run, 3, words="ADA  Approved") == both
    assert both
    monkeypatch.setattr(backwards, "MOST_SCANNED", 10)
    assert pages(run, 3, words="no such thing") == []
    page = backwards.search(run, 101, 3, words="no such thing")
    assert page == ([], 91)


def test_damage_hides_nothing_else(run: Path) -> None:
    whole = [record.seq for record in journal.read(run)]
    last = journal.segments(run)[-1]
    middle = journal.segments(run)[2]
    lines = middle.read_bytes().splitlines(keepends=True)
    lost = len(lines) // 2
    middle.write_bytes(b"".join([*lines[:lost], b"x" * 3_000_000 + b"\n", *lines[lost + 1 :]]))
    last.write_bytes(last.read_bytes() + b'{"seq":99999,"torn')
    found = [record.seq for record in backwards.read(run, 2**60)]
    assert len(found) == len(whole) - 1
    assert found == sorted(found, reverse=True)
    assert list(backwards.read(run.with_name("nowhere"), 5)) == []
