"""The words of the shell command, typed into the app after `:`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asi_tui.app import AsiApp


def run_line(app: AsiApp, text: str) -> None:
    """Carry out one line."""
    app.tell(f"unknown: {text}", bad=True)
