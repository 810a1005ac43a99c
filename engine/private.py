"""Files that hold secrets: read only where nobody else can."""

from __future__ import annotations

import os
import stat
from pathlib import Path


class NotPrivate(Exception):
    """The file cannot be read, or others can read it; the message is one line and holds nothing of it."""


def read_private(path: Path, label: str, holds: str, limit: int) -> str:
    """The text of a file that only its owner can read. Blocks.

    Args:
        path: the file; `~` is the home of whoever runs this.
        label: the setting that names it, for the message.
        holds: what should be in it, for the message.
        limit: most bytes.

    Raises:
        NotPrivate: it cannot be used.
    """
    try:
        descriptor = os.open(path.expanduser(), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise NotPrivate(f"{label} {path}: {error.strerror}") from None
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size > limit:
            raise NotPrivate(f"{label} {path}: not a file with {holds}")
        if status.st_mode & 0o077:
            raise NotPrivate(f"{label} {path} can be read by others; first: chmod 600 {path}")
        return file.read(limit).decode("utf-8", "replace")
