"""Screen 1, mission control: what goes on, what needs a person, what has come out so far."""

from asi_tui.screens.mission.screen import MissionScreen

__all__ = ["MissionScreen"]
