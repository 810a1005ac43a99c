"""When this person last looked at a run: a small file for each run in `$XDG_STATE_HOME/asi`.

Written when the app leaves and when the brief is acknowledged; a file that cannot be read says nothing. Both functions
may take as long as the disk does.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import time
from pathlib import Path

import msgspec

from engine.client.rundir import atomic_write

MAX_BYTES = 4_096


class Seen(msgspec.Struct, frozen=True):
    """The run's path, and when it was last looked at, in seconds since the epoch."""

    run: str
    time: float


def seen_path(root: Path) -> Path:
    """The file: runs of one name in two places have two of them."""
    state_home = os.environ.get("XDG_STATE_HOME", "")
    base = Path(state_home) if os.path.isabs(state_home) else Path.home() / ".local" / "state"
    place = hashlib.sha256(os.fsencode(os.path.abspath(root))).hexdigest()[:8]
    return base / "asi" / f"{root.name}-{place}-seen.json"


def last_seen(root: Path) -> float | None:
    """When this person last looked at the run; None where that is not known."""
    try:
        with open(seen_path(root), "rb") as file:
            found = msgspec.json.decode(file.read(MAX_BYTES), type=Seen)
    except (OSError, ValueError, msgspec.MsgspecError):
        return None
    return found.time if 0.0 < found.time <= time.time() + 60.0 else None


def remember_seen(root: Path, when: float) -> str:
    """Note that the run was looked at; returns what went wrong, in words."""
    path = seen_path(root)
    try:
        if not root.is_dir():
            return f"{root} is not there"
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        atomic_write(path, msgspec.json.encode(Seen(os.path.abspath(root), when)))
    except OSError as error:
        return f"{path}: {error.strerror}"
    return ""


def leave(root: Path, when: float, patience: float = 0.3) -> None:
    """The same in a thread that the end of the app waits for only so many seconds: a disk may hang."""
    thread = threading.Thread(target=remember_seen, args=(root, when), daemon=True, name="seen")
    with contextlib.suppress(RuntimeError):  # the system gives no more threads: then nobody remembers
        thread.start()
        thread.join(patience)
