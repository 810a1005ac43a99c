"""The morning brief."""

from __future__ import annotations

from asi_tui.lines import Row, rule
from asi_tui.screens.base import Watch


class BriefScreen(Watch):
    """The morning brief."""

    NAME = "Brief"
    SHORT = "Brief"

    def body(self, width: int, height: int) -> list[Row]:
        """The rows."""
        return [rule("brief", width)]
