"""Ranking by words: Okapi BM25 (Robertson & Zaragoza 2009) over lightly stemmed words."""

from __future__ import annotations

import functools
import math
import re
import tomllib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from cognition.embedding import COMMON, MAX_CHARACTERS

K1, B = 1.2, 0.75
KIN = 1.0
"""Weight of a synonym against the word itself."""
_WORD = re.compile(r"[^\W_]+")
_IDLE = COMMON | frozenset(
    _WORD.findall(
        "has have had not no but than then there they their them so one into when what how does do did can could would "
        "should will may might very much more most less few only just also too been being over while where who whose "
        "why if all any each other some such same our we you i s t"
    )
)
_ENDINGS = (
    "izations", "isations", "ization", "isation", "ations", "nesses", "ation", "ments", "ingly", "ness", "ment", "ions",
    "ings", "edly", "ion", "ing", "ies", "ers", "ely", "ity", "ed", "es", "er", "ly", "al", "s", "e", "y",
)  # fmt: skip


def stem(word: str) -> str:
    """A word without its ending; short words stay as they are."""
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= 4:
            return word[: -len(ending)]
    return word


def words(text: str) -> list[tuple[str, str]]:
    """The words that say something, each with its stem."""
    found = _WORD.findall(text[:MAX_CHARACTERS].casefold())
    return [(stem(word), word) for word in found if word not in _IDLE and (len(word) > 1 or word.isdigit())]


@functools.cache
def _groups() -> dict[str, list[str]]:
    """The groups of synonyms that each stem belongs to."""
    content = (Path(__file__).parent / "synonyms.toml").read_text()
    groups: dict[str, list[str]] = {}
    for name, members in tomllib.loads(content).items():
        for member in members:
            for stemmed, _ in words(member):
                known = groups.setdefault(stemmed, [])
                if f"~{name}" not in known:
                    known.append(f"~{name}")
    return groups


def kin(stems: Iterable[str]) -> list[str]:
    """The groups of synonyms that these stems stand for, one for each time."""
    groups = _groups()
    return [group for stemmed in stems for group in groups.get(stemmed, ())]


class Keywords:
    """Texts under their positions, ranked by the words that they share with a question."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._postings: dict[str, dict[int, int]] = defaultdict(dict)
        self._lengths: list[int] = []
        for number, text in enumerate(texts):
            stems = [stemmed for stemmed, _ in words(text)]
            self._lengths.append(len(stems))
            counts = Counter([*stems, *kin(stems)])
            for stemmed, count in counts.items():
                self._postings[stemmed][number] = count
        self._mean = sum(self._lengths) / len(self._lengths) if self._lengths else 1.0

    def weight(self, stemmed: str) -> float:
        """How much a word tells: rare ones tell more."""
        holders = len(self._postings.get(stemmed, ()))
        return math.log(1 + (len(self._lengths) - holders + 0.5) / (holders + 0.5))

    def rank(self, question: str) -> list[tuple[int, float]]:
        """Positions of texts that share a word, with their scores, best first."""
        scores: dict[int, float] = defaultdict(float)
        stems = {stemmed for stemmed, _ in words(question)}
        for stemmed in sorted(stems | set(kin(stems))):
            weight = self.weight(stemmed) * (KIN if stemmed.startswith("~") else 1.0)
            for number, count in self._postings.get(stemmed, {}).items():
                norm = K1 * (1 - B + B * self._lengths[number] / (self._mean or 1.0))
                scores[number] += weight * count * (K1 + 1) / (count + norm)
        return sorted(scores.items(), key=lambda pair: (-pair[1], pair[0]))
