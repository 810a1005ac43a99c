"""Everything that can be done, by name."""

from __future__ import annotations

from asi_tui.lines import Row, rule
from asi_tui.screens.base import Watch
from asi_tui.screens.keys import Key


class PaletteScreen(Watch):
    """Everything that can be done, by name."""

    NAME = "Palette"

    def __init__(self, listed: list[Key]) -> None:
        super().__init__()
        self._listed = listed

    def body(self, width: int, height: int) -> list[Row]:
        """The rows."""
        return [rule("palette", width)]
