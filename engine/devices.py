"""The load of every NVIDIA device, from NVML; nothing where there is no driver, or while it is away."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any

from engine.client.protocol import Device

RETRY_SECONDS = 60.0


class Devices:
    """Keeps NVML open and a handle on each device; a driver that fails is looked for again a minute later."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._handles: list[Any] | None = None
        self._retry = float("-inf")

    def read(self) -> list[Device]:
        """Every device that answers. Blocks."""
        import pynvml

        try:
            if self._handles is None:
                if self._clock() < self._retry:
                    return []
                self._retry = self._clock() + RETRY_SECONDS
                pynvml.nvmlInit()
                self._handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
            return [_device(pynvml, handle) for handle in self._handles]
        except pynvml.NVMLError:
            self.close()
            return []

    def close(self) -> None:
        """Let NVML go."""
        import pynvml

        with contextlib.suppress(pynvml.NVMLError):
            pynvml.nvmlShutdown()
        self._handles = None
        self._retry = self._clock() + RETRY_SECONDS


def _device(nvml: Any, handle: Any) -> Device:
    """One device's load; what it cannot measure is 0."""

    def value(ask: Callable[[], Any], otherwise: Any) -> Any:
        try:
            return ask()
        except nvml.NVMLError_NotSupported:
            return otherwise

    name = nvml.nvmlDeviceGetName(handle)
    memory = value(lambda: nvml.nvmlDeviceGetMemoryInfo(handle), None)
    return Device(
        name=name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name),
        utilisation=value(lambda: nvml.nvmlDeviceGetUtilizationRates(handle).gpu, 0) / 100,
        memory_used=float(memory.used) if memory else 0.0,
        memory_total=float(memory.total) if memory else 0.0,
        temperature=float(value(lambda: nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU), 0)),
        power=value(lambda: nvml.nvmlDeviceGetPowerUsage(handle), 0) / 1000,
    )
