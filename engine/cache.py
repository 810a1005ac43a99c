"""Trials of baselines that this machine has already run, so that every new run starts with its noise floor known.

The key holds all that a score depends on: program, tier, seed, data, the code of the harness, torch's version and the
processor. Entries are `trial.finished` events; one that cannot be read is as good as none.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
from functools import lru_cache
from pathlib import Path

import msgspec

from engine.client.machine import processor
from engine.client.rundir import atomic_write
from store.events import TrialFinished, encode


def cache_home() -> Path:
    """`$XDG_CACHE_HOME/asi`, by default `~/.cache/asi`."""
    named = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(named) if os.path.isabs(named) else Path.home() / ".cache") / "asi"


@lru_cache(1)
def machine() -> str:
    """What a score depends on beside program and data: torch, processor, and the harness's own code."""
    digest = hashlib.sha256()
    for path in sorted((Path(__file__).parent / "linear_attention").rglob("*.py")):
        if "baselines" not in path.parts:
            digest.update(path.read_bytes())
    return "|".join((importlib.metadata.version("torch"), processor(), digest.hexdigest()))


def key(program: str, tier: str, seed: int, data_hash: str) -> str:
    """The cache key of one trial."""
    return hashlib.sha256("|".join((program, tier, str(seed), data_hash, machine())).encode()).hexdigest()


def load(name: str) -> TrialFinished | None:
    """A trial this machine has run before, or None."""
    try:
        return msgspec.json.decode((cache_home() / "trials" / f"{name}.json").read_bytes(), type=TrialFinished)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return None


def save(name: str, event: TrialFinished) -> None:
    """Remember a trial. Raises OSError when the cache cannot be written."""
    folder = cache_home() / "trials"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    atomic_write(folder / f"{name}.json", encode(event))
