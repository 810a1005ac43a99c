"""`asi screenshot`: a picture of a screen without a terminal, from the record."""

from __future__ import annotations

import xml.etree.ElementTree as Tree
from pathlib import Path
from typing import Any

import pytest

from asi_tui.main import main
from tests.asi_tui.fakes import Fake
from tests.asi_tui.test_replay import recorded
from tests.asi_tui.test_safe import HOSTILE


@pytest.fixture
def run(tmp_path: Path, monkeypatch: Any) -> Path:
    monkeypatch.chdir(tmp_path)
    return recorded(tmp_path / "quiet-heron", Fake().busy())


def text_of(path: Path) -> str:
    """The words in a picture."""
    root = Tree.parse(path).getroot()
    return " ".join("".join(one.itertext()) for one in root.iter("{http://www.w3.org/2000/svg}text")).replace("\xa0", " ")


@pytest.mark.parametrize("screen", ["mission", "4", "leaderboard", "e0001", "brief"])
def test_each_screen_can_be_taken(run: Path, screen: str) -> None:
    assert main(["screenshot", str(run), "--screen", screen, "--size", "100x30"]) == 0
    words = text_of(Path(f"quiet-heron-{screen}.svg"))
    assert "REPLAY" in words and "quiet-heron" in words


def test_a_picture_of_an_earlier_moment_on_light_ground(run: Path) -> None:
    words = ["screenshot", str(run), "--at", "e0002", "--theme", "light", "--output", "early.svg"]
    assert main(words) == 0
    assert "e0004" not in text_of(Path("early.svg"))
    assert "#f6f8f9" in Path("early.svg").read_text()


def test_nothing_is_written_over_unless_asked(run: Path, capsys: Any) -> None:
    Path("mine.svg").write_text("mine")
    words = ["screenshot", str(run), "--output", "mine.svg", "--size", "80x24"]
    assert main(words) == 4
    assert "--force" in capsys.readouterr().err
    assert Path("mine.svg").read_text() == "mine"
    assert main([*words, "--force"]) == 0
    assert "REPLAY" in text_of(Path("mine.svg"))


@pytest.mark.parametrize(
    ("more", "words"),
    [(["--screen", "nonsense"], "is no screen"), (["--output", "no/such/folder.svg"], "No such file")],
)
def test_what_is_wrong_is_said_in_one_line(run: Path, capsys: Any, more: list[str], words: str) -> None:
    assert main(["screenshot", str(run), "--size", "80x24", *more]) in (1, 2)
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line


@pytest.mark.parametrize("size", ["80", "0x0", "80x9999", "axb"])
def test_a_size_is_a_size(run: Path, size: str, capsys: Any) -> None:
    with pytest.raises(SystemExit):
        main(["screenshot", str(run), "--size", size])
    assert "such as 160x45" in capsys.readouterr().err


def test_hostile_text_is_inert_in_a_picture(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    evil = " ".join(text for name, text in HOSTILE.items() if name != "surrogate") + "</text><script>1</script>&"
    run = recorded(tmp_path / "evil", Fake(evil).busy())
    assert main(["screenshot", str(run), "--output", "evil.svg"]) == 0
    root = Tree.parse("evil.svg").getroot()
    assert not list(root.iter("{http://www.w3.org/2000/svg}script"))
    assert all(one.isprintable() or one in "\n\t" for one in text_of(Path("evil.svg")))
