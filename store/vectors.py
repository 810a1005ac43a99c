"""Nearest neighbours by cosine: a usearch index in half precision, exact up to 50,000 vectors.

The index is a cache. usearch has no crash safety and loads damaged files without a word, so a file is written whole
and renamed into place, and its sidecar `<name>.sha256` is checked before usearch sees a byte of it.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray
from usearch.index import Index

EXACT_BELOW = 50_000


class VectorsUnusable(Exception):
    """The saved index is missing, damaged, or of another embedding: add everything again. One line."""


class _Sidecar(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    sha256: str
    embedding: str
    dimensions: int
    labels: dict[int, str]


class Vectors:
    """Vectors `[dimensions]` under integer keys, each with a text label. `embedding` names what made them."""

    def __init__(self, dimensions: int, embedding: str) -> None:
        self.dimensions, self.embedding = dimensions, embedding
        self._index = Index(ndim=dimensions, metric="cos", dtype="f16")
        self._labels: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self._labels)

    def __contains__(self, key: int) -> bool:
        return key in self._labels

    def labels(self) -> dict[int, str]:
        """All keys with their labels."""
        return dict(self._labels)

    def add(self, key: int, label: str, vector: ArrayLike) -> None:
        """Add a vector `[dimensions]`; a key that is there already is replaced.

        Raises:
            ValueError: another shape, or not finite.
        """
        row = self._row(vector)
        if key in self._labels:
            self._index.remove(key)
        self._index.add(key, row)
        self._labels[key] = label

    def search(self, vector: ArrayLike, k: int) -> list[tuple[str, float]]:
        """The k nearest labels with their cosine similarity, best first; nothing is near to a zero vector.

        Raises:
            ValueError: another shape, or not finite.
        """
        row = self._row(vector)
        k = min(k, len(self))
        if k < 1 or not row.any():
            return []
        matches = self._index.search(row, k, exact=len(self) < EXACT_BELOW)
        pairs = zip(matches.keys.tolist(), matches.distances.tolist(), strict=True)
        return [(self._labels[key], 1.0 - distance) for key, distance in pairs]

    def _row(self, vector: ArrayLike) -> NDArray[np.float32]:
        row = np.asarray(vector, dtype=np.float32)
        if row.shape != (self.dimensions,):
            raise ValueError(f"a vector of shape {row.shape} where ({self.dimensions},) belongs")
        if not np.isfinite(row).all():
            raise ValueError("a vector that is not finite")
        return row

    def save(self, path: Path) -> None:
        """Write index and sidecar, each by write, fsync and rename.

        A crash in between leaves a pair that `load` refuses, never one that it believes.
        """
        content = bytes(self._index.save(None) or b"")
        sidecar = _Sidecar(_digest(content, self._labels), self.embedding, self.dimensions, self._labels)
        _replace(path, content)
        _replace(_sidecar_path(path), msgspec.json.encode(sidecar))

    @classmethod
    def load(cls, path: Path, dimensions: int, embedding: str) -> Vectors:
        """Read what `save` wrote, if it is whole and of this embedding.

        Raises:
            VectorsUnusable: it is not; start with an empty one and add everything again.
        """
        try:
            content = path.read_bytes()
            sidecar = msgspec.json.decode(_sidecar_path(path).read_bytes(), type=_Sidecar)
        except FileNotFoundError:
            raise VectorsUnusable("there is no saved index") from None
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise VectorsUnusable(f"the saved index cannot be read: {error}") from None
        if sidecar.sha256 != _digest(content, sidecar.labels):
            raise VectorsUnusable("the saved index does not match its checksum")
        if (sidecar.dimensions, sidecar.embedding) != (dimensions, embedding):
            made = f"{sidecar.embedding} ({sidecar.dimensions} dimensions)"
            raise VectorsUnusable(f"the saved index was made by {made}, not by {embedding} ({dimensions})")
        vectors = cls(dimensions, embedding)
        vectors._index.load(content)
        vectors._labels = sidecar.labels
        if len(vectors._index) != len(sidecar.labels):
            raise VectorsUnusable("the saved index does not hold what its labels say")
        return vectors


def _sidecar_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _digest(content: bytes, labels: dict[int, str]) -> str:
    return hashlib.sha256(msgspec.json.encode(sorted(labels.items())) + content).hexdigest()


def _replace(path: Path, content: bytes) -> None:
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
