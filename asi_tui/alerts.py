"""A desktop notification through the terminal, beside the bell: OSC 9 or OSC 777, also out of tmux.

At most one a minute of each kind, so that a storm of events does not become a storm of messages.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from asi_tui.safe import clean
from engine.client.notices import Notice, notice
from engine.client.protocol import Records
from store.state import RunState

Style = Literal["auto", "osc9", "osc777", "off"]
EVERY_SECONDS = 60.0
NINE = ("iTerm.app", "WezTerm", "ghostty", "xterm-kitty", "xterm-ghostty", "wezterm", "iTerm2")
SEVEN = ("foot", "foot-extra", "rxvt-unicode", "rxvt-unicode-256color")


class Alerts:
    """What has come that is worth a notification; `due` gives what may be shown now."""

    def __init__(self) -> None:
        self._waiting: dict[str, Notice] = {}
        self._shown: dict[str, float] = {}

    def take(self, message: object, state: RunState) -> None:
        """Look at a message from the engine, which `state` has taken in."""
        if isinstance(message, Records):
            for record in message.records:
                found = notice(record.data, state)
                if found is not None:
                    self._waiting[found.kind] = found  # a later one of the same kind says more

    def due(self, now: float) -> list[Notice]:
        """Those to show now, each once; `now` in seconds of any clock."""
        ready = [kind for kind in self._waiting if now - self._shown.get(kind, -EVERY_SECONDS) >= EVERY_SECONDS]
        self._shown |= dict.fromkeys(ready, now)
        return [self._waiting.pop(kind) for kind in ready]


def style_for(environment: Mapping[str, str]) -> Style:
    """What this terminal is known to understand; `off` where that is not known, for others would print it."""
    names = {environment.get(name, "") for name in ("TERM_PROGRAM", "LC_TERMINAL", "TERM")}
    if names & set(NINE):
        return "osc9"
    return "osc777" if names & set(SEVEN) else "off"


def sequence(title: str, text: str, style: Style, environment: Mapping[str, str]) -> str:
    """What to write to the terminal; empty where nothing is to be written."""
    chosen = style_for(environment) if style == "auto" else style
    if chosen == "off":
        return ""
    title, text = (clean(words, 120).replace(";", ",") for words in (title, text))
    told = f"\x1b]9;{title}: {text}\x07" if chosen == "osc9" else f"\x1b]777;notify;{title};{text}\x07"
    if environment.get("TMUX"):  # tmux hands on what is wrapped so, where allow-passthrough is on
        return "\x1bPtmux;" + told.replace("\x1b", "\x1b\x1b") + "\x1b\\"
    return told
