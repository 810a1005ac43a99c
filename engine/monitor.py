"""The machine's load, once a second, for those who watch."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time

import psutil

from engine.client.protocol import Device, LiveLoad
from engine.laboratory import Laboratory
from engine.runtime import Runtime

PERIOD = 1.0


def devices() -> list[Device]:
    """Every NVIDIA device that NVML sees; none where there is no driver."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    found = []
    try:
        for index in range(pynvml.nvmlDeviceGetCount()):
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
            found.append(
                Device(
                    name=str(pynvml.nvmlDeviceGetName(handle)),
                    utilisation=pynvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100,
                    memory_used=float(memory.used),
                    memory_total=float(memory.total),
                    temperature=float(pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU)),
                    power=pynvml.nvmlDeviceGetPowerUsage(handle) / 1000,
                )
            )
    except pynvml.NVMLError:
        return found
    finally:
        with contextlib.suppress(pynvml.NVMLError):
            pynvml.nvmlShutdown()
    return found


async def monitor_forever(runtime: Runtime, laboratory: Laboratory) -> None:
    """Publish `LiveLoad` every second; `loop_lag_ms` is how late this very loop was."""
    psutil.cpu_percent()
    late = 0.0
    while True:
        memory = psutil.virtual_memory()
        found = await asyncio.to_thread(devices)
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
            )
        )
        begin = time.monotonic()
        await asyncio.sleep(PERIOD)
        late = max(0.0, time.monotonic() - begin - PERIOD)
