"""Earlier proposals whose motivations lie near a new one: fetched here, judged elsewhere."""

from __future__ import annotations

import asyncio

import numpy as np
from numpy.typing import NDArray

from cognition.embedding import LexicalEmbedding
from engine.agents.protocol import Neighbour
from store.state import Experiment

NEAREST = 3


class Neighbours:
    """Embeds each motivation once."""

    def __init__(self) -> None:
        self._embedding = LexicalEmbedding()
        self._known: dict[str, NDArray[np.float32]] = {}
        self._lock = asyncio.Lock()

    async def near(self, entry: Experiment, others: list[Experiment], above: float) -> list[Neighbour]:
        """The nearest of the others, nearest first, as far as their likeness is at least `above`."""
        texts = {one.id: text_of(one) for one in [entry, *others] if one.motivation}
        if entry.id not in texts or len(texts) < 2:
            return []
        async with self._lock:
            await asyncio.to_thread(self._embed, texts)
        own = self._known[entry.id]
        likeness = [(float(own @ self._known[one.id]), one) for one in others if one.id in texts]
        likeness.sort(key=lambda pair: (-pair[0], pair[1].id))
        found = [(value, one) for value, one in likeness[:NEAREST] if value >= above]
        return [Neighbour(one.id, one.title, one.motivation, round(value, 4)) for value, one in found]

    def _embed(self, texts: dict[str, str]) -> None:
        fresh = [name for name in texts if name not in self._known]
        for name, vector in zip(fresh, self._embedding.embed([texts[name] for name in fresh]), strict=True):
            self._known[name] = vector


def text_of(entry: Experiment) -> str:
    """What of a proposal is compared."""
    return f"{entry.title}\n{entry.motivation}"
