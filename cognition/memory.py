"""What the loop can recall by meaning: texts under ids, found again by what they have in common with a question."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from cognition.embedding import Embedding
from store.vectors import Vectors, VectorsUnusable


class Memory:
    """Texts by id. It keeps vectors only; the texts themselves stay where they came from, the journal.

    `needs_rebuild` says why the saved index could not be used; it is empty where nothing was wrong.
    """

    def __init__(self, embedding: Embedding, path: Path | None = None) -> None:
        """Load the index at `path` where it can be believed; None keeps the memory in this process only."""
        self.needs_rebuild = ""
        self._embedding, self._path = embedding, path
        self._vectors = Vectors(embedding.dimensions, embedding.name)
        if path is not None:
            try:
                self._vectors = Vectors.load(path, embedding.dimensions, embedding.name)
            except VectorsUnusable as unusable:
                self.needs_rebuild = str(unusable)
        self._keys = {label: key for key, label in self._vectors.labels().items()}

    def __len__(self) -> int:
        return len(self._vectors)

    def __contains__(self, id: str) -> bool:
        return id in self._keys

    def remember(self, id: str, text: str) -> None:
        """Make a text findable; a known id gets the new text."""
        key = self._keys.setdefault(id, len(self._keys))
        self._vectors.add(key, id, self._embedding.embed([text])[0])

    def remember_all(self, items: list[tuple[str, str]]) -> None:
        """Make several texts findable with one call of the embedding."""
        for (id, _), vector in zip(items, self._embedding.embed([text for _, text in items]), strict=True):
            self._vectors.add(self._keys.setdefault(id, len(self._keys)), id, vector)

    def recall(self, text: str, k: int = 5) -> list[tuple[str, float]]:
        """The ids of the k nearest texts with their cosine similarity, best first."""
        return self._vectors.search(self._embedding.embed([text])[0], k)

    def rebuild(self, items: Iterable[tuple[str, str]]) -> None:
        """Forget everything and remember `items`, pairs of id and text."""
        self._vectors = Vectors(self._embedding.dimensions, self._embedding.name)
        self._keys = {}
        self.remember_all(list(items))
        self.needs_rebuild = ""

    def save(self) -> None:
        """Write the index to its file, if it has one."""
        if self._path is not None:
            self._vectors.save(self._path)
