"""Finding what bears on a question: ranking by words and by embedding, fused, diversified, and with reasons.

Reciprocal rank fusion (Cormack et al. 2009) joins the two rankings, whose scores cannot be compared; maximal marginal
relevance (Carbonell & Goldstein 1998) keeps the answer from being one idea several times over.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

import msgspec

from cognition.embedding import Embedding, EmbeddingUnavailable
from cognition.keywords import Keywords, words
from cognition.library import Entry
from cognition.memory import Memory

FUSION = 60
MEANING = {"lexical": 0.05}
"""Weight of the ranking by embedding against that by words, by the first word of the embedding's name; else 0.5.
Hashed words are the words once more without their rarity, so they decide little beside them."""
DEEP = 60
"""So many places of each ranking take part in the fusion."""
VARIETY = 0.05
"""Share of the choice that goes to being unlike what is chosen already."""
MOST_QUESTION = 4_000
_SENTENCE = re.compile(r"(?<=[.:;?!])\s+")


class Document(msgspec.Struct, frozen=True):
    """A text that can be found. `symptoms` is what the reasons quote from; it is part of what is searched."""

    id: str
    title: str
    symptoms: str
    text: str = ""

    @property
    def searched(self) -> str:
        """Everything that a question is held against."""
        return f"{self.title}. {self.symptoms} {self.text}"


class Hit(msgspec.Struct, frozen=True):
    """A document that came up, and why."""

    id: str
    score: float
    why: str


def of_entry(entry: Entry) -> Document:
    """How a paper is searched: by the situation that calls for it, its mechanism and its title."""
    return Document(entry.identifier, entry.title, entry.scenario, f"{entry.mechanism} {' '.join(entry.tags)}")


class Retriever:
    """Documents under search. `embedding` None ranks by words alone; `by_words` False by embedding alone."""

    def __init__(
        self, documents: Sequence[Document], embedding: Embedding | None, path: Path | None = None,
        by_words: bool = True,
    ) -> None:  # fmt: skip
        self._documents = list(documents)
        self._at = {_label(document): number for number, document in enumerate(self._documents)}
        self._keywords = Keywords([document.searched for document in self._documents]) if by_words else None
        self._stems = [{stemmed for stemmed, _ in words(document.searched)} for document in self._documents]
        self._memory: Memory | None = None
        self._meaning = MEANING.get(embedding.name.partition("-")[0], 0.5) if embedding is not None else 0.0
        self.unavailable = ""
        if embedding is not None:
            self._memory = Memory(embedding, path)
            try:
                self._fill(self._memory)
            except EmbeddingUnavailable as error:
                self._give_up(error)

    def _give_up(self, error: EmbeddingUnavailable) -> None:
        """Words still find things where the embedding cannot be had."""
        self._memory, self.unavailable = None, str(error)

    def _fill(self, memory: Memory) -> None:
        """Bring the vectors up to the documents; vectors of documents that are gone are dropped with a rebuild."""
        missing = [(label, self._documents[at].searched) for label, at in self._at.items() if label not in memory]
        if memory.needs_rebuild or len(memory) + len(missing) > len(self._at):
            memory.rebuild([(label, self._documents[at].searched) for label, at in self._at.items()])
        elif missing:
            memory.remember_all(missing)
        else:
            return
        memory.save()

    def find(self, question: str, count: int) -> list[Hit]:
        """The documents that bear most on a question, best first, each with its reasons."""
        question = question[:MOST_QUESTION]
        by_words = self._by_words(question)
        by_meaning = self._by_meaning(question)
        fused: dict[int, float] = {}
        for ranking, weight in ((by_words, 1.0), (by_meaning, self._meaning)):
            for number, place in ranking.items():
                fused[number] = fused.get(number, 0.0) + weight / (FUSION + place)
        return [
            Hit(self._documents[number].id, fused[number], self._why(question, number, by_words, by_meaning))
            for number in self._varied(fused, count)
        ]

    def _by_words(self, question: str) -> dict[int, int]:
        if self._keywords is None:
            return {}
        ranked = self._keywords.rank(question)[:DEEP]
        return {number: place for place, (number, _) in enumerate(ranked, 1)}

    def _by_meaning(self, question: str) -> dict[int, int]:
        if self._memory is None or not question.strip():
            return {}
        try:
            near = self._memory.recall(question, DEEP)
        except EmbeddingUnavailable as error:
            self._give_up(error)
            return {}
        known = [self._at[label] for label, similarity in near if similarity > 0 and label in self._at]
        return {number: place for place, number in enumerate(known, 1)}

    def _varied(self, fused: dict[int, float], count: int) -> list[int]:
        """Maximal marginal relevance; likeness is the share of words in common."""
        best = max(fused.values(), default=1.0)
        left = sorted(fused, key=lambda number: (-fused[number], number))[: max(20, 4 * count)]
        chosen: list[int] = []
        likeness = dict.fromkeys(left, 0.0)
        while left and len(chosen) < count:
            pick = max(left, key=lambda n: (1 - VARIETY) * fused[n] / best - VARIETY * likeness[n])
            left.remove(pick)
            chosen.append(pick)
            for number in left:
                shared = len(self._stems[number] & self._stems[pick])
                union = len(self._stems[number] | self._stems[pick]) or 1
                likeness[number] = max(likeness[number], shared / union)
        return chosen

    def _why(self, question: str, number: int, by_words: dict[int, int], by_meaning: dict[int, int]) -> str:
        asked = {stemmed for stemmed, _ in words(question)}
        document = self._documents[number]
        weigh = self._keywords.weight if self._keywords else lambda stemmed: 1.0
        shared = {s: w for s, w in words(document.searched) if s in asked}
        telling = sorted(shared, key=lambda s: (-weigh(s), s))[:5]
        reasons = []
        if number in by_words:
            named = ", ".join(shared[s] for s in telling) or "of the same meaning"
            reasons.append(f"words {named} (rank {by_words[number]})")
        if number in by_meaning:
            reasons.append(f"near in meaning (rank {by_meaning[number]})")
        sentences = _SENTENCE.split(document.symptoms)
        values = [sum(weigh(s) for s in {s for s, _ in words(sentence)} & asked) for sentence in sentences]
        if max(values, default=0.0) > 0:
            reasons.append(f'"{sentences[values.index(max(values))][:200]}"')
        return "; ".join(reasons)


def _label(document: Document) -> str:
    """Changes with the text, so that a vector of an older text is never taken for the new one's."""
    return f"{document.id}#{hashlib.blake2b(document.searched.encode('utf-8', 'replace'), digest_size=6).hexdigest()}"
