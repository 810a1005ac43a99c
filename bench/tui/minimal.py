"""The least that an app of the same toolkit can do: what attaching is compared with."""

from __future__ import annotations

from textual.app import App, ComposeResult
from textual.widgets import Static

WORD = "minimal-app-is-here"


class Minimal(App[None]):
    """Shows one line."""

    def compose(self) -> ComposeResult:
        """The line."""
        yield Static(WORD)


if __name__ == "__main__":
    Minimal().run()
