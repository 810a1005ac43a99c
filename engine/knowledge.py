"""What a run knows, listed or looked for: papers and its own lessons, and the watch over what people add."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

from watchfiles import awatch

from cognition.library import Entry
from engine.client.protocol import Knowledge
from engine.laboratory import Laboratory
from engine.memory import Lesson, Memory, cited, told

MOST_WORDS = 2_000
MOST_FOUND = 200
MOST_TEXT = 8_000
MOST_PROBLEMS = 3


def memory_of(laboratory: Laboratory) -> Memory | None:
    """The memory behind a laboratory's `recall`, where it is the engine's own."""
    owner = getattr(laboratory.recall, "__self__", None)
    return owner if isinstance(owner, Memory) else None


async def search(laboratory: Laboratory, words: str, offset: int, limit: int) -> list[Knowledge]:
    """Lessons, newest first, then papers; with words, what bears most on them, each with the reason."""
    memory = memory_of(laboratory)
    if memory is None:
        return []
    if not words.strip():
        known = [_lesson(lesson) for lesson in memory.all_lessons()]
        known += [_paper(entry) for entry in await memory.entries()]
        return known[offset : offset + limit]
    found = await memory.search(words[:MOST_WORDS], min(MOST_FOUND, offset + limit))
    return [
        Knowledge(one.id, one.title, one.text[:MOST_TEXT], one.source, one.why[:400])
        for one in found[offset : offset + limit]
    ]


def _lesson(lesson: Lesson) -> Knowledge:
    doubt = f", contradicted by the later {lesson.contradicted_by}" if lesson.contradicted_by else ""
    why = f"lesson of {lesson.experiment}{doubt}"
    return Knowledge(lesson.id, lesson.title, lesson.text[:MOST_TEXT], f"lesson: {lesson.evidence}", why)


def _paper(entry: Entry) -> Knowledge:
    return Knowledge(entry.identifier, entry.title, told(entry)[:MOST_TEXT], cited(entry), entry.scenario[:400])


async def watch(laboratory: Laboratory) -> None:
    """Take up entries as they are added, to the run or by its owner for all runs; a note says so. Never returns."""
    memory = memory_of(laboratory)
    if memory is None:
        return
    await memory.entries()
    await asyncio.to_thread(_make, memory.folders[-1])
    told_of: set[str] = set()
    while True:
        folders = await asyncio.to_thread(_present, memory.folders)
        fresh = True
        async for changes in awatch(*folders, debounce=300, rust_timeout=1_000, yield_on_timeout=True, recursive=False):
            if changes or fresh:
                told_of = await _take_up(laboratory, memory, told_of)
                fresh = False
            if await asyncio.to_thread(_present, memory.folders) != folders:
                break


def _make(folder: Path) -> None:
    """The run's own folder is made, so that not every file of the run has to be looked at."""
    with contextlib.suppress(OSError):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)


async def _take_up(laboratory: Laboratory, memory: Memory, told_of: set[str]) -> set[str]:
    """Read again and say what is new and what cannot be used; each problem is told once."""
    added, problems = await memory.reload()
    if added:
        what = "1 entry" if len(added) == 1 else f"{len(added)} entries"
        laboratory.runtime.note(f"{what} added to what the run knows: {', '.join(added[:5])}")
    for problem in [problem for problem in problems if problem not in told_of][:MOST_PROBLEMS]:
        laboratory.runtime.note(f"not taken into what the run knows: {problem}", "warning")
    return told_of | set(problems)


def _present(folders: list[Path]) -> list[Path]:
    """A folder that is not there yet is watched for through the nearest one above it."""
    present = []
    for folder in folders:
        while not folder.is_dir():
            folder = folder.parent
        present.append(folder)
    return present
