"""One line on the machine and the versions that a figure was measured with."""

from __future__ import annotations

import importlib.metadata
import os
import platform

import psutil

from engine.cache import machine


def describe() -> str:
    """Processor, cores, memory, kernel, Python and the versions that matter."""
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("torch", "duckdb", "textual"))
    memory = psutil.virtual_memory().total / 2**30
    processor = machine().split("|")[1]
    return (
        f"{processor}, {os.cpu_count()} cores, {memory:.0f} GiB, Linux {platform.release()}, "
        f"Python {platform.python_version()}, {versions}"
    )
