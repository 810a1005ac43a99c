"""A benchmark of the terminal: `python -m bench.tui`."""
