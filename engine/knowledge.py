"""What a run has learned, listed or looked for: its own lessons, by words and by nearness."""

from __future__ import annotations

import asyncio

from engine.client.protocol import Knowledge
from engine.laboratory import Laboratory
from store.state import RunState

MOST_WORDS = 50
NEAREST = 20
MOST_LESSON = 8_000


async def search(laboratory: Laboratory, words: str, offset: int, limit: int) -> list[Knowledge]:
    """Lessons, newest first; with words, first those that hold most of them, then those that are near to them."""
    lessons = _lessons(laboratory.runtime.state)
    if not words.strip():
        return lessons[offset : offset + limit]
    near = await laboratory.recall(words[:2_000], min(NEAREST, offset + limit))
    ranked = await asyncio.to_thread(_rank, lessons, words, near)
    return ranked[offset : offset + limit]


def _lessons(state: RunState) -> list[Knowledge]:
    """Every lesson of the run, newest first."""
    learned = sorted((entry for entry in state.experiments.values() if entry.lessons), key=lambda e: e.opened)
    return [
        Knowledge(
            id=f"{entry.id}/{number}",
            title=entry.title,
            text=lesson[:MOST_LESSON],
            source=entry.id,
            why=f"lesson of {entry.id}",
        )
        for entry in reversed(learned)
        for number, lesson in enumerate(entry.lessons)
    ]


def _rank(lessons: list[Knowledge], words: str, near: list[str]) -> list[Knowledge]:
    wanted = list(dict.fromkeys(words.casefold().split()))[:MOST_WORDS]
    nearness = {text[:MOST_LESSON]: place for place, text in enumerate(near)}
    found: list[tuple[int, int, Knowledge]] = []
    for lesson in lessons:
        content = f"{lesson.title}\n{lesson.text}".casefold()
        held = [word for word in wanted if word in content]
        place = nearness.get(lesson.text)
        if not held and place is None:
            continue
        reasons = [f"holds {', '.join(held)}"] if held else []
        reasons += [f"number {place + 1} in nearness of words"] if place is not None else []
        why = f"lesson of {lesson.source}: {'; '.join(reasons)}"
        rank = place if place is not None else len(nearness)
        found.append((-len(held), rank, Knowledge(lesson.id, lesson.title, lesson.text, lesson.source, why[:300])))
    found.sort(key=lambda entry: entry[:2])
    return [knowledge for _, _, knowledge in found]
