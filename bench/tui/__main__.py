"""How fast the terminal is: `python -m bench.tui [--sizes 80x24,160x45] [--seconds 60] [--only storm,far] [--json]`.

The real app runs in pseudo-terminals, attached over the real socket to a stand-in engine with a made-up run. Measured
is what a person sees: the time until the picture answers. Attaching is compared with the least app that the same
toolkit can run, in turns. Targets are printed beside the figures.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from bench.machine import describe
from bench.tui import measures
from bench.tui.figures import Figure, as_json, table

PARTS = ("attach", "rest", "storm", "slow", "loads", "far")
SLOW = (50_000.0, 20_000.0)
ROUND_TRIP = 0.3


def measure(part: str, home: Path, size: measures.Size, options: argparse.Namespace) -> list[Figure]:
    """One part at one size."""
    if part == "attach":
        return measures.attaching(home, size, options.rounds, options.experiments, options.events)
    if part == "rest":
        return measures.rest(home, size, min(10.0, options.seconds))
    if part == "storm":
        return measures.storm(home, size, options.seconds)
    if part == "slow":
        return [figure for speed in SLOW for figure in measures.storm(home, size, options.seconds, speed)]
    if part == "loads":
        return measures.loads(home, size, options.lines, options.rows)
    return measures.far(home, size, ROUND_TRIP)


def _size(text: str) -> measures.Size:
    width, _, height = text.partition("x")
    return int(width), int(height)


def main() -> int:
    """Print the figures; 1 when a target is missed."""
    parser = argparse.ArgumentParser(prog="python -m bench.tui", description=__doc__)
    parser.add_argument("--sizes", default="80x24,160x45,200x50")
    parser.add_argument("--only", default=",".join(PARTS), help=f"some of {', '.join(PARTS)}")
    for name, usual in (("rounds", 10), ("experiments", 2_000), ("events", 1_000_000), ("lines", 100_000),
                        ("rows", 20_000)):  # fmt: skip
        parser.add_argument(f"--{name}", type=int, default=usual)
    parser.add_argument("--seconds", type=float, default=20.0, help="how long each storm is")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    parts = options.only.split(",")
    if unknown := set(parts) - set(PARTS):
        parser.error(f"there is no {', '.join(sorted(unknown))}; choose from {', '.join(PARTS)}")
    figures: list[Figure] = []
    for size in options.sizes.split(","):
        for part in parts:
            with tempfile.TemporaryDirectory(prefix="asi-tui-") as home:
                found = measure(part, Path(home), _size(size), options)
            figures += [Figure(f"{size} {one.name}", one.value, one.unit, one.most) for one in found]
            if not options.json:
                print(f"{describe()}\n" if len(figures) == len(found) else "", table(figures[-len(found) :]), sep="\n")
                sys.stdout.flush()
    if options.json:
        print(as_json(describe(), figures))
    return int(any(figure.verdict == "MISS" for figure in figures))


if __name__ == "__main__":
    sys.exit(main())
