"""Nothing that a model writes may reach the terminal as anything but visible characters."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.segment import Segment
from textual.color import Color

from asi_tui.safe import ControlFilter, clean, clean_lines, safe

HOSTILE = {
    "clipboard": "\x1b]52;c;Y3VybCBldmls\x07",
    "title": "\x1b]0;ALL STOPPED\x07",
    "clear": "\x1b[2J\x1b[H everything is dead",
    "c1": "\x9b2J\x9d52;c;eA==\x9c",
    "carriage": "safe\rEVIL\x08\x08",
    "bidi": "approve \u202egnihton\u202c \u2066x\u2069",
    "invisible": "a\u200b\u2060\ufeff\U000e0041b",
    "surrogate": "\ud800",
    "newline": "one\ntwo\u2028three",
    "markup": "[@click=app.approve]yes[/] x[/]",
}


def harmless(text: str) -> bool:
    return all(unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Zl", "Zp") for character in text)


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_text_becomes_visible(text: str) -> None:
    assert harmless(clean(text))
    assert all(harmless(line) for line in clean_lines(text))


def test_marks_say_what_was_there() -> None:
    assert clean("\x1b[2J") == "␛[2J"
    assert clean("a\u202eb") == "a⟨202e⟩b"
    assert clean("a\tb") == "a    b"


@given(st.text(alphabet=st.characters(), max_size=200), st.integers(1, 60))
def test_any_text_is_harmless_bounded_and_cleaning_again_changes_nothing(text: str, limit: int) -> None:
    cleaned = clean(text, limit)
    assert harmless(cleaned)
    assert len(cleaned) <= limit
    assert clean(cleaned, limit) == cleaned


def test_markup_stays_text() -> None:
    content = safe("[@click=app.approve]yes[/] x[/]")
    assert content.plain == "[@click=app.approve]yes[/] x[/]"
    assert not content.spans


def test_ordinary_text_passes_unchanged() -> None:
    text = "Größe β∈(0,2), 線形 attention: ±0.4 █▇▆"
    assert clean(text) == text


def test_long_text_is_cut_and_says_so() -> None:
    assert clean("x" * 50, 10) == "x" * 9 + "…"
    assert clean_lines("x" * 50, limit=10)[-1] == "… 40 more characters are not shown"


def test_stacked_marks_are_limited() -> None:
    assert len(clean("e" + "\u0301" * 500)) <= 4


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_second_wall(text: str) -> None:
    painted = ControlFilter().apply([Segment("before"), Segment(text), Segment("after")], Color(0, 0, 0))
    assert [painted[0].text, painted[2].text] == ["before", "after"]
    assert harmless(painted[1].text)
