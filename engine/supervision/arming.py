"""Before the loop may begin: measure the sandbox by attacking it, kill a tree by the real kill path, prove both.

No drill, no run.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from engine.client import processes
from engine.client.kill import kill_sandboxes
from engine.client.records import read_records
from engine.supervision import registry
from engine.supervision.attack import measure
from engine.supervision.drill import drill
from engine.supervision.gpu import wake_driver
from engine.supervision.isolation import Isolation
from engine.supervision.sandbox import Launcher, LaunchFailed
from store.events import RunArmed

__all__ = ["Launcher", "NotArmed", "arm", "launcher", "none_alive", "sweep"]


class NotArmed(Exception):
    """The run may not begin; the message says why and what to do."""


def launcher(root: Path) -> Launcher:
    """A launcher with the best means this machine has."""
    return Launcher(root, Isolation.detect())


async def arm(root: Path, wanted_level: str, start: Launcher | None = None) -> RunArmed:
    """Measure, drill, and set the launcher's level to what was measured.

    Raises:
        NotArmed: the drill failed, or there is no isolation at all and the configuration does not accept that.
    """
    start = start or launcher(root)
    start.sweep_groups()
    await asyncio.to_thread(wake_driver)
    try:
        report = await measure(start)
        start.level = report.level
        if report.level == 0 and wanted_level != "L0":
            raise NotArmed(
                f"NO isolation on this machine ({report.advice or 'no sandbox works here'}); "
                'set sandbox.minimum_level = "L0" in run.toml to accept that for this run'
            )
        practice = await drill(start)
    except (LaunchFailed, OSError) as error:
        raise NotArmed(f"a sandbox did not start: {error}") from error
    if not practice.proved:
        raise NotArmed(f"the drill's death was not proved: {practice.proof}")
    return RunArmed(
        level=report.name,
        processes=practice.processes,
        killed_ms=round(practice.killed_ms, 2),
        attacks_stopped=sum(attack.stopped for attack in report.attacks),
        attacks_tried=len(report.attacks),
        advice=report.advice,
    )


def sweep(root: Path) -> tuple[int, list[str]]:
    """Kill every sandbox that an earlier engine left registered.

    Returns how many there were, and a line for each whose death is not proved, or of which nothing is known.

    Raises:
        OSError: a record could not be removed.
    """
    records, problems = read_records(root)
    for record, row in zip(records, kill_sandboxes(records), strict=True):
        if row.proved:
            registry.forget(root, record.id)
        else:
            problems.append(f"{row.what}: {row.proof}")
    return len(records), problems


def none_alive(root: Path) -> bool:
    """Whether every registered sandbox is known and dead."""
    records, problems = read_records(root)
    return not problems and not any(processes.is_alive(record.init_pid, record.init_start) for record in records)
