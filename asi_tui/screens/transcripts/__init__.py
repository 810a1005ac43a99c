"""Screen 3, transcripts: what agents are asked and answer, and what trials print, as inert text."""

from asi_tui.screens.transcripts.screen import TranscriptsScreen

__all__ = ["TranscriptsScreen"]
