"""Syntax colours for one line of a program: enough to read it by, never more than styles of inert text."""

from __future__ import annotations

import keyword
import re

from asi_tui.lines import Row, Span, row

_TOKENS = re.compile(
    r"""(?P<comment>\#.*)|(?P<string>[rbfuRBFU]{0,2}(?:"(?:\\.|[^"\\])*"?|'(?:\\.|[^'\\])*'?))"""
    r"""|(?P<number>\b\d[\d_]*(?:\.\d+)?(?:[eE][-+]?\d+)?\b)|(?P<word>[A-Za-z_]\w*)"""
)
_DEFINES = ("def", "class")


def code_row(line: str) -> Row:
    """The line with keywords, strings, numbers, comments and defined names in their styles."""
    spans: list[Span] = []
    done, defines = 0, False
    for match in _TOKENS.finditer(line):
        kind, text = match.lastgroup, match.group()
        style = {"comment": "code.comment", "string": "code.string", "number": "code.number"}.get(kind or "", "")
        if kind == "word":
            style = "code.name" if defines else "code.keyword" if keyword.iskeyword(text) else ""
            defines = text in _DEFINES
        if style:
            spans += [(line[done : match.start()], ""), (text, style)]
            done = match.end()
    return row(*spans, (line[done:], ""))
