"""Make the README's pictures from a recorded run: `python scripts/pictures.py RUN`.

Each picture is one screen of the replay; what is in `docs/` under the same name is replaced.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NamedTuple

from asi_tui.main import main as asi

DOCS = Path(__file__).resolve().parents[1] / "docs"


class Picture(NamedTuple):
    """One file: its name, the screen, where in the run, in which colours."""

    name: str
    screen: str
    at: str
    theme: str = "dark"


PICTURES = (
    Picture("terminal", "mission", "60%"),
    Picture("training", "training", "40%"),
    Picture("leaderboard", "leaderboard", "end"),
    Picture("lineage", "lineage", "end"),
    Picture("audit", "audit", "end", "light"),
)


def main() -> int:
    """Make all of them, or those that are named; returns the exit code of the first that failed."""
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("run", help="name or path of a recorded run")
    words.add_argument("--size", default="130x38")
    words.add_argument("--only", nargs="+", choices=[one.name for one in PICTURES], default=[])
    words.add_argument("--at", help="where in the run, instead of each picture's own place")
    options = words.parse_args()
    for one in PICTURES:
        if options.only and one.name not in options.only:
            continue
        place = ["--screen", one.screen, "--at", options.at or one.at]
        look = ["--size", options.size, "--theme", one.theme]
        code = asi(["screenshot", options.run, *place, *look, "--output", str(DOCS / f"{one.name}.svg"), "--force"])
        if code:
            return code
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
