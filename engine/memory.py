"""The run's own lessons, found again by meaning. A projection: rebuilt from the state whenever its file is in doubt."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from cognition import memory
from cognition.embedding import LexicalEmbedding
from engine.runtime import Runtime

T = TypeVar("T")


class Memory:
    """Lessons of this run; all work happens on one thread of its own."""

    def __init__(self, path: Path, runtime: Runtime) -> None:
        self._runtime = runtime
        self._path = path
        self._memory: memory.Memory | None = None
        self._worker = ThreadPoolExecutor(1, "memory")

    def _lessons(self) -> list[tuple[str, str]]:
        return [
            (f"{entry.id}/{number}", lesson)
            for entry in self._runtime.state.experiments.values()
            for number, lesson in enumerate(entry.lessons)
        ]

    async def recall(self, question: str, count: int) -> list[str]:
        """The lessons nearest to a question, best first."""
        lessons = dict(self._lessons())
        if not lessons or not question.strip():
            return []
        found = await self._do(lambda known: known.recall(question, count), lessons)
        return [lessons[name] for name, similarity in found if similarity > 0 and name in lessons]

    async def remember(self, name: str, lesson: str) -> None:
        """Make a lesson findable and save the index."""

        def add(known: memory.Memory) -> list[tuple[str, float]]:
            known.remember(name, lesson)
            known.save()
            return []

        await self._do(add, dict(self._lessons()))

    async def _do(self, work: Callable[[memory.Memory], T], lessons: dict[str, str]) -> T:
        def run() -> T:
            if self._memory is None:
                self._memory = memory.Memory(LexicalEmbedding(), self._path)
            if self._memory.needs_rebuild or any(name not in self._memory for name in lessons):
                self._memory.rebuild(lessons.items())
            return work(self._memory)

        return await asyncio.get_running_loop().run_in_executor(self._worker, run)
