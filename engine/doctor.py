"""`python -m engine.doctor [--json]`: is this machine fit for a run, and how well does it contain and kill?"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
from pathlib import Path

import msgspec

from engine.agents.llm.check import check_server
from engine.client.rundir import RunPaths
from engine.supervision.doctor import Examination, examine, format_examination
from engine.supervision.drill import DrillReport, drill
from engine.supervision.isolation import Isolation
from engine.supervision.sandbox import Launcher, LaunchFailed


def main(arguments: list[str] | None = None) -> int:
    """Examine or drill, and print; exit code 1 when something keeps a run from being armed."""
    parser = argparse.ArgumentParser(prog="python -m engine.doctor", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    parser.add_argument("--drill", action="store_true", help="only kill a stubborn tree by the real path, and prove it")
    parser.add_argument("--beside", type=Path, metavar="DIRECTORY", help="drill in a folder of its own below this one")
    options = parser.parse_args(arguments)
    if options.drill:
        return _drill(options.beside, options.json)
    found = asyncio.run(_examine())
    print(msgspec.json.encode(found).decode() if options.json else format_examination(found))
    return 1 if found.problems else 0


async def _examine() -> Examination:
    """This machine, and the model server that the environment names."""
    return msgspec.structs.replace(await examine(), agents=await check_server(os.environ))


def _drill(beside: Path | None, as_json: bool) -> int:
    """Drill in a run directory of its own, because the latch of another one would forbid the launch."""
    try:
        with tempfile.TemporaryDirectory(prefix=".asi-drill-", dir=beside) as folder:
            RunPaths(folder).create()
            found = asyncio.run(drill(Launcher(Path(folder), Isolation.detect())))
    except (LaunchFailed, OSError) as error:
        print(f"asi: the drill did not begin: {error}", file=sys.stderr)
        return 1
    print(msgspec.json.encode(found).decode() if as_json else _figures(found))
    return 0 if found.proved else 1


def _figures(found: DrillReport) -> str:
    verdict = "proved" if found.proved else "NOT PROVED"
    return (
        f"drill: {found.processes} processes killed in {found.killed_ms:.1f} ms, death {verdict} ({found.proof})\n"
        "The isolation level was not measured; `asi doctor` does that."
    )


if __name__ == "__main__":
    sys.exit(main())
