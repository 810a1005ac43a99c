"""Screen 6, lineage: who descends from whom, what each step gained, and which branch owns the pool."""

from asi_tui.screens.lineage.screen import LineageScreen

__all__ = ["LineageScreen"]
