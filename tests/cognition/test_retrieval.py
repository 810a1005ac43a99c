import asyncio
import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from bench import recall
from cognition import keywords
from cognition.backends import LocalEmbedding, ServerEmbedding
from cognition.embedding import EmbeddingUnavailable, LexicalEmbedding
from cognition.keywords import Keywords, kin, words
from cognition.library import papers
from cognition.retrieval import Document, Retriever, of_entry

TEXTS = ["gate decay gate", "parity of bits parity parity", "a window of attention and decay", "", "decay " * 40]


def brute_force(texts: list[str], question: str) -> dict[int, float]:
    """The formula of BM25, term by term."""
    bags = [[stem for stem, _ in words(text)] for text in texts]
    mean = sum(len(bag) for bag in bags) / len(bags)
    full = [Counter([*bag, *kin(bag)]) for bag in bags]
    asked = {stem for stem, _ in words(question)}
    scores = {}
    for number, (bag, counts) in enumerate(zip(bags, full, strict=True)):
        total = 0.0
        for term in asked | set(kin(asked)):
            holders = sum(term in other for other in full)
            idf = math.log(1 + (len(texts) - holders + 0.5) / (holders + 0.5))
            f = counts[term]
            total += idf * f * 2.2 / (f + 1.2 * (1 - 0.75 + 0.75 * len(bag) / mean))
        if total:
            scores[number] = total
    return scores


@pytest.mark.parametrize("question", ["decay gates", "parity window", "nothing shared zebra", ""])
def test_bm25_is_the_formula(question: str) -> None:
    ranked = Keywords(TEXTS).rank(question)
    expected = brute_force(TEXTS, question)
    assert dict(ranked) == pytest.approx(expected)
    assert [number for number, _ in ranked] == sorted(expected, key=lambda n: (-expected[n], n))


def test_words_of_one_meaning_meet() -> None:
    assert keywords.stem("normalisation") == keywords.stem("normalisations")
    assert Keywords(["the memory forgets", "nothing of that"]).rank("decays")[0][0] == 0


@pytest.fixture(scope="module")
def default() -> Retriever:
    return Retriever([of_entry(entry) for entry in papers()], LexicalEmbedding())


def test_the_questions_are_real() -> None:
    known = {entry.identifier for entry in papers()}
    halves = recall.questions()
    asked = [question for half in halves.values() for question, _ in half]
    assert len(asked) == len(set(asked)) >= 40
    assert all(right and set(right) <= known for half in halves.values() for _, right in half)


def test_recall_at_five(default: Retriever) -> None:
    figures = [recall.measure(default, half) for half in recall.HALVES]
    assert sum(half.recall for half in figures) / 2 >= 0.8
    assert min(half.hit for half in figures) >= 0.8


def test_reasons_name_words_and_sentence(default: Retriever) -> None:
    hit = default.find("parity stays at chance", 3)[0]
    assert hit.id == "negative-eigenvalues"
    assert "parity" in hit.why
    assert "rank 1" in hit.why
    assert '"Parity stays at chance' in hit.why


def test_odd_questions(default: Retriever) -> None:
    assert default.find("", 5) == []
    assert default.find("\ud800\x00 ;--", 5) == []
    assert len(default.find("gate " * 100_000, 5)) == 5
    assert default.find("decay", 0) == []
    assert Retriever([], LexicalEmbedding()).find("decay", 5) == []


def test_variety() -> None:
    twin = "gate decay channel memory forgets slowly"
    documents = [Document("a", "t", twin), Document("b", "t", twin), Document("c", "t", "gate parity window bits")]
    assert [hit.id for hit in Retriever(documents, None).find("gate decay channel forgets parity", 2)] == ["a", "c"]


def test_vectors_are_kept_and_follow_the_texts(tmp_path: Path) -> None:
    class Counting(LexicalEmbedding):
        asked = 0

        def embed(self, texts: list[str]) -> np.ndarray:
            Counting.asked += len(texts)
            return super().embed(texts)

    path = tmp_path / "v.usearch"
    documents = [Document("a", "decay", "gates"), Document("b", "parity", "bits")]
    Retriever(documents, Counting(), path)
    assert Counting.asked == 2
    Retriever(documents, Counting(), path)
    assert Counting.asked == 2
    Retriever([*documents, Document("c", "x", "y")], Counting(), path)
    assert Counting.asked == 3
    changed = Retriever([Document("a", "window", "local"), documents[1]], Counting(), path)
    assert changed.find("window", 1)[0].id == "a"


async def test_a_server_is_asked_once_for_each_text(tmp_path: Path) -> None:
    asked: list[list[str]] = []

    async def call(texts: list[str]) -> list[list[float]]:
        asked.append(texts)
        return [[float(len(text)), 1.0] for text in texts]

    def server() -> ServerEmbedding:
        return ServerEmbedding(call, loop, "m", 2, tmp_path)

    loop = asyncio.get_running_loop()
    texts = [*(f"text {number}" for number in range(70)), "text 3", " "]
    vectors = await asyncio.to_thread(server().embed, texts)
    assert [len(batch) for batch in asked] == [64, 6]
    assert np.linalg.norm(vectors, axis=1)[:71] == pytest.approx(1.0, abs=1e-5)
    assert not vectors[71].any()
    again = await asyncio.to_thread(server().embed, texts)
    assert len(asked) == 2
    assert np.array_equal(again, vectors)


@pytest.mark.parametrize("answer", [[[1.0]], [[1.0, 2.0]] * 3, [["a", "b"]], [[float("nan"), 1.0]], None])
async def test_a_bad_server_leaves_the_words(tmp_path: Path, answer: object) -> None:
    async def call(texts: list[str]) -> list[list[float]]:
        if answer is None:
            raise OSError("refused")
        return answer  # type: ignore[return-value]

    server = ServerEmbedding(call, asyncio.get_running_loop(), "m", 2, tmp_path)
    with pytest.raises(EmbeddingUnavailable):
        await asyncio.to_thread(server.embed, ["x"])
    documents = [Document("a", "decay", "gates"), Document("b", "parity", "bits")]
    retriever = await asyncio.to_thread(Retriever, documents, server)
    assert retriever.unavailable
    assert retriever.find("parity", 1)[0].id == "b"


@pytest.fixture
def local() -> Iterator[LocalEmbedding]:
    made = LocalEmbedding(timeout=30)
    yield made
    made.close()


def test_the_sentence_model_or_a_clear_word(local: LocalEmbedding) -> None:
    try:
        cat, kitten, law = local.embed(["a cat", "a kitten", "tax law"])
    except EmbeddingUnavailable as error:
        assert "asi[embeddings]" in str(error)  # noqa: PT017 - either outcome is right
        return
    assert cat @ kitten > cat @ law
