import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import cognition
from cognition.embedding import LexicalEmbedding
from cognition.memory import Memory

IDEAS = {
    "decay": "Gated delta rule with a slower, learned decay per channel so that recall over long gaps improves.",
    "window": "A sliding window of softmax attention beside the recurrent state, for exact copying of near tokens.",
    "conv": "A short causal depthwise convolution before keys and values.",
    "parity": "Allow negative eigenvalues in the transition by letting beta range up to two, which solves parity.",
    "norm": "Normalise queries and keys to unit length for stability under large inputs.",
}


def test_vectors_are_unit_and_finite() -> None:
    embedding = LexicalEmbedding()
    texts = [*IDEAS.values(), "", "   \n", "the of and", "naïve Übung 線形注意", "\ud800\x00", "x" * 200_000]
    vectors = embedding.embed(texts)
    assert vectors.shape == (len(texts), embedding.dimensions)
    assert vectors.dtype == np.float32
    lengths = np.linalg.norm(vectors, axis=1)
    first = len(IDEAS)
    blank = [first, first + 1, first + 2, first + 4]  # nothing but white space, common words or broken characters
    assert lengths[blank].tolist() == [0.0] * 4
    assert np.delete(lengths, blank) == pytest.approx(1.0, abs=1e-5)
    assert embedding.embed([]).shape == (0, embedding.dimensions)


def test_the_same_in_every_process() -> None:
    code = "from cognition.embedding import LexicalEmbedding as L; print(L().embed(['slower decay']).tobytes().hex())"
    root = Path(cognition.__file__).parents[1]
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code], cwd=root, env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert outputs == {LexicalEmbedding().embed(["slower decay"]).tobytes().hex()}


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("how slow should the decay of the gated delta rule be?", "decay"),
        ("local softmax attention windows for copying", "window"),
        ("depthwise convolutions on keys", "conv"),
        ("negative eigenvalue transitions and parity", "parity"),
        ("unit-length queries", "norm"),
    ],
)
def test_recall_finds_what_is_meant(question: str, answer: str) -> None:
    memory = Memory(LexicalEmbedding())
    memory.rebuild(IDEAS.items())
    found = memory.recall(question, 3)
    assert found[0][0] == answer
    assert found[0][1] > found[1][1] + 0.05
    assert -1.01 <= found[-1][1] <= found[0][1] <= 1.01


def test_memory_survives_and_knows_when_it_did_not(tmp_path: Path) -> None:
    path = tmp_path / "vectors.usearch"
    memory = Memory(LexicalEmbedding(), path)
    assert memory.needs_rebuild
    memory.rebuild(IDEAS.items())
    assert not memory.needs_rebuild
    memory.remember("decay", "something else entirely: byte language models")
    memory.save()
    again = Memory(LexicalEmbedding(), path)
    assert not again.needs_rebuild
    assert len(again) == len(IDEAS)
    assert "parity" in again
    assert again.recall("byte language model", 1)[0][0] == "decay"
    again.remember("new", "rotary position")
    assert again.recall("rotary positions", 1)[0][0] == "new"
    assert again.recall("something else entirely: byte language models", 1)[0][1] == pytest.approx(1.0, abs=2e-3)
    assert "lexical-1-512" in Memory(LexicalEmbedding(256), path).needs_rebuild
    path.write_bytes(path.read_bytes()[:-1])
    damaged = Memory(LexicalEmbedding(), path)
    assert "checksum" in damaged.needs_rebuild
    assert damaged.recall("anything", 3) == []


def test_without_a_file_nothing_is_written(tmp_path: Path) -> None:
    memory = Memory(LexicalEmbedding())
    assert memory.needs_rebuild == ""
    memory.remember("a", "text")
    memory.save()
    assert list(tmp_path.iterdir()) == []
