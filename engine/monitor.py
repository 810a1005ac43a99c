"""The machine's load, who supervises, and what ran away: once a second, for those who watch."""

from __future__ import annotations

import asyncio
import shutil
import time

import psutil

from engine.client.protocol import LiveLoad, Stray
from engine.devices import Devices
from engine.laboratory import Laboratory
from engine.radar import Radar
from engine.runtime import Runtime
from engine.server import Server

PERIOD = 1.0


async def monitor_forever(runtime: Runtime, laboratory: Laboratory, server: Server) -> None:
    """Publish `LiveLoad` every second; `loop_lag_ms` is how late this very loop was."""
    psutil.cpu_percent()
    late = 0.0
    devices, radar = Devices(), Radar(runtime.paths.root)
    while True:
        memory = psutil.virtual_memory()
        found = await asyncio.to_thread(devices.read)
        runtime.live(
            LiveLoad(
                cpu=psutil.cpu_percent() / 100,
                memory_used=float(memory.total - memory.available),
                memory_total=float(memory.total),
                disk_free=float(shutil.disk_usage(runtime.paths.root).free),
                trials=len(laboratory.runner.sandboxes.alive),
                slots=laboratory.slots.total,
                loop_lag_ms=late * 1000,
                devices=found,
                deadman_left=laboratory.deadman.left(runtime.state.phase),
                supervisors=server.supervisors,
                strays=_strays(radar, laboratory, server),
            )
        )
        begin = time.monotonic()
        await asyncio.sleep(PERIOD)
        late = max(0.0, time.monotonic() - begin - PERIOD)


def _strays(radar: Radar, laboratory: Laboratory, server: Server) -> list[Stray] | None:
    """What the radar sees. While the engine arms, its drill's sandboxes are known to nobody: no look then."""
    if not laboratory.data_hash:
        return None
    alive = [process.record for process in laboratory.runner.sandboxes.alive.values()]
    return radar.poll(alive, server.peers)
