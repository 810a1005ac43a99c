"""The machine: load now and over the last minutes, each GPU, how late the engine is."""

from __future__ import annotations

from collections.abc import Sequence

from asi_tui import words
from asi_tui.lines import Row, Span, clip, fit, row, rule
from asi_tui.model import Model

BARS = "▁▂▃▄▅▆▇█"
LATE_MS = 100.0


def sparkline(values: Sequence[float], width: int, top: float = 1.0) -> str:
    """The newest values, one to a cell, the oldest at the left; `top` is a full bar."""
    shown = list(values)[-width:]
    text = "".join(BARS[max(0, min(7, int(value / max(top, 1e-9) * 8)))] for value in shown)
    return text.rjust(width)


def machine_rows(model: Model, width: int, room: int) -> list[Row]:
    """At most `room` rows."""
    load = model.load
    if load is None:
        return [rule("machine", width), row((" no load figures yet", "dim"))][:room]
    loads = list(model.loads)
    cells = max(8, min(60, (width - 70) // 2)) if width >= 100 else 10
    rows = [rule("machine", width, f"{load.trials} of {load.slots} slots in use")]
    lag: Span = (f"{load.loop_lag_ms:.0f} ms", "warn" if load.loop_lag_ms > LATE_MS else "")
    rows.append(clip(row(
        (" cpu ", "dim"), (sparkline([one.cpu for one in loads], cells), "accent"), f" {load.cpu:4.0%}",
        ("  memory ", "dim"), (sparkline([one.memory for one in loads], cells), "accent"),
        f" {load.memory_used / 2**30:.1f} of {words.size(load.memory_total)}",
        ("  engine lag ", "dim"), lag), width))  # fmt: skip
    left = room - len(rows)
    for number, device in enumerate(load.devices[: left if len(load.devices) <= left else max(0, left - 1)]):
        history = [one.devices[number][0] for one in loads if number < len(one.devices)]
        rows.append(clip(row(
            (f" gpu {number} ", "dim"), (sparkline(history, cells), "accent"), f" {device.utilisation:4.0%}",
            ("  memory ", "dim"), f"{device.memory_used / 2**30:5.1f} of {words.size(device.memory_total)}",
            (f"  {device.temperature:3.0f} °C {device.power:4.0f} W  ", ""), (device.name, "dim")), width))  # fmt: skip
    if len(load.devices) > left:
        rows.append(row((fit(f" and {len(load.devices) - max(0, left - 1)} more GPUs", width), "dim")))
    return rows[:room]
