"""Screen 2, approvals: what waits for a person, with everything needed to decide."""

from asi_tui.screens.approvals.screen import ApprovalsScreen

__all__ = ["ApprovalsScreen"]
