import os
import random
from pathlib import Path

import numpy as np
import pytest

from store import vectors
from store.vectors import Vectors, VectorsUnusable


def filled(count: int = 200, dimensions: int = 32) -> tuple[Vectors, np.ndarray]:
    rows = np.random.default_rng(0).normal(size=(count, dimensions)).astype(np.float32)
    found = Vectors(dimensions, "test-1")
    for key, row in enumerate(rows):
        found.add(key, f"v{key}", row)
    return found, rows


def test_search_is_exact() -> None:
    found, rows = filled()
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    for key in range(0, 200, 17):
        cosine = unit @ unit[key]
        best = np.argsort(-cosine)[:5]
        result = found.search(rows[key], 5)
        assert [label for label, _ in result] == [f"v{i}" for i in best]
        assert [score for _, score in result] == pytest.approx(cosine[best].tolist(), abs=2e-3)


def test_edges() -> None:
    empty = Vectors(4, "test-1")
    assert empty.search(np.ones(4), 3) == []
    empty.add(7, "a", np.eye(4)[0])
    empty.add(7, "b", np.eye(4)[1])
    assert len(empty) == 1
    assert empty.search(np.eye(4)[1], 9) == [("b", pytest.approx(1.0))]
    assert empty.search(np.zeros(4), 9) == []
    for wrong in (np.ones(3), np.ones((2, 2)), [1, 2, 3, float("nan")], [1, 2, 3, float("inf")]):
        with pytest.raises(ValueError, match="vector"):
            empty.add(8, "c", wrong)
        with pytest.raises(ValueError, match="vector"):
            empty.search(wrong, 1)


def test_saved_and_loaded(tmp_path: Path) -> None:
    found, rows = filled()
    found.add(3, "again", rows[4])
    path = tmp_path / "vectors.usearch"
    found.save(path)
    loaded = Vectors.load(path, 32, "test-1")
    assert loaded.labels() == found.labels()
    for row in rows[:20]:
        assert loaded.search(row, 4) == found.search(row, 4)
    loaded.add(1000, "new", rows[0])
    assert len(loaded) == 201
    assert sorted(os.listdir(tmp_path)) == ["vectors.usearch", "vectors.usearch.sha256"]


def test_in_doubt_nothing_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "vectors.usearch"
    with pytest.raises(VectorsUnusable, match="no saved index"):
        Vectors.load(path, 32, "test-1")
    found, _ = filled(50)
    found.save(path)
    with pytest.raises(VectorsUnusable, match="test-1"):
        Vectors.load(path, 32, "test-2")
    with pytest.raises(VectorsUnusable, match="32 dimensions"):
        Vectors.load(path, 64, "test-1")
    draw = random.Random(0)
    for file in (path, tmp_path / "vectors.usearch.sha256"):
        content = file.read_bytes()
        for position in draw.sample(range(len(content)), 60):
            damaged = bytearray(content)
            damaged[position] ^= 1 << draw.randrange(8)
            file.write_bytes(damaged)
            with pytest.raises(VectorsUnusable):
                Vectors.load(path, 32, "test-1")
        for length in draw.sample(range(len(content)), 10):
            file.write_bytes(content[:length])
            with pytest.raises(VectorsUnusable):
                Vectors.load(path, 32, "test-1")
        file.write_bytes(content)
    assert len(Vectors.load(path, 32, "test-1")) == 50


def test_a_crash_between_index_and_sidecar_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "vectors.usearch"
    found, rows = filled(50)
    found.save(path)
    found.add(50, "v50", rows[0])
    real = vectors._replace

    def crash(target: Path, content: bytes) -> None:
        if target.suffix == ".sha256":
            raise KeyboardInterrupt
        real(target, content)

    monkeypatch.setattr(vectors, "_replace", crash)
    with pytest.raises(KeyboardInterrupt):
        found.save(path)
    with pytest.raises(VectorsUnusable, match="checksum"):
        Vectors.load(path, 32, "test-1")
