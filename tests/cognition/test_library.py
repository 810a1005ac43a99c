import ast
import json
import os
import time
from pathlib import Path

import pytest

import cognition
from cognition import library
from cognition.adding import IMPORTED, add, dump, read_entries
from cognition.library import Entry, LibraryError, load, papers, parse, read_folder

ROOT = Path(cognition.__file__).parents[1]
GOOD = 'identifier = "my-note"\ntitle = "T"\nauthors = ["A"]\nyear = 2024\nscenario = "s"\nmechanism = "m"\n'


def blocks() -> set[str]:
    """What the domain offers, read as text: torch is not for this package."""
    domain = ROOT / "engine" / "linear_attention"
    tree = ast.parse((domain / "ops" / "__init__.py").read_text())
    names = next(
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    )
    return {*names, *(path.stem for path in (domain / "baselines").glob("*.py") if path.stem != "__init__")}


def test_every_file_is_an_entry_under_its_own_name() -> None:
    folder = Path(cognition.__file__).parent / "library"
    entries, problems = read_folder(folder)
    assert problems == []
    assert len(entries) >= 110
    assert sorted(entry.identifier for entry in entries) == sorted(path.stem for path in folder.glob("*.toml"))
    assert len({entry.title for entry in entries}) == len(entries)


def test_nothing_dangles_and_nothing_is_empty() -> None:
    known = {entry.identifier for entry in papers()}
    offered = blocks()
    for entry in papers():
        assert set(entry.contradicted_by) <= known - {entry.identifier}, entry.identifier
        assert not entry.block or entry.block in offered, (entry.identifier, entry.block)
        for text in (entry.scenario, entry.mechanism, entry.evidence, entry.preconditions, entry.failures, entry.hints):
            assert text, entry.identifier
        assert entry.authors and entry.tags and 1950 <= entry.year <= 2026
        assert not entry.arxiv or 0 <= int(entry.arxiv[:2]) + 2000 - entry.year + 1 <= 2, entry.identifier


def test_loading_is_fast_and_cached() -> None:
    papers.cache_clear()
    begun = time.process_time()
    first = papers()
    assert time.process_time() - begun < 0.5  # 30 ms on an idle machine
    assert papers() is first


@pytest.mark.parametrize(
    ("content", "where"),
    [
        (b"identifier = \n", "x.toml:1:14: "),
        (b"a = 1\nb = 2 3\n", "x.toml:2:7: "),
        (b"a = 1\n\xff", "x.toml:2:1: not UTF-8"),
        (GOOD.replace("my-note", "../../etc").encode(), "$.identifier"),
        (GOOD.replace("2024", '"2024"').encode(), "$.year"),
        ((GOOD + 'wrong = "x"\n').encode(), "wrong"),
        (GOOD.replace("mechanism", "#").encode(), "mechanism"),
        (GOOD.replace('"s"', '"' + "x" * 9_000 + '"').encode(), "$.scenario"),
        (("a = " + "[" * 5_000).encode(), "x.toml"),
        (b"a" * 2_000_000, "larger"),
        (b"", "identifier"),
        (b"\x00", "x.toml:1:1"),
    ],
)
def test_garbage_is_one_line_with_its_place(content: bytes, where: str) -> None:
    with pytest.raises(LibraryError) as caught:
        parse(content, "x.toml")
    assert where in str(caught.value)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 450


def test_text_is_inert() -> None:
    entry = parse(GOOD.replace('"s"', '"a\\u001b[2J\\u202eb\\nc"').encode(), "x.toml")
    assert entry.scenario == "a\ufffd[2J\ufffdb c"


def test_only_plain_files_are_read(tmp_path: Path) -> None:
    (tmp_path / "good.toml").write_text(GOOD)
    (tmp_path / "link.toml").symlink_to(tmp_path / "good.toml")
    os.mkfifo(tmp_path / "pipe.toml")
    (tmp_path / "folder.toml").mkdir()
    entries, problems = read_folder(tmp_path)
    assert [entry.identifier for entry in entries] == ["my-note"]
    assert len(problems) == 3
    assert read_folder(tmp_path / "absent") == ([], [])


def test_what_is_written_is_read_back() -> None:
    odd = Entry("odd-one", 'quote " \\ 線形 é', ["Ä"], 2024, "s # [x]", "m = 1", tags=["a"])
    for entry in (*papers(), odd):
        assert parse(dump(entry).encode(), "x") == entry


def test_adding_is_all_or_nothing(tmp_path: Path) -> None:
    source, folder = tmp_path / "x.toml", tmp_path / "library"
    source.write_text(GOOD)
    assert [entry.identifier for entry in add(source, folder)] == ["my-note"]
    assert [path.name for path in folder.iterdir()] == ["my-note.toml"]
    with pytest.raises(LibraryError, match="taken"):
        add(source, folder)
    source.write_text(GOOD.replace("my-note", papers()[0].identifier))
    with pytest.raises(LibraryError, match="taken"):
        add(source, folder)
    assert [path.name for path in folder.iterdir()] == ["my-note.toml"]
    entries, problems = load([folder, folder])
    assert len(entries) == len(papers()) + 1
    assert problems == ["my-note: this identifier is taken already"]


def foreign(**fields: object) -> dict[str, object]:
    return {
        "DESIGN_INSIGHT": "### DESIGN_INSIGHT_HIGH: [gates]",
        "EXPERIMENTAL_TRIGGER_PATTERNS": "**Task_Performance_Signatures**: recall falls",
        "BACKGROUND": "**Title**: A Paper\n\n**Historical Technical Context**: long ago",
        "ALGORITHMIC_INNOVATION": "**Core_Algorithm:** a gate",
        "IMPLEMENTATION_GUIDANCE": "**Parameter_Settings**: none",
    } | fields


def test_the_other_format_is_converted_and_marked(tmp_path: Path) -> None:
    source = tmp_path / "arxiv.org_abs_2312.00752.json"
    source.write_text(json.dumps([foreign(), foreign(BACKGROUND="**Title:** Other\nx")]))
    first, second = read_entries(source)
    assert (first.identifier, first.title, first.year, first.arxiv) == (
        "imported-arxiv-org-abs-2312-00752-1", "A Paper", 2023, "2312.00752",
    )  # fmt: skip
    assert second.title == "Other"
    assert first.tags == [IMPORTED]
    assert first.evidence == ""
    assert len(add(source, tmp_path / "to")) == 2
    assert read_folder(tmp_path / "to") == ([first, second], [])


@pytest.mark.parametrize(
    ("content", "where"),
    [
        ("[", "x.json:1:2"),
        ("{}", "x.json"),
        ("[]", "no entry"),
        (json.dumps([foreign(BACKGROUND=3)]), "BACKGROUND"),
        (json.dumps([{"DESIGN_INSIGHT": "x"}]), "EXPERIMENTAL"),
    ],
)
def test_bad_json_adds_nothing(tmp_path: Path, content: str, where: str) -> None:
    source = tmp_path / "x.json"
    source.write_text(content)
    with pytest.raises(LibraryError, match=where):
        add(source, tmp_path / "to")
    assert not (tmp_path / "to").exists()


def test_where_a_person_keeps_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert library.user_folder() == Path("/data/asi/cognition")
    monkeypatch.setenv("XDG_DATA_HOME", "relative")
    assert library.user_folder() == Path.home() / ".local/share/asi/cognition"
