"""What this terminal can show, by what the environment says of it. Standard library only."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

ASCII_TERMS = ("linux", "vt52", "vt100", "vt102", "vt220", "vt320", "ansi", "cons25")
"""Terminals whose fonts have no braille and few signs; `linux` is the console of a machine without a window system."""

WEB_DRIVER = "TEXTUAL_DRIVER"
"""What a web server sets for the app that it runs."""


def in_browser(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether the picture goes to a browser."""
    return bool(environment.get(WEB_DRIVER))


def is_dumb(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether the terminal cannot move its cursor, or nobody knows what it can."""
    return not in_browser(environment) and environment.get("TERM", "") in ("", "dumb", "unknown")


def is_terminal() -> bool:
    """Whether a person sits at both ends."""
    return in_browser() or (sys.stdin.isatty() and sys.stdout.isatty())


def needs_ascii(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether lines, dots and signs have to be ASCII: an old terminal, or a locale that is not UTF-8.

    A locale that is not set says nothing. Python sets `LC_CTYPE=C.UTF-8` where `LANG` is C; `LC_ALL` it leaves alone.
    """
    if in_browser(environment):
        return False
    term = environment.get("TERM", "")
    if term in ASCII_TERMS or term.split("-")[0] in ASCII_TERMS:
        return True
    named = environment.get("LC_ALL") or environment.get("LC_CTYPE") or environment.get("LANG") or ""
    return bool(named) and "utf8" not in named.lower().replace("-", "")
