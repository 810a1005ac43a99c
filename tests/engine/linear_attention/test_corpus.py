"""The corpus is built once, split by file, and says what it is made of."""

import zipfile
from pathlib import Path

import pytest

from engine.linear_attention import corpus
from engine.linear_attention.corpus import build_corpus


def _library(directory: Path, files: int = 120) -> Path:
    for index in range(files):
        folder = directory / ("test" if index % 10 == 9 else "package")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"module_{index}.py").write_text(f"# file {index} of {folder.name}\n" + "x = 1\n" * 1000)
    return directory


def test_split_by_file_without_tests(tmp_path: Path) -> None:
    info = build_corpus(tmp_path / "corpus", _library(tmp_path / "library"))
    train, validation = Path(info.train_path).read_bytes(), Path(info.validation_path).read_bytes()
    assert info.bytes == len(train) + len(validation)
    assert b"of test" not in train + validation
    names = [{line for line in half.splitlines() if line.startswith(b"# file")} for half in (train, validation)]
    assert names[0] and names[1]
    assert not names[0] & names[1]
    assert len(names[0]) + len(names[1]) == 108


def test_built_once_and_rebuilt_when_damaged(tmp_path: Path) -> None:
    library = _library(tmp_path / "library")
    info = build_corpus(tmp_path / "corpus", library)
    (library / "package" / "module_0.py").write_text("changed = True\n" * 500)
    assert build_corpus(tmp_path / "corpus", library) == info
    Path(info.train_path).write_bytes(b"damaged")
    again = build_corpus(tmp_path / "corpus", library)
    assert again.hash != info.hash
    assert b"changed" in Path(again.train_path).read_bytes() + Path(again.validation_path).read_bytes()


def test_a_moved_directory_keeps_its_corpus(tmp_path: Path) -> None:
    info = build_corpus(tmp_path / "one", _library(tmp_path / "library"))
    (tmp_path / "one").rename(tmp_path / "two")
    moved = build_corpus(tmp_path / "two", tmp_path / "library")
    assert moved.hash == info.hash
    assert Path(moved.train_path).exists()


def test_zipped_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = _library(tmp_path / "library")
    archive = tmp_path / "python.zip"
    with zipfile.ZipFile(archive, "w") as opened:
        for path in library.rglob("*.py"):
            opened.write(path, path.relative_to(library))
    monkeypatch.setattr(corpus.sys, "path", [str(archive)])
    (tmp_path / "empty").mkdir()
    info = build_corpus(tmp_path / "corpus", tmp_path / "empty")
    assert "zip" in info.note
    assert info.hash == build_corpus(tmp_path / "other", library).hash


def test_stripped_sources_fall_back_to_documentation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus.sys, "path", [])
    (tmp_path / "empty" / "empty").mkdir(parents=True)
    monkeypatch.setattr(corpus, "SMALLEST_CORPUS", 100_000)
    info = build_corpus(tmp_path / "corpus", tmp_path / "empty" / "empty")
    assert "no library sources" in info.note
    assert info.bytes > 100_000


def test_too_little_text_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus.sys, "path", [])
    monkeypatch.setattr(corpus, "SMALLEST_CORPUS", 1 << 40)
    with pytest.raises(RuntimeError, match="needed"):
        build_corpus(tmp_path / "corpus", tmp_path)
    assert not (tmp_path / "corpus").exists()
