"""NVIDIA devices, as far as sandboxes are concerned: the driver must be awake before the first of them.

Inside a sandbox nothing may gain privileges, so the setuid helper that makes device nodes cannot do its work there.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from pathlib import Path

DRIVER = Path("/proc/driver/nvidia")
WAKE = (("nvidia-modprobe", "-c", "0", "-u"), ("nvidia-smi", "-L"))
SECONDS = 30.0


def wake_driver() -> bool:
    """Have the driver initialised and its device nodes made, where there is one; whether anything did that. Blocks."""
    if not DRIVER.exists():
        return False
    for name, *arguments in WAKE:
        path = shutil.which(name, path="/usr/bin:/bin:/usr/local/bin:/usr/sbin:/sbin")
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            if path and subprocess.run([path, *arguments], capture_output=True, timeout=SECONDS).returncode == 0:
                return True
    return False
