"""How the named styles of rows look: dark, light, or without any colour.

Colour only repeats what a word or a sign says already. The pairs that have to be told apart (good and bad, added and
removed) differ in lightness too, for those who see no red or green.
"""

from __future__ import annotations

from rich.style import Style
from textual.theme import Theme

Palette = dict[str, Style]

DARK: Palette = {
    "": Style(color="#c9d1d6"),
    "dim": Style(color="#7f8b93"),
    "faint": Style(color="#4b565e"),
    "rule": Style(color="#39434b"),
    "strong": Style(color="#f0f3f5", bold=True),
    "title": Style(color="#8fbcc9", bold=True),
    "accent": Style(color="#7fb8c9"),
    "good": Style(color="#93c08a"),
    "warn": Style(color="#dbae6a"),
    "bad": Style(color="#e27f78"),
    "alarm": Style(color="#fff4f2", bgcolor="#8f2f2b", bold=True),
    "bar": Style(color="#aeb8be", bgcolor="#1b2228"),
    "bar.strong": Style(color="#f0f3f5", bgcolor="#1b2228", bold=True),
    "bar.dim": Style(color="#7f8b93", bgcolor="#1b2228"),
    "bar.good": Style(color="#93c08a", bgcolor="#1b2228", bold=True),
    "bar.warn": Style(color="#dbae6a", bgcolor="#1b2228", bold=True),
    "bar.bad": Style(color="#f09a93", bgcolor="#1b2228", bold=True),
    "found": Style(color="#12171b", bgcolor="#dbae6a", bold=True),
    "replay": Style(color="#12171b", bgcolor="#b9a3d8", bold=True),
    "cursor": Style(color="#f0f3f5", bgcolor="#263742", bold=True),
    "series.0": Style(color="#8fd0e3"),
    "series.1": Style(color="#d0a86c"),
    "series.2": Style(color="#8d8fa3"),
    "series.3": Style(color="#9cc58f"),
    "series.4": Style(color="#cf9ac4"),
    "series.5": Style(color="#c9c27e"),
    "added": Style(color="#a9d3a0", bgcolor="#18261b"),
    "removed": Style(color="#e8a39d", bgcolor="#2a1b1c"),
    "code.keyword": Style(color="#c4a2d6"),
    "code.string": Style(color="#a3bf8f"),
    "code.number": Style(color="#d6b07e"),
    "code.comment": Style(color="#75818a", italic=True),
    "code.name": Style(color="#8fbcc9"),
}
"""Style names and what they look like. Colour repeats what a word or a sign already says."""

PLAIN: Palette = {
    name: Style(
        bold=name in ("strong", "title", "alarm", "bad", "warn", "bar.strong", "bar.good", "bar.warn", "bar.bad"),
        dim=name in ("dim", "faint", "rule", "series.2"),
        reverse=name.startswith("bar") or name in ("cursor", "alarm", "found", "replay"),
    )
    for name in DARK
}
"""The same names without any colour, for `NO_COLOR`."""

_LIGHT: dict[str, tuple[str, str]] = {
    "": ("#2b3338", ""),
    "dim": ("#5d686f", ""),
    "faint": ("#8d979d", ""),
    "rule": ("#b4bcc1", ""),
    "strong": ("#0e1417", ""),
    "title": ("#1f5f74", ""),
    "accent": ("#1f6f8a", ""),
    "good": ("#2f6b2a", ""),
    "warn": ("#84550b", ""),
    "bad": ("#a3231c", ""),
    "alarm": ("#ffffff", "#a3231c"),
    "bar": ("#3c464c", "#dfe4e7"),
    "bar.strong": ("#0e1417", "#dfe4e7"),
    "bar.dim": ("#66727a", "#dfe4e7"),
    "bar.good": ("#2f6b2a", "#dfe4e7"),
    "bar.warn": ("#7a4c05", "#dfe4e7"),
    "bar.bad": ("#a3231c", "#dfe4e7"),
    "found": ("#0e1417", "#e8c06a"),
    "replay": ("#ffffff", "#6a4a97"),
    "cursor": ("#0e1417", "#c6dbe4"),
    "series.0": ("#12708f", ""),
    "series.1": ("#96600f", ""),
    "series.2": ("#6b6d85", ""),
    "series.3": ("#2f6b2a", ""),
    "series.4": ("#87407a", ""),
    "series.5": ("#6d6512", ""),
    "added": ("#22571e", "#e2f0df"),
    "removed": ("#8f231d", "#f7e3e1"),
    "code.keyword": ("#7a3f97", ""),
    "code.string": ("#3f6b22", ""),
    "code.number": ("#8a5a12", ""),
    "code.comment": ("#7b868d", ""),
    "code.name": ("#1f5f74", ""),
}
LIGHT: Palette = {
    name: Style(
        color=front, bgcolor=back or None, bold=DARK[name].bold, italic=DARK[name].italic,
    )
    for name, (front, back) in _LIGHT.items()
}  # fmt: skip
"""For terminals with a light background."""

THEMES: dict[str, Palette] = {"dark": DARK, "light": LIGHT, "plain": PLAIN}

TEXTUAL_THEMES = (
    Theme(
        name="asi-dark", primary="#7fb8c9", foreground="#c9d1d6", background="#12171b", surface="#12171b",
        panel="#1b2228", dark=True,
    ),
    Theme(
        name="asi-light", primary="#1f6f8a", foreground="#2b3338", background="#f6f8f9", surface="#f6f8f9",
        panel="#dfe4e7", dark=False,
    ),
)  # fmt: skip
"""What Textual itself has to know of the two: the background of a screen."""
