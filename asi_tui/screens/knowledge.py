"""Screen 9, what the run knows."""

from __future__ import annotations

from asi_tui.lines import Row, rule
from asi_tui.screens.base import Watch


class KnowledgeScreen(Watch):
    """Screen 9, what the run knows."""

    NAME = "Knowledge"
    SHORT = "Know"

    def body(self, width: int, height: int) -> list[Row]:
        """The rows."""
        return [rule("knowledge", width)]
