"""Embeddings that need more than this package: a server's `/embeddings`, or a sentence model in a process of its own.

Both block and are called from a worker thread, never from an event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from cognition.embedding import MAX_CHARACTERS, EmbeddingUnavailable
from cognition.worker import Answer, Question

BATCH = 64
MOST_DIMENSIONS = 16_384
Call = Callable[[list[str]], Awaitable[list[list[float]]]]
"""What asks the server: texts in, one vector for each. It brings its own client, key and timeouts."""


def _unit(rows: object, count: int, dimensions: int) -> NDArray[np.float32]:
    """Rows of length 1 (or zero) from what a stranger answered. Raises `EmbeddingUnavailable`."""
    try:
        vectors = np.asarray(rows, dtype=np.float32).reshape(count, dimensions)
    except (ValueError, TypeError):
        raise EmbeddingUnavailable(f"the answer is not {count} vectors of {dimensions} numbers") from None
    if not np.isfinite(vectors).all():
        raise EmbeddingUnavailable("the answer holds numbers that are not finite")
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.where(lengths > 0.0, lengths, 1.0)).astype(np.float32)


class ServerEmbedding:
    """A server's model behind the interface; each text is asked for once and then kept on disk by its hash."""

    def __init__(
        self, call: Call, loop: asyncio.AbstractEventLoop, model: str, dimensions: int, cache: Path,
        timeout: float = 60.0,
    ) -> None:  # fmt: skip
        if not 0 < dimensions <= MOST_DIMENSIONS:
            raise ValueError(f"dimensions must be between 1 and {MOST_DIMENSIONS}")
        self._call, self._loop, self._model, self._timeout = call, loop, model, timeout
        self._dimensions = dimensions
        self._cache = cache / hashlib.sha256(self.name.encode()).hexdigest()[:16]

    @property
    def name(self) -> str:
        """The model; vectors of different models must not be compared."""
        return f"server-{self._model}-{self._dimensions}"

    @property
    def dimensions(self) -> int:
        """Length of a vector."""
        return self._dimensions

    def embed(self, texts: list[str]) -> NDArray[np.float32]:
        """Vectors `[len(texts), dimensions]`. Raises `EmbeddingUnavailable`."""
        vectors = np.zeros((len(texts), self._dimensions), dtype=np.float32)
        missing: dict[str, list[int]] = {}
        for number, text in enumerate(texts):
            text = text[:MAX_CHARACTERS].strip()
            kept = self._kept(text) if text else vectors[number]
            if kept is None:
                missing.setdefault(text, []).append(number)
            else:
                vectors[number] = kept
        wanted = list(missing)
        for start in range(0, len(wanted), BATCH):
            batch = wanted[start : start + BATCH]
            for text, row in zip(batch, self._ask(batch), strict=True):
                vectors[missing[text]] = row
                self._keep(text, row)
        return vectors

    def _ask(self, texts: list[str]) -> NDArray[np.float32]:
        async def ask() -> list[list[float]]:
            async with asyncio.timeout(self._timeout):
                return await self._call(texts)

        future = asyncio.run_coroutine_threadsafe(ask(), self._loop)
        try:
            rows = future.result(self._timeout + 5)
        except Exception as error:  # whatever client was handed in raises its own
            future.cancel()
            why = f"the server gave no embeddings: {type(error).__name__}: {error}"[:300]
            raise EmbeddingUnavailable(why) from None
        return _unit(rows, len(texts), self._dimensions)

    def _file(self, text: str) -> Path:
        return self._cache / f"{hashlib.sha256(text.encode('utf-8', 'replace')).hexdigest()}.f32"

    def _kept(self, text: str) -> NDArray[np.float32] | None:
        try:
            row = np.frombuffer(self._file(text).read_bytes(), dtype="<f4")
        except (OSError, ValueError):
            return None
        return row if row.shape == (self._dimensions,) and np.isfinite(row).all() else None

    def _keep(self, text: str, row: NDArray[np.float32]) -> None:
        # Without room for the cache the vector is merely asked for again.
        with contextlib.suppress(OSError):
            self._cache.mkdir(mode=0o700, parents=True, exist_ok=True)
            half = self._file(text).with_suffix(f".{threading.get_ident()}")
            half.write_bytes(row.astype("<f4").tobytes())
            half.replace(self._file(text))


class LocalEmbedding:
    """A small sentence model whose weights come with its package (extra `embeddings`), in a process of its own.

    Nothing is downloaded. The process starts with the first text and ends with `close` or with its parent.
    """

    dimensions = 256
    name = "wordllama-l2-supercat-256"

    def __init__(self, timeout: float = 60.0) -> None:
        self._timeout = timeout
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def embed(self, texts: list[str]) -> NDArray[np.float32]:
        """Vectors `[len(texts), dimensions]`. Raises `EmbeddingUnavailable`."""
        parts = [texts[start : start + BATCH] for start in range(0, len(texts), BATCH)]
        with self._lock:
            rows = [self._ask([text[:MAX_CHARACTERS] for text in part]) for part in parts]
        return np.concatenate(rows) if rows else np.zeros((0, self.dimensions), dtype=np.float32)

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def _ask(self, texts: list[str]) -> NDArray[np.float32]:
        if self._process is None:
            command = [sys.executable, "-m", "cognition.worker"]
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        watch = threading.Timer(self._timeout, process.kill)
        watch.start()
        try:
            process.stdin.write(msgspec.json.encode(Question(texts)) + b"\n")
            process.stdin.flush()
            answer = msgspec.json.decode(process.stdout.readline(), type=Answer)
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
            self.close()
            raise EmbeddingUnavailable("the sentence model's process ended or did not answer") from None
        finally:
            watch.cancel()
        if answer.error:
            self.close()
            raise EmbeddingUnavailable(answer.error)
        return _unit(answer.vectors, len(texts), self.dimensions)
