"""How much room a run takes on the disk."""

from __future__ import annotations

import os
from pathlib import Path

MOST_FILES = 2_000_000


def size_of(root: Path) -> float | None:
    """Bytes of all files of a run; None where there are none, or too many to count. Takes as long as the disk does."""
    total, number = 0, 0
    for folder, _, names in os.walk(root):
        for name in names:
            number += 1
            if number > MOST_FILES:
                return None
            try:
                total += os.lstat(os.path.join(folder, name)).st_size
            except OSError:
                continue
    return float(total) if number else None
