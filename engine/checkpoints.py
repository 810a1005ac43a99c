"""Keeping a parked trial's checkpoint, and handing it back: bytes of unknown content that only a sandbox may load."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from pathlib import Path

from engine.client.rundir import fsync_directory
from engine.supervision import folders
from engine.tailing import MAX_POINTS_BYTES, open_plain

NAME = "checkpoint.pt"
POINTS = "points.jsonl"
PROGRESS = "progress.json"


def keep(folder: Path, most_bytes: int) -> str:
    """Move `work/checkpoint.pt` of a trial whose sandbox is dead out of the sandbox's reach.

    Returns the sha256 of all that the trial goes on from: the scorer's account and, where training had begun, the
    checkpoint. Empty when there is no account. A checkpoint that is no plain file or larger than `most_bytes` is left.
    """
    source, target = folder / "work" / NAME, folder / NAME
    target.unlink(missing_ok=True)
    descriptor = open_plain(source)
    if descriptor is not None:
        with os.fdopen(descriptor, "rb"):
            good = os.fstat(descriptor).st_size <= most_bytes
            os.fsync(descriptor)
        if good:
            os.replace(source, target)
    fsync_directory(folder)
    return _hash(folder)


def is_kept(folder: Path, sha: str) -> bool:
    """Whether what a trial goes on from is still there, unchanged."""
    return bool(sha) and _hash(folder) == sha


def _hash(folder: Path) -> str:
    digest = hashlib.sha256()
    for name in (PROGRESS, NAME):
        descriptor = open_plain(folder / name)
        if descriptor is None:
            if name == PROGRESS:
                return ""
            continue
        with os.fdopen(descriptor, "rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def fresh_workdir(folder: Path, resume: bool = False) -> Path:
    """An empty work folder for a sandbox; to go on, with the training points so far and the checkpoint in it.

    Nothing of an earlier work folder is written through: a program could have left links in it.

    Raises:
        OSError: it cannot be made.
    """
    workdir, old = folder / "work", folder / "work.old"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folders.remove(old)
    with contextlib.suppress(FileNotFoundError):
        os.rename(workdir, old)
    workdir.mkdir(mode=0o700)
    if resume:
        for source, most in ((old / POINTS, MAX_POINTS_BYTES), (folder / NAME, None)):
            descriptor = open_plain(source)
            if descriptor is not None:
                with os.fdopen(descriptor, "rb") as stream, (workdir / source.name).open("xb") as copy:
                    shutil.copyfileobj(stream, copy) if most is None else copy.write(stream.read(most))
    folders.remove(old)
    return workdir
