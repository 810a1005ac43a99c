"""Screen 4, training: running trials with their curves against parent and baseline, and the machine."""

from asi_tui.screens.training.screen import TrainingScreen

__all__ = ["TrainingScreen"]
