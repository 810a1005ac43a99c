"""What a person prefers, for every run: `$XDG_CONFIG_HOME/asi/terminal.toml`, written by `:set` and by hand.

A file that cannot be read changes nothing and is never overwritten by itself: the defaults hold, and one line says why.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

import msgspec

ThemeName = Literal["dark", "light", "plain"]


class Preferences(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """theme: `plain` uses no colour. ascii: no character beyond ASCII. mouse: clicks and the wheel; a terminal's own
    selecting then needs Shift. bell: rings for approvals, anomalies, the end. columns: of the leaderboard, by their
    heads; empty shows what fits. stop_keys: more emergency-stop keys beside Ctrl+\\ and F12, which always work.
    """

    theme: ThemeName = "dark"
    ascii: bool = False
    mouse: bool = True
    bell: bool = True
    columns: list[Annotated[str, msgspec.Meta(max_length=40)]] = []
    stop_keys: list[Annotated[str, msgspec.Meta(max_length=40)]] = []


def preferences_path() -> Path:
    """The file."""
    home = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    return Path(home) / "asi" / "terminal.toml"


def load_preferences() -> Preferences:
    """The person's preferences, or the defaults where there is no file."""
    try:
        return msgspec.toml.decode(preferences_path().read_bytes(), type=Preferences)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return Preferences()
