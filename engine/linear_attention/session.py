"""The worker as the trusted scorer sees it: requests with bounded waits, answers of exactly the expected size."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from engine.linear_attention.leaving import ABANDON_SECONDS, GIVE_UP_SECONDS, Leaving
from engine.linear_attention.tasks import Tokens
from engine.linear_attention.wire import (
    MAX_TEXT,
    Begin,
    Channel,
    Kind,
    Patience,
    Progress,
    Ready,
    Saved,
    TooSlow,
    Usage,
    WireError,
    pack_logits_request,
)

Floats = NDArray[np.float64]
Answer = TypeVar("Answer", Ready, Progress, Saved, Usage)


class TrialFailed(Exception):
    """The trial cannot be scored; the message says why, with the worker's own words quoted and bounded."""


class Abandoned(Exception):
    """What was going on is left undone because the scorer was asked to leave; the worker listens."""


class Late(Exception):
    """The scorer was asked to leave and the worker did not answer in the time that is left for that."""


class Session:
    """Requests to one worker.

    silence_seconds: longest wait for any one answer, not counting time in which the scorer itself was stopped.
    waited: seconds in which the worker had something to do, counted in the same way.
    """

    def __init__(self, channel: Channel, silence_seconds: float, leaving: Leaving) -> None:
        self.leaving = leaving
        self.waited = 0.0
        self._channel = channel
        self._silence = silence_seconds
        self._met = False

    def begin(self, begin: Begin) -> Ready:
        """Have the worker build a model for a task, and load the checkpoint where there is one to go on from."""
        ready = self._ask(Kind.TASK, msgspec.json.encode(begin), Kind.READY, Ready)
        self._met = True
        return ready

    def train(self, step: int) -> Progress:
        """Have the worker train until `step` steps are done."""
        return self._ask(Kind.TRAIN, step.to_bytes(4, "little"), Kind.TRAINED, Progress)

    def save(self) -> Saved:
        """Have the worker write its checkpoint."""
        return self._ask(Kind.SAVE, b"", Kind.SAVED, Saved)

    def finish(self) -> Usage:
        """End the present task."""
        return self._ask(Kind.FINISH, b"", Kind.FINISHED, Usage)

    def end(self) -> None:
        """End the worker."""
        self._send(Kind.END, b"")

    @contextlib.contextmanager
    def evaluation(self) -> Iterator[None]:
        """Within it, a copy of the worker answers `logits`; the trained model is as it was when it ends."""
        self._send(Kind.EVALUATE, b"")
        try:
            yield
        except Abandoned:
            self._send(Kind.RELEASE, b"")
            raise
        self._send(Kind.RELEASE, b"")

    def logits(self, tokens: Tokens, vocabulary: int, training: bool = False) -> Floats:
        """Logits `[sequences, time, vocabulary]`.

        Raises TrialFailed when one is not finite, Abandoned when leaving has no time for evaluations any more.
        """
        if self.leaving.over(ABANDON_SECONDS):
            raise Abandoned
        size = 4 * tokens.size * vocabulary
        payload = self._exchange(Kind.LOGITS, pack_logits_request(tokens, training), Kind.VALUES, (size, size))
        values = np.frombuffer(payload, dtype="<f4").reshape(*tokens.shape, vocabulary).astype(np.float64)
        if not np.isfinite(values).all():
            raise TrialFailed(f"logits that are not finite at length {tokens.shape[1]}")
        return values

    def _ask(self, request: Kind, payload: bytes, answer: Kind, shape: type[Answer]) -> Answer:
        content = self._exchange(request, payload, answer, (2, 512))
        try:
            return msgspec.json.decode(content, type=shape)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise TrialFailed(f"malformed {answer.name} from the worker: {error}") from error

    def _exchange(self, request: Kind, payload: bytes, answer: Kind, bounds: tuple[int, int]) -> bytes:
        self._send(request, payload)
        patience = Patience(self._silence, self._given_up)
        try:
            kind, content = self._channel.receive({answer: bounds, Kind.FAILED: (0, MAX_TEXT)}, patience)
        except WireError as error:
            raise self._lost(f"while it was asked to {request.name}", error) from error
        finally:
            # Its start is not counted: it is no task's, and it comes again with every resumption.
            self.waited += patience.spent if self._met else 0.0
        if kind == Kind.FAILED:
            text = "".join(c if c.isprintable() or c == "\n" else "?" for c in content.decode("utf-8", "replace"))
            raise TrialFailed(f"the worker reported: {text}")
        return content

    def _send(self, request: Kind, payload: bytes) -> None:
        try:
            self._channel.send(request, payload, Patience(self._silence, self._given_up))
        except WireError as error:
            raise self._lost(f"before it was asked to {request.name}", error) from error

    def _given_up(self) -> bool:
        # A worker that is still starting has nothing to save: it is not waited for.
        return self.leaving.over(GIVE_UP_SECONDS if self._met else 0.0)

    def _lost(self, when: str, error: WireError) -> TrialFailed | Late:
        if isinstance(error, TooSlow) and self._given_up():
            return Late()
        return TrialFailed(f"worker lost {when}: {error}")
