"""Screen 7, scaling."""

from __future__ import annotations

from asi_tui.lines import Row, rule
from asi_tui.screens.base import Watch


class ScalingScreen(Watch):
    """Screen 7, scaling."""

    NAME = "Scaling"
    SHORT = "Scale"

    def body(self, width: int, height: int) -> list[Row]:
        """The rows."""
        return [rule("scaling", width)]
