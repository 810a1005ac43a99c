"""Screen 7, scaling: whether more compute buys more, and whether the search does better than chance."""

from asi_tui.screens.scaling.screen import ScalingScreen

__all__ = ["ScalingScreen"]
