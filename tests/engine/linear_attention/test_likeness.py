"""How alike two programs are, and how far a repair strays from what it repairs."""

from __future__ import annotations

import pytest

from engine.linear_attention import baselines
from engine.linear_attention.likeness import change, fingerprint
from engine.resemblance import PIECES, Resemblance, likeness

KDA = baselines.source("kda")
GLA = baselines.source("gla")


def alike(a: str, b: str) -> float:
    return likeness(fingerprint(a), fingerprint(b))


def test_names_comments_and_layout_make_no_program_new() -> None:
    copy = KDA.replace("log_decay", "leak").replace("self.strength", "self.beta").replace("x: Tensor", "u: Tensor")
    copy = copy.replace("(x)", "(u)").replace("self.forget", "self.wipe").replace("def mix", "def mix  ")
    copy = copy.replace('"""The whole sequence."""', "# all of it")
    assert copy.count("\n") == KDA.count("\n") and copy != KDA
    assert alike(KDA, copy) == 1.0


def test_a_small_change_is_near_and_another_idea_is_far() -> None:
    small = KDA.replace("F.silu(v)", "F.gelu(v)")
    assert 0.8 < alike(KDA, small) < 1.0
    assert alike(KDA, GLA) < alike(KDA, small) - 0.2
    assert alike(KDA, "def broken(") == 0.0


def test_a_sample_of_the_pieces_estimates_the_likeness_of_the_wholes() -> None:
    a, b = frozenset(range(0, 30_000, 3)), frozenset(range(0, 30_000, 6))
    exact = len(a & b) / len(a | b)
    cut = [frozenset(sorted(side)[:PIECES]) for side in (a, b)]
    assert likeness(*cut) == pytest.approx(exact, abs=0.05)


async def test_only_the_newest_are_compared_and_each_is_taken_apart_once() -> None:
    texts = {f"p{n}": f"x = {n}\n" * (n % 7 + 1) for n in range(300)}
    taken: list[str] = []

    def take_apart(program: str) -> frozenset[int]:
        taken.append(program)
        return fingerprint(texts[program])

    texts["new"], texts["old"] = texts["p250"], texts["p3"]
    known, others = Resemblance(), [(f"e{n}", f"p{n}") for n in range(300)]
    found = await known.nearest("new", others, take_apart)
    assert (found.experiment, found.likeness) == ("e250", 1.0)
    assert len(taken) == len(set(taken)) == 201 and "p50" not in taken
    assert (await known.nearest("old", others, take_apart)).likeness < 1.0
    assert len(taken) == 202
    assert (await known.nearest("new", [], take_apart)).experiment == ""


def test_drift_is_the_share_of_changed_lines_and_where_they_are() -> None:
    assert change(KDA, KDA.replace('"""The whole sequence."""', '"""All of it."""')).share == 0
    small = change(KDA, KDA.replace("F.silu(v)", "F.gelu(v)"))
    assert small.where == ["Mixer.mix"] and 0 < small.share < 0.1
    # Lines that change places are a change, though none is new.
    swapped = change("def f(a):\n    a = g(a)\n    a = h(a)\n", "def f(a):\n    a = h(a)\n    a = g(a)\n")
    assert swapped.where == ["f"] and swapped.share > 0
    large = change(KDA, GLA)
    assert small.share < large.share <= 1.0 and "Mixer.mix" in large.where
    outside = change(KDA, KDA.replace("class Mixer", "LIMIT = 3\n\n\nclass Mixer"))
    assert outside.where == ["the module"]
    assert change(KDA, "def broken(").share == 1.0
