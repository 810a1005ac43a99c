"""A new run directory, whole or not at all: it is made beside its place and takes it in one rename.

What is copied into it comes from places that a training process could have written to: only plain files, never through
a link, never more than was asked for.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

CHUNK = 1 << 20
SPARE_BYTES = 64 * 1024 * 1024
"""What has to stay free on the disk beside what is about to be written."""
STALE_SECONDS = 60.0
_PREFIX = ".new-"

Tell = Callable[[int, int], None]
"""Progress: bytes done, bytes in all."""


class StagingError(Exception):
    """The directory is not made; one line says why, and nothing of it is left."""


class Copied(NamedTuple):
    """What was read from one file."""

    size: int
    sha256: str


@contextlib.contextmanager
def staged(target: Path) -> Iterator[Path]:
    """An empty directory (0700) that becomes `target` when the block ends well, and vanishes when it does not.

    Raises:
        StagingError: `target` exists.
        OSError: the place cannot be written.
    """
    _refuse_existing(target)
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    _sweep(target.parent)
    # A folder around it, so that nobody takes the half-made directory for a run.
    around = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=target.parent))
    lock = os.open(around, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        made = around / target.name
        made.mkdir(mode=0o700)
        yield made
        sync_tree(made)
        _refuse_existing(target)
        os.rename(made, target)
        _sync(target.parent)
    finally:
        os.close(lock)
        shutil.rmtree(around, ignore_errors=True)


def _refuse_existing(target: Path) -> None:
    if os.path.lexists(target):
        raise StagingError(f"{target.name} exists in {target.parent}; choose another name with --name")


def _sweep(parent: Path) -> None:
    """Remove what processes that died half way have left: theirs is the folder that nobody holds."""
    for folder in parent.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if time.time() - os.fstat(lock).st_mtime > STALE_SECONDS:
                    shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)


def sync_tree(root: Path) -> None:
    """Bring every file and folder below `root` onto the disk."""
    for folder, _, files in os.walk(root):
        for name in files:
            _sync(Path(folder, name))
        _sync(Path(folder))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def require_space(place: Path, needed: int) -> None:
    """Refuse to begin what the disk cannot hold.

    Raises:
        StagingError: with both sizes.
    """
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < needed + SPARE_BYTES:
        raise StagingError(
            f"{size_words(needed)} are needed in {place}, {size_words(free)} are free there; make room first"
        )


def size_words(size: int) -> str:
    """A size in words: `12 kB`, `3.4 GB`."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= scale:
            return f"{size / scale:.3g} {unit}"
    return f"{size} bytes"


def open_below(root: Path, name: str) -> BinaryIO:
    """Open the plain file `root`/`name` step by step, so that no part of `name` can be a link.

    Raises:
        OSError: it is not there, or is no plain file.
    """
    *folders, last = name.split("/")
    folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in folders:
            inner = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
            os.close(folder)
            folder = inner
        descriptor = os.open(last, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    finally:
        os.close(folder)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "is no plain file", str(root / name))
    return os.fdopen(descriptor, "rb")


def pour(source: BinaryIO, target: BinaryIO, most: int, tell: Callable[[int], None] | None = None) -> Copied:
    """Copy at most `most` bytes, a piece at a time; `tell` gets the size of each piece."""
    digest, done = hashlib.sha256(), 0
    while done < most and (piece := source.read(min(CHUNK, most - done))):
        target.write(piece)
        digest.update(piece)
        done += len(piece)
        if tell is not None:
            tell(len(piece))
    return Copied(done, digest.hexdigest())


def create(path: Path) -> BinaryIO:
    """A new file (0600) in folders (0700) that are made where they are missing. Raises OSError where it exists."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    return os.fdopen(descriptor, "wb")
