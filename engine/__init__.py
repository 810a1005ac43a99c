"""The loop and everything that runs it: agents, gates, sandbox, trials, ladder, daemon."""
