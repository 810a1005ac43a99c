"""Screen 5, the leaderboard: a table of pages, and what it opens: comparison, Pareto front, free questions, exports."""

from asi_tui.screens.leaderboard.screen import LeaderboardScreen

__all__ = ["LeaderboardScreen"]
