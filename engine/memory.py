"""What a run can recall: papers, entries added by people, and the run's own lessons, by words and by meaning.

A projection: vectors are made again from the state and the library whenever their file is in doubt. All work happens on
one thread of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal, TypeVar

import msgspec

from cognition.embedding import Embedding, LexicalEmbedding
from cognition.library import Entry, load, user_folder
from cognition.retrieval import Document, Hit, Retriever, of_entry
from engine.runtime import Runtime
from engine.scoring import UNKNOWN
from store.state import Experiment

T = TypeVar("T")
Kind = Literal["paper", "lesson"]
MOST_TEXT = 1_200
RESERVE = 3
"""So many times what is asked for is looked at, so that outranking and shares have something to choose from."""


class Recalled(msgspec.Struct, frozen=True):
    """Something the run knows that bears on a question. `source`: the paper, or the experiment with its score."""

    id: str
    title: str
    text: str
    source: str
    why: str
    kind: Kind


class Lesson(msgspec.Struct, frozen=True):
    """One lesson with its evidence; `contradicted_by` names a later experiment that measured the opposite."""

    id: str
    experiment: str
    title: str
    text: str
    evidence: str
    contradicted_by: str = ""


def verdict(entry: Experiment) -> int:
    """1 better than its parent, -1 worse, 0 not told apart: whether the interval leaves zero out."""
    scored = entry.scored
    if scored is None or scored.against_parent_low is None or scored.against_parent_high is None:
        return 0
    return int(scored.against_parent_low > 0) - int(scored.against_parent_high < 0)


def contradictions(experiments: list[Experiment]) -> dict[str, str]:
    """Experiments whose finding a later one with the same change reversed, each with that later one's id.

    The same change means the same words in `change`; only decided results count, and the latest of them is believed.
    """
    found: dict[str, str] = {}
    latest: dict[str, Experiment] = {}
    for entry in sorted(experiments, key=lambda e: e.opened, reverse=True):
        change = " ".join(entry.change.casefold().split())
        if not change or not verdict(entry):
            continue
        newest = latest.setdefault(change, entry)
        if verdict(newest) != verdict(entry):
            found[entry.id] = newest.id
    return found


def lessons(run: str, experiments: list[Experiment]) -> list[Lesson]:
    """Every lesson of a run with its evidence, newest first."""
    reversed_by = contradictions(experiments)
    made = []
    for entry in sorted(experiments, key=lambda e: e.opened, reverse=True):
        scored = entry.scored
        evidence = f"run {run}, {entry.id}" if run else entry.id
        if scored is not None:
            known = scored.low > -UNKNOWN and scored.high < UNKNOWN
            interval = f"[{scored.low:+.2f}, {scored.high:+.2f}]" if known else "(no interval yet)"
            evidence += f": score {scored.score:+.2f} {interval}"
        for number, text in enumerate(entry.lessons):
            by = reversed_by.get(entry.id, "")
            made.append(Lesson(f"{entry.id}/{number}", entry.id, entry.title, text, evidence, by))
    return made


class _Known(msgspec.Struct):
    """What is under search now."""

    lessons: dict[str, Lesson]
    entries: dict[str, Entry]
    retriever: Retriever


class Memory:
    """What one run knows; `embedding` is the lexical one unless another is handed in."""

    def __init__(
        self, path: Path, runtime: Runtime, embedding: Embedding | None = None, folders: list[Path] | None = None
    ) -> None:
        """`folders` hold added entries; by default the person's own and the run's."""
        self._runtime, self._path = runtime, path
        self._embedding: Embedding = embedding or LexicalEmbedding()
        self.folders = [user_folder(), run_folder(runtime.paths.root)] if folders is None else folders
        self._entries: dict[str, Entry] | None = None
        self._known: _Known | None = None
        self._worker = ThreadPoolExecutor(1, "memory")

    async def recall(self, question: str, count: int) -> list[str]:
        """What bears most on a question, best first, as lines that begin with where each comes from."""
        return [f"[{one.id}] {one.text}" for one in await self.search(question, count)]

    async def search(self, question: str, count: int) -> list[Recalled]:
        """What bears most on a question, best first; a contradicted lesson comes after what contradicts it."""
        if not question.strip() or count < 1:
            return []
        known = self._lessons()
        return await self._do(lambda: self._search(known, question, count))

    async def remember(self, name: str, lesson: str) -> None:
        """Make a lesson of this run findable and save the index."""
        known = self._lessons()
        if name not in known:
            experiment = name.rpartition("/")[0]
            known[name] = Lesson(name, experiment, "", lesson, experiment)
        await self._do(lambda: self._prepare(known))

    async def reload(self) -> tuple[list[str], list[str]]:
        """Read the library again: identifiers that are new, and one line for each file that could not be used."""
        return await self._do(self._reload)

    async def entries(self) -> list[Entry]:
        """All entries of the library as this run knows it."""
        return await self._do(lambda: list(self._library().values()))

    def all_lessons(self) -> list[Lesson]:
        """Every lesson of this run, newest first."""
        state = self._runtime.state
        return lessons(state.name, list(state.experiments.values()))

    def _lessons(self) -> dict[str, Lesson]:
        """Collected on the event loop, where the state cannot change meanwhile."""
        return {lesson.id: lesson for lesson in self.all_lessons()}

    def _library(self) -> dict[str, Entry]:
        if self._entries is None:
            self._entries = {entry.identifier: entry for entry in load(self.folders)[0]}
        return self._entries

    def _reload(self) -> tuple[list[str], list[str]]:
        before = self._library()
        entries, problems = load(self.folders)
        self._entries = {entry.identifier: entry for entry in entries}
        if self._entries != before:
            self._known = None
        return [name for name in self._entries if name not in before], problems

    def _prepare(self, known: dict[str, Lesson]) -> _Known:
        if self._known is None or self._known.lessons.keys() != known.keys():
            entries = self._library()
            documents = [of_entry(entry) for entry in entries.values()]
            documents += [Document(lesson.id, lesson.title, lesson.text) for lesson in known.values()]
            self._known = _Known(known, entries, Retriever(documents, self._embedding, self._path))
        self._known.lessons = known
        return self._known

    def _search(self, lessons: dict[str, Lesson], question: str, count: int) -> list[Recalled]:
        known = self._prepare(lessons)
        hits = known.retriever.find(question, RESERVE * count)
        return [_recalled(known, hit) for hit in outrank(hits, known.lessons, count)[:count]]

    async def _do(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._worker, work)


def outrank(hits: list[Hit], lessons: dict[str, Lesson], count: int) -> list[Hit]:
    """Put a contradicted lesson below those that contradict it; where none came up, an answer's length lower."""
    last = {lessons[hit.id].experiment: place for place, hit in enumerate(hits) if hit.id in lessons}

    def place(numbered: tuple[int, Hit]) -> float:
        number, hit = numbered
        lesson = lessons.get(hit.id)
        if lesson is None or not lesson.contradicted_by:
            return number
        against = last.get(lesson.contradicted_by)
        return number + count if against is None else max(number, against + 0.5)

    return [hit for _, hit in sorted(enumerate(hits), key=place)]


def run_folder(root: Path) -> Path:
    """Where a run keeps the entries that were added to it."""
    return root / "cognition"


def _recalled(known: _Known, hit: Hit) -> Recalled:
    lesson = known.lessons.get(hit.id)
    if lesson is not None:
        doubt = f"; contradicted by the later {lesson.contradicted_by}" if lesson.contradicted_by else ""
        source = f"lesson: {lesson.evidence}"
        return Recalled(hit.id, lesson.title, lesson.text[:MOST_TEXT], source, hit.why + doubt, "lesson")
    entry = known.entries[hit.id]
    return Recalled(hit.id, entry.title, told(entry)[:MOST_TEXT], cited(entry), hit.why, "paper")


def cited(entry: Entry) -> str:
    """Where a paper's entry comes from."""
    authors = f"{entry.authors[0]}{' et al.' if len(entry.authors) > 1 else ''}" if entry.authors else "imported"
    year = f" {entry.year}" if entry.year else ""
    arxiv = f", arXiv:{entry.arxiv}" if entry.arxiv else ""
    return f"paper: {authors}{year}{arxiv}"


def told(entry: Entry) -> str:
    """What a designer needs of an entry first: mechanism, hints, evidence, failures."""
    block = f" Building block: {entry.block}." if entry.block else ""
    parts = (entry.mechanism, entry.hints + block, entry.evidence, entry.failures and f"Fails: {entry.failures}")
    return f"{entry.title}. {' '.join(part.strip() for part in parts if part.strip())}"
