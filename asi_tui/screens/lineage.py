"""Screen 6, lineage."""

from __future__ import annotations

from asi_tui.lines import Row, rule
from asi_tui.screens.base import Watch


class LineageScreen(Watch):
    """Screen 6, lineage."""

    NAME = "Lineage"
    SHORT = "Tree"

    def body(self, width: int, height: int) -> list[Row]:
        """The rows."""
        return [rule("lineage", width)]
