"""Leaderboards as files, kept preferences, and `asi leaderboard` on a plain terminal."""

from __future__ import annotations

import csv
import io
import stat
from pathlib import Path
from typing import Any

import msgspec
import pytest
from pyarrow import parquet

from asi_tui.board_files import WriteError, board_table, csv_text, markdown_text, write_table
from asi_tui.main import main
from asi_tui.preferences import Preferences, load_preferences, preferences_path, save_preferences
from engine.client.protocol import BoardRow, TaskGain
from store.journal import Journal
from tests.asi_tui.fakes import Fake, app_for
from tests.asi_tui.test_app import picture, settled, until
from tests.asi_tui.test_safe import HOSTILE
from tests.asi_tui.test_shell import Told


def one(name: str = "e2", score: float = 1.0, half: float | None = 0.3, seeds: int = 3, **more: Any) -> BoardRow:
    low, high = (None, None) if half is None else (score - half, score + half)
    return BoardRow(name, score, low=low, high=high, seeds=seeds, **more)


# --- files and preferences -------------------------------------------------------------------------------------------


def test_a_spreadsheet_runs_no_cell_and_markdown_shows_no_markup() -> None:
    rows = [one(title=title, tasks=[TaskGain("recall", 0.1, 0.02)]) for title in
            ("=cmd|' /C calc'!A0", "+1", "-1", "@x", "  =1", "a|b [x](http://y) <b>", *HOSTILE.values())]  # fmt: skip
    heads, cells = board_table(rows)
    lines = list(csv.DictReader(io.StringIO(csv_text(heads, cells))))
    assert all(line["title"].lstrip()[0] not in "=+-@" for line in lines)
    assert float(lines[0]["score"]) == 1.0
    assert float(lines[0]["difference:recall"]) == 0.1
    text = markdown_text(heads, cells)
    assert len(text.splitlines()) == len(rows) + 2
    assert r"a\|b \[x\](http://y) \<b\>" in text


def test_a_file_that_is_there_stays(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("mine")
    with pytest.raises(WriteError, match="exists"):
        write_table(path, ["a"], [["x"]])
    assert path.read_text() == "mine"
    write_table(path, ["a"], [["x"]], replace=True)
    assert path.read_text().splitlines() == ["a", "x"]
    with pytest.raises(WriteError):
        write_table(tmp_path / "a.txt", ["a"], [])
    assert [found.name for found in tmp_path.iterdir()] == ["a.csv"]


async def test_an_export_refuses_to_overwrite_but_for_an_exclamation_mark(tmp_path: Path) -> None:
    path = tmp_path / "board.md"
    path.write_text("mine")
    app = app_for(Fake().busy())
    async with app.run_test(size=(120, 30)) as pilot:
        await settled(pilot)
        await pilot.press("5")
        await settled(pilot)
        await pilot.press("e", "ctrl+u", *str(path), "enter")
        await until(pilot, lambda: "not exported" in picture(app))
        assert path.read_text() == "mine"
        await pilot.press("e", "ctrl+u", *str(path), "!", "enter")
        await until(pilot, lambda: path.read_text() != "mine")
        assert len(path.read_text().splitlines()) == 9


def test_preferences_are_kept_privately_and_a_broken_file_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    wanted = Preferences(theme="light", columns=["seeds", 'task:"x"'], stop_keys=["f11"])
    assert save_preferences(wanted) == ""
    assert load_preferences() == wanted
    assert stat.S_IMODE(preferences_path().stat().st_mode) == 0o600
    preferences_path().write_text("theme = \n")
    assert "it stays as it is" in save_preferences(Preferences())
    assert preferences_path().read_text() == "theme = \n"


# --- the command -----------------------------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path: Path) -> Path:
    root = tmp_path / "idle"
    root.mkdir()
    (root / "run.toml").write_text('name = "idle"\n')
    with Journal.open(root / "journal") as book:
        for event in Told("").busy().events:
            book.append(event, "engine")
    return root


def test_the_command_filters_sorts_and_writes_without_an_engine(run: Path, tmp_path: Path, capsys: Any) -> None:
    assert main(["leaderboard", "--json", "--where", "seeds > 1 and origin <> 'baseline'", "--sort", "score", str(run)]) == 0
    found = msgspec.json.decode(capsys.readouterr().out)
    assert [row["experiment"] for row in found] == ["e0001", "e0003", "e0002"]
    assert main(["leaderboard", "--where", "nonsense", str(run)]) == 4
    assert "nonsense" in capsys.readouterr().err
    assert main(["leaderboard", "--markdown", str(run)]) == 0
    assert capsys.readouterr().out.startswith("| experiment |")
    target = tmp_path / "x.parquet"
    assert main(["leaderboard", "--parquet", str(target), str(run)]) == 0
    assert parquet.read_table(target).num_rows == 7
    assert main(["leaderboard", "--parquet", str(target), str(run)]) == 4
    assert not (run / "asi.duckdb").exists()
