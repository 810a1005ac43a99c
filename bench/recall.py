"""How well the library is searched: `python -m bench.recall [--misses]`.

Questions in an analyst's words with the entries that answer them, in two halves: `tune` may be looked at while
retrieval is changed, `held` is only measured. For each back end alone and fused with words: recall@5 (the mean share of
right entries among the first five), hit@5 (whether any is), and MRR (of the first right one).
"""

from __future__ import annotations

import argparse
import functools
import time
import tomllib
from pathlib import Path

import msgspec

from bench.machine import describe
from cognition.backends import LocalEmbedding
from cognition.embedding import Embedding, LexicalEmbedding
from cognition.library import papers
from cognition.retrieval import Retriever, of_entry

HALVES = ("tune", "held")
FIRST = 5
DEEP = 50


class Figures(msgspec.Struct, frozen=True):
    """What one back end reaches on one half."""

    recall: float
    hit: float
    mrr: float
    milliseconds: float
    misses: list[tuple[str, list[str], list[str]]]


@functools.cache
def questions() -> dict[str, list[tuple[str, list[str]]]]:
    """Both halves: pairs of a question and the identifiers that answer it."""
    content = (Path(__file__).parent / "questions.toml").read_text()
    return msgspec.convert(tomllib.loads(content), dict[str, list[tuple[str, list[str]]]])


def measure(retriever: Retriever, half: str) -> Figures:
    """Ask every question of a half."""
    recall = hit = rank = 0.0
    misses = []
    begun = time.perf_counter()
    asked = questions()[half]
    for question, right in asked:
        found = [one.id for one in retriever.find(question, DEEP)]
        share = sum(name in right for name in found[:FIRST]) / min(FIRST, len(right))
        recall += share
        hit += share > 0
        rank += next((1 / place for place, name in enumerate(found, 1) if name in right), 0.0)
        if share < 1:
            misses.append((question, right, found[:FIRST]))
    spent = (time.perf_counter() - begun) * 1000 / len(asked)
    return Figures(recall / len(asked), hit / len(asked), rank / len(asked), spent, misses)


def retrievers() -> dict[str, Retriever]:
    """Each back end alone and fused with words; the sentence model only where its package is installed."""
    documents = [of_entry(entry) for entry in papers()]
    lexical: Embedding = LexicalEmbedding()
    made = {
        "words": Retriever(documents, None),
        "lexical": Retriever(documents, lexical, by_words=False),
        "words + lexical (default)": Retriever(documents, lexical),
    }
    local = LocalEmbedding()
    alone = Retriever(documents, local, by_words=False)
    if alone.unavailable:
        print(f"sentence model: {alone.unavailable}")
        return made
    made["sentence model"] = alone
    made["words + sentence model"] = Retriever(documents, local)
    return made


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(prog="python -m bench.recall", description="how well the library is searched")
    parser.add_argument("--misses", action="store_true", help="list incomplete answers of the `tune` half")
    options = parser.parse_args()
    print(describe())
    begun = time.perf_counter()
    print(f"{len(papers())} entries, loaded in {1000 * (time.perf_counter() - begun):.0f} ms; ", end="")
    print(f"questions: {', '.join(f'{len(questions()[half])} {half}' for half in HALVES)}")
    made = retrievers()
    print(f"\n{'':<28}" + "".join(f"{half:>8}: recall@5  hit@5    MRR" for half in HALVES) + "   ms")
    for name, retriever in made.items():
        rows = [measure(retriever, half) for half in HALVES]
        cells = "".join(f"{'':>8}  {row.recall:>8.2f} {row.hit:>6.2f} {row.mrr:>6.2f}" for row in rows)
        print(f"{name:<28}{cells}  {rows[-1].milliseconds:>4.1f}")
        if options.misses:
            for question, right, found in rows[0].misses:
                print(f"    {question}\n      right {', '.join(right)}\n      gets  {', '.join(found)}")


if __name__ == "__main__":
    main()
