"""Handling folders that untrusted programs have filled: links are never followed, and no nesting is too deep."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path


def hand_over(folder: Path, user: int) -> None:
    """Give a folder and all in it to a user. Nobody may be writing to it.

    Raises:
        OSError: something in it cannot be given away, or lies deeper than a path can name.
    """
    os.chown(folder, user, user, follow_symlinks=False)
    queue = [os.fspath(folder)]
    while queue:
        with os.scandir(queue.pop()) as entries:
            for entry in entries:
                os.chown(entry.path, user, user, follow_symlinks=False)
                if entry.is_dir(follow_symlinks=False):
                    queue.append(entry.path)


def remove(folder: Path) -> None:
    """Remove a folder and all in it, as far as that is possible. Nobody may be writing to it; one that is gone is fine.

    What is nested is first moved to the top, so that paths stay short; rights that a program took away do not matter.
    """
    with contextlib.suppress(OSError):
        os.chmod(folder, 0o700)
    queue, emptied = [os.fspath(folder)], []
    while queue:
        current = queue.pop()
        with contextlib.suppress(OSError), os.scandir(current) as entries:
            for entry in list(entries):
                with contextlib.suppress(OSError):
                    if entry.is_dir(follow_symlinks=False):
                        os.chmod(entry.path, 0o700)  # without which it can neither be moved nor listed
                        flat = os.path.join(folder, f".removed-{secrets.token_hex(8)}")
                        os.rename(entry.path, flat)
                        queue.append(flat)
                    else:
                        os.unlink(entry.path)
        emptied.append(current)
    for current in reversed(emptied):
        with contextlib.suppress(OSError):
            os.rmdir(current)
