"""What a person prefers, for every run: `$XDG_CONFIG_HOME/asi/terminal.toml`, written by `:set` and by hand.

A file that cannot be read changes nothing and is never overwritten by itself: the defaults hold, and one line says why.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from pathlib import Path
from typing import Annotated, Literal

import msgspec

STOP_KEY = r"^(ctrl\+[a-z0-9_@]+|f[0-9]{1,2}|pause|insert)$"
"""What may become another stop key: nothing that one types, moves by or answers with."""

ThemeName = Literal["dark", "light", "plain"]


class Preferences(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """theme: `plain` uses no colour. ascii: no character beyond ASCII. mouse: clicks and the wheel; a terminal's own
    selecting then needs Shift. bell: rings for approvals, anomalies, the end. alerts: desktop notifications by OSC 9 or
    777; `auto` where the terminal is known to show them. columns: of the leaderboard, by their
    heads; empty shows what fits. stop_keys: more emergency-stop keys beside Ctrl+\\ and F12, which always work.
    signing_key: the SSH key with which orders are signed, where a run asks for that; empty takes the usual ones.
    """

    theme: ThemeName = "dark"
    ascii: bool = False
    mouse: bool = True
    bell: bool = True
    alerts: Literal["auto", "osc9", "osc777", "off"] = "auto"
    columns: list[Annotated[str, msgspec.Meta(max_length=40)]] = []
    stop_keys: list[Annotated[str, msgspec.Meta(pattern=STOP_KEY)]] = []
    signing_key: Annotated[str, msgspec.Meta(max_length=1_000)] = ""


def preferences_path() -> Path:
    """The file."""
    home = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    return Path(home) / "asi" / "terminal.toml"


def load_preferences() -> Preferences:
    """The person's preferences, or the defaults where there is no file, or none that can be read."""
    try:
        return _read(preferences_path())
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return Preferences()


def preferences_problem() -> str:
    """Why the file is not followed, in one line; empty where it is, or where there is none."""
    path = preferences_path()
    try:
        with contextlib.suppress(FileNotFoundError):
            _read(path)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        return f"{path} cannot be read: {' '.join(str(error).split())}"
    return ""


def _read(path: Path) -> Preferences:
    return msgspec.toml.decode(path.read_bytes(), type=Preferences)


def save_preferences(preferences: Preferences) -> str:
    """Write the preferences, whole or not at all, for nobody else to read; a file that cannot be read stays as it is.

    Blocks: call it in a worker thread. Returns what went wrong, in one line; empty when it is done.
    """
    path = preferences_path()
    if problem := preferences_problem():
        return f"{problem}; it stays as it is"
    lines = [f"{name} = {json.dumps(getattr(preferences, name))}" for name in Preferences.__struct_fields__]
    temporary = ""
    try:
        target = path.resolve()  # where the name is a link, the file behind it is replaced
        target.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=".terminal-", dir=target.parent)  # 0600 from the beginning
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except OSError as error:
        if temporary:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        return f"{path} was not written: {error.strerror or error}"
    return ""
