"""How alike a program is to those before it, by the pieces that both are made of."""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from collections.abc import Callable

import msgspec

COMPARED = 200
"""So many of the newest earlier programs are compared."""
KNOWN = 2 * COMPARED
PIECES = 1024
"""So many pieces of a program are kept, the smallest ones: two such samples estimate the likeness of the wholes."""

Sketch = frozenset[int]


class Nearest(msgspec.Struct, frozen=True):
    """The earlier program that is most like a given one: its experiment, empty for none, and their likeness, 0 to 1."""

    experiment: str = ""
    likeness: float = 0.0


class Resemblance:
    """Takes each program apart once; shared by all experiments of a run."""

    def __init__(self) -> None:
        self._sketches: OrderedDict[str, Sketch] = OrderedDict()
        self._lock = threading.Lock()

    async def nearest(
        self, program: str, others: list[tuple[str, str]], take_apart: Callable[[str], Sketch]
    ) -> Nearest:
        """The most alike of `others`, (experiment, program) pairs with the newest last; programs go by their hash.

        take_apart: from a program's hash to its pieces; it is called off the event loop.
        """
        return await asyncio.to_thread(self._nearest, program, others[-COMPARED:], take_apart)

    def _nearest(self, program: str, others: list[tuple[str, str]], take_apart: Callable[[str], Sketch]) -> Nearest:
        own = self._sketch(program, take_apart)
        best = Nearest()
        for experiment, other in others:
            value = likeness(own, self._sketch(other, take_apart))
            if value > best.likeness:
                best = Nearest(experiment, round(value, 4))
        return best

    def _sketch(self, program: str, take_apart: Callable[[str], Sketch]) -> Sketch:
        with self._lock:
            known = self._sketches.pop(program, None)
        # Two threads may take the same program apart; what comes out is the same.
        sketch = frozenset(sorted(take_apart(program))[:PIECES]) if known is None else known
        with self._lock:
            self._sketches[program] = sketch
            while len(self._sketches) > KNOWN:
                self._sketches.popitem(last=False)
        return sketch


def likeness(a: Sketch, b: Sketch) -> float:
    """The share of pieces that both have of those that either has; 0 when nothing is known of one."""
    if not a or not b:
        return 0.0
    either = sorted(a | b)[:PIECES]
    return sum(piece in a and piece in b for piece in either) / len(either)
