"""NVML is opened once, and may come and go."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import pytest

from engine.devices import RETRY_SECONDS, Devices


class NVMLError(Exception):
    pass


class NotSupported(NVMLError):
    pass


class Fake(ModuleType):
    NVMLError = NVMLError
    NVMLError_NotSupported = NotSupported
    NVML_TEMPERATURE_GPU = 0

    def __init__(self) -> None:
        super().__init__("pynvml")
        self.away = False
        self.inits = self.shutdowns = 0

    def _answer(self, value: object) -> object:
        if self.away:
            raise NVMLError("driver away")
        return value

    def nvmlInit(self) -> None:
        self.inits += 1
        self._answer(None)

    def nvmlShutdown(self) -> None:
        self.shutdowns += 1
        self._answer(None)

    def nvmlDeviceGetCount(self) -> int:
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetName(self, handle: int) -> object:
        return self._answer(b"GPU zero" if handle == 0 else "GPU one")

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> object:
        return self._answer(SimpleNamespace(used=5, total=10))

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> object:
        return self._answer(SimpleNamespace(gpu=50))

    def nvmlDeviceGetTemperature(self, handle: int, kind: int) -> object:
        return self._answer(61)

    def nvmlDeviceGetPowerUsage(self, handle: int) -> int:
        raise NotSupported


def test_it_is_opened_once_and_looked_for_again_later(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = Fake()
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    now = [0.0]
    devices = Devices(lambda: now[0])
    for _ in range(3):
        found = devices.read()
        assert [(d.name, d.utilisation, d.memory_total, d.temperature, d.power) for d in found] == [
            ("GPU zero", 0.5, 10.0, 61.0, 0.0), ("GPU one", 0.5, 10.0, 61.0, 0.0),
        ]  # fmt: skip
    assert (fake.inits, fake.shutdowns) == (1, 0)
    fake.away = True
    assert devices.read() == []
    fake.away = False
    assert devices.read() == []  # not yet
    assert fake.inits == 1
    now[0] = RETRY_SECONDS + 1
    assert len(devices.read()) == 2
    assert fake.inits == 2


def test_without_a_driver_it_is_not_asked_every_second(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = Fake()
    fake.away = True
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    devices = Devices(lambda: 5.0)
    assert [devices.read() for _ in range(4)] == [[]] * 4
    assert fake.inits == 1
