"""Texts as vectors. One interface; the lexical one needs no model, no download and no training.

Embeddings only fetch neighbours: opposite ideas ("raise the decay", "lower the decay") lie close together in all.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from itertools import pairwise
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

_WORD = re.compile(r"[^\W_]+")
MAX_CHARACTERS = 20_000
"""Longer texts are embedded by their beginning."""
COMMON = frozenset(
    _WORD.findall("a an and are as at be by for from in is it its of on or that the this to was we were which with")
)
"""Words that say nothing about a text's subject."""


class EmbeddingUnavailable(Exception):
    """The vectors cannot be had now: a server that does not answer, a package that is not installed. One line."""


class Embedding(Protocol):
    """Turns texts into vectors of length 1 whose cosine says how much two texts have in common."""

    @property
    def name(self) -> str:
        """What made the vectors; vectors of different names must not be compared."""

    @property
    def dimensions(self) -> int:
        """Length of a vector."""

    def embed(self, texts: list[str]) -> NDArray[np.float32]:
        """Vectors `[len(texts), dimensions]`; a text without content gets the zero vector."""


WEIGHTS = {"w": 1.0, "p": 0.6, "c": 0.35}
"""Of a word, a pair of neighbouring words, a character trigram."""


class LexicalEmbedding:
    """Hashed words, pairs of neighbouring words and character trigrams, with sublinear term frequency.

    Each feature goes to one dimension with a random sign (Weinberger et al. 2009, "Feature Hashing for Large Scale
    Multitask Learning"); the hash is a fixed one, so that the same text has the same vector in every process.
    """

    def __init__(self, dimensions: int = 512) -> None:
        self._dimensions = dimensions

    @property
    def name(self) -> str:
        """Changes whenever the vectors of a text would."""
        return f"lexical-1-{self._dimensions}"

    @property
    def dimensions(self) -> int:
        """Length of a vector."""
        return self._dimensions

    def embed(self, texts: list[str]) -> NDArray[np.float32]:
        """Vectors `[len(texts), dimensions]`, of length 1 or zero."""
        vectors = np.zeros((len(texts), self._dimensions), dtype=np.float32)
        for row, text in zip(vectors, texts, strict=True):
            for feature, count in Counter(_features(text)).items():
                digest = int.from_bytes(hashlib.blake2b(feature.encode("utf-8", "replace"), digest_size=8).digest())
                sign = 1.0 if digest & 1 else -1.0
                row[(digest >> 1) % self._dimensions] += sign * WEIGHTS[feature[0]] * (1.0 + np.log(count))
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        vectors /= np.where(lengths > 0.0, lengths, 1.0)
        return vectors


def _features(text: str) -> list[str]:
    words = [word for word in _WORD.findall(text[:MAX_CHARACTERS].casefold()) if word not in COMMON]
    features = [f"w{word}" for word in words]
    features += [f"p{first} {second}" for first, second in pairwise(words)]
    for word in words:
        marked = f"<{word}>"
        features += [f"c{marked[i : i + 3]}" for i in range(len(marked) - 2)]
    return features
