"""What leaves the app: the clipboard, the pager, the editor."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asi_tui.app import AsiApp


async def copy(app: AsiApp, text: str) -> None:
    """Copy text to the clipboard over OSC 52, and to a file for terminals that do not pass it on."""
    app.copy_to_clipboard(text)
    app.tell(f"copied {len(text)} characters")
