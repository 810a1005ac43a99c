"""Which experiments are tests of attention: what a supervisor is shown of one does not say so until it is decided.

What of a test's record is made up until then stands in `engine.attention`.

While there are such tests every proposal carries a seal, the hash of a nonce, its id and what it is. Nonces and truth
stand in `attention.json` of the run directory (0600), on disk before the experiment is opened. After the decision the
nonce is put on record, so that anybody can see that the test had been one from the beginning.
"""

from __future__ import annotations

import hashlib
import os
import random
import secrets
import threading
from pathlib import Path
from typing import Literal

import msgspec

from engine.client.rundir import atomic_write
from store.state import Experiment, RunState

FILE = "attention.json"
MAX_BYTES = 64 * 1024 * 1024
VERSION = 1

Standing = Literal["real", "decoy", "unknown"]


class DecoysError(Exception):
    """What is known of the tests of attention cannot be read or does not fit its seal; the message is one line."""


class Truth(msgspec.Struct, frozen=True):
    """What an experiment is: `what` names the fault of a test, and is empty for a real proposal."""

    nonce: str
    what: str = ""


class _Kept(msgspec.Struct, frozen=True):
    """attention.json."""

    version: int
    experiments: dict[str, Truth]


def seal_of(experiment: str, truth: Truth) -> str:
    """The seal that commits to the truth about an experiment."""
    word = "decoy" if truth.what else "real"
    return hashlib.sha256(f"{truth.nonce}:{experiment}:{word}".encode()).hexdigest()


class Decoys:
    """The truth about sealed experiments. `share`: of the requests that people see, so many are tests.

    Without a root nothing is known and nothing can be sealed: sealed experiments are then barred.
    """

    def __init__(self, root: Path | None = None, share: float = 0.0, seed: int = 0) -> None:
        """Reads the file: blocking. Raises `DecoysError`."""
        self.share, self._seed = share if root is not None else 0.0, seed
        self._path = root / FILE if root is not None else None
        self._truths = _read(self._path) if self._path is not None else {}
        self._standings: dict[tuple[str, str], Standing] = {}  # by experiment and seal: asked for at every event
        self._writing = threading.Lock()
        self._wanted = [0]

    @property
    def active(self) -> bool:
        """Whether proposals are sealed, and some of them tests."""
        return self.share > 0

    def due(self, state: RunState) -> bool:
        """Whether the next request that people see should be a test.

        Draws once for each request about a real program, the same for the same seed and number of requests.
        """
        if not self.active:
            return False
        made = len(self._made(state)) - len(self.unasked(state))
        asked = sum(
            request.subject == "program" and not self._is_known(request.experiment)
            for request in state.requests.values()
        )
        odds = self.share / (1 - self.share)
        while len(self._wanted) <= asked:
            drawn = random.Random(f"{self._seed}:attention:{len(self._wanted)}").random() < odds
            self._wanted.append(self._wanted[-1] + drawn)
        return made < self._wanted[asked]

    def unasked(self, state: RunState) -> list[str]:
        """The faults of tests that ended without a request: the policy decided on them, and would again."""
        asked = {request.experiment for request in state.requests.values()}
        return [self._truths[e.id].what for e in self._made(state) if not e.open and e.id not in asked]

    def used(self, state: RunState) -> list[str]:
        """The faults of all tests so far."""
        return [self._truths[entry.id].what for entry in self._made(state)]

    def _made(self, state: RunState) -> list[Experiment]:
        names = (name for name, truth in self._truths.items() if truth.what)
        return [state.experiments[name] for name in names if name in state.experiments]

    def seal(self, experiment: str, what: str = "") -> str:
        """Decide what an experiment is before it is opened, durably; returns its seal. Blocking.

        Raises:
            OSError: it cannot be written; the experiment must not be opened.
        """
        assert self._path is not None
        truth = Truth(secrets.token_hex(16), what)
        with self._writing:
            known = {**self._truths, experiment: truth}
            atomic_write(self._path, msgspec.json.encode(_Kept(VERSION, known)))
            self._truths = known
            self._standings = {}
        return seal_of(experiment, truth)

    def standing(self, entry: Experiment) -> Standing:
        """What an experiment is; `unknown` where it is sealed and nothing here opens its seal."""
        if not entry.seal:
            return "real"
        known = self._standings.get((entry.id, entry.seal))
        if known is None:
            truth = self._truths.get(entry.id)
            if truth is None or seal_of(entry.id, truth) != entry.seal:
                return "unknown"
            known = self._standings[entry.id, entry.seal] = "decoy" if truth.what else "real"
        return known

    def is_decoy(self, entry: Experiment) -> bool:
        """Whether an experiment is a test. Raises `DecoysError` where that is not known: then it must not run."""
        standing = self.standing(entry)
        if standing == "unknown":
            raise DecoysError(f"{entry.id} is sealed, and what opens its seal is not in {FILE}: it may be a test")
        return standing == "decoy"

    def reveal(self, experiment: str) -> tuple[str, str]:
        """What was wrong with a test, and the nonce of its seal. Raises KeyError for what is none."""
        truth = self._truths[experiment]
        if not truth.what:
            raise KeyError(experiment)
        return truth.what, truth.nonce

    def without(self, state: RunState) -> RunState:
        """The state as it would be without tests: what proposals are drawn from, counted by and learned from.

        Shares everything with `state`; for reading only.
        """
        hidden = {
            name for name, entry in state.experiments.items() if entry.scored is None and self.standing(entry) != "real"
        }
        if not hidden:
            return state
        kept = {name: entry for name, entry in state.experiments.items() if name not in hidden}
        return msgspec.structs.replace(state, experiments=kept)

    def _is_known(self, experiment: str) -> bool:
        truth = self._truths.get(experiment)
        return truth is not None and bool(truth.what)


def _read(path: Path) -> dict[str, Truth]:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise DecoysError(f"{path} cannot be read: {error.strerror}") from None
    try:
        with os.fdopen(descriptor, "rb") as file:
            content = file.read(MAX_BYTES + 1)
        kept = msgspec.json.decode(content, type=_Kept)
    except (OSError, ValueError) as error:
        raise DecoysError(
            f"{path} is damaged ({str(error)[:120]}); put it back from a copy, or move it away: then no proposal "
            "that is under way goes on"
        ) from None
    if len(content) > MAX_BYTES or kept.version != VERSION:
        raise DecoysError(f"{path} is not of this version, or too large")
    return kept.experiments
