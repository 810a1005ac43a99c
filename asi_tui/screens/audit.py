"""Screen 8, audit."""

from __future__ import annotations

from asi_tui.lines import Row, rule
from asi_tui.screens.base import Watch


class AuditScreen(Watch):
    """Screen 8, audit."""

    NAME = "Audit"
    SHORT = "Audit"

    def body(self, width: int, height: int) -> list[Row]:
        """The rows."""
        return [rule("audit", width)]
