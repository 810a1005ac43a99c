"""What this machine is called by its maker."""

from __future__ import annotations

import platform
from pathlib import Path


def processor() -> str:
    """The processor's model name, or what the platform calls it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux: the platform module knows a name
    return platform.processor() or platform.machine()
