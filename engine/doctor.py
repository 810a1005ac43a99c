"""`python -m engine.doctor [--json]`: is this machine fit for a run, and how well does it contain and kill?"""

from __future__ import annotations

import argparse
import asyncio
import sys

import msgspec

from engine.supervision.doctor import examine, format_examination


def main(arguments: list[str] | None = None) -> int:
    """Examine and print; exit code 1 when something keeps a run from being armed."""
    parser = argparse.ArgumentParser(prog="python -m engine.doctor", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    options = parser.parse_args(arguments)
    found = asyncio.run(examine())
    print(msgspec.json.encode(found).decode() if options.json else format_examination(found))
    return 1 if found.problems else 0


if __name__ == "__main__":
    sys.exit(main())
