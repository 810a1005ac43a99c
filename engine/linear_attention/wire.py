"""The pipe between the trusted scorer (master) and the sandboxed worker (slave): small binary frames.

A frame is a header (magic, kind, payload length) and the payload. Whoever waits for a frame says beforehand which
kinds may come and how long each may be, so that a hostile peer can neither make the other side allocate memory nor
keep it waiting: a wrong magic, kind or length, an end of file or a patience at its end is a `WireError`.
"""

from __future__ import annotations

import enum
import os
import select
import struct
import time
from collections.abc import Callable, Mapping

import msgspec
import numpy as np
from numpy.typing import NDArray

MAGIC = b"asi1"
HEADER = struct.Struct("<4sBI")
LOGITS_HEADER = struct.Struct("<BII")
MAX_TEXT = 4096
MAX_TOKENS = 1 << 20
_CHUNK = 1 << 16
_SLICE_SECONDS = 0.2


class WireError(Exception):
    """The peer broke the protocol, went away or was too slow."""


class TooSlow(WireError):
    """The peer did not answer, or did not read, before the patience of this side was at its end."""


class Patience:
    """How long this side waits for the other, over all waits together.

    It waits in slices and counts each as its own length at most: however long this process is stopped in a slice, the
    other side, which is stopped with it, loses no more than that slice. `give_up` is asked between slices; when it is
    true, the patience is at its end.
    """

    def __init__(self, seconds: float, give_up: Callable[[], bool] = lambda: False) -> None:
        self.spent = 0.0
        self._seconds = seconds
        self._give_up = give_up

    def wait(self, poll: select.poll) -> None:
        """Wait until the polled pipe is ready; raises `TooSlow`."""
        while self.spent < self._seconds and not self._give_up():
            most = min(_SLICE_SECONDS, self._seconds - self.spent)
            started = time.monotonic()
            ready = poll.poll(most * 1000)
            self.spent += min(most, time.monotonic() - started)
            if ready:
                return
        raise TooSlow("no answer before the deadline")


class Kind(enum.IntEnum):
    """What a frame is. Requests of the scorer are odd, answers of the worker even.

    LOGITS is asked between EVALUATE and RELEASE only: a copy of the training process answers it. SAVE makes the
    training process write its checkpoint.
    """

    TASK = 1
    READY = 2
    TRAIN = 3
    TRAINED = 4
    LOGITS = 5
    VALUES = 6
    FINISH = 7
    FINISHED = 8
    END = 9
    FAILED = 10
    EVALUATE = 11
    SAVED = 12
    RELEASE = 13
    SAVE = 15


class Begin(msgspec.Struct, frozen=True):
    """What a TASK request says. step: of the checkpoint to go on from, 0 to start. cpu_seconds: what may be used."""

    task: str
    step: int
    cpu_seconds: float


class Counts(msgspec.Struct, frozen=True):
    """The worker's account of the model it built: untrusted, to be validated by the scorer.

    parameters: of the whole model. mlp_hidden: SwiGLU width (mean over layers). state_floats: per layer and sequence.
    """

    parameters: int
    mlp_hidden: int
    state_floats: int


class Progress(msgspec.Struct, frozen=True):
    """The worker's account of its training so far: untrusted. `flops` counts forward and backward."""

    step: int
    tokens: int
    flops: float


class Ready(msgspec.Struct, frozen=True):
    """The worker's account of what it begins a task with; `progress` is all zeros where nothing was resumed."""

    counts: Counts
    progress: Progress


class Usage(msgspec.Struct, frozen=True):
    """CPU seconds of the process that ran one task, as the kernel counted them: untrusted."""

    cpu_seconds: float


class Saved(msgspec.Struct, frozen=True):
    """The worker's account of the checkpoint it wrote, and of the CPU seconds of the task until then: untrusted."""

    progress: Progress
    usage: Usage


class Channel:
    """Frames over two pipe ends. No call blocks for longer than its patience, where it is given one."""

    def __init__(self, read_fd: int, write_fd: int) -> None:
        self._read_fd = read_fd
        self._write_fd = write_fd
        self._readable = select.poll()
        self._readable.register(read_fd, select.POLLIN)
        self._writable = select.poll()
        self._writable.register(write_fd, select.POLLOUT)

    def send(self, kind: Kind, payload: bytes = b"", patience: Patience | None = None) -> None:
        """Write one frame; raises `WireError` when the peer is gone or does not read in time."""
        frame = memoryview(HEADER.pack(MAGIC, kind, len(payload)) + payload)
        while frame:
            _wait(self._writable, patience)
            # A pipe that polls writable takes PIPE_BUF bytes without blocking; more could block for longer.
            size = len(frame) if patience is None else select.PIPE_BUF
            try:
                frame = frame[os.write(self._write_fd, frame[:size]) :]
            except BrokenPipeError as error:
                raise WireError("the other side closed the pipe") from error

    def receive(self, allowed: Mapping[Kind, tuple[int, int]], patience: Patience | None = None) -> tuple[Kind, bytes]:
        """Read one frame of an allowed kind with a payload of `least..most` bytes; anything else is a `WireError`."""
        magic, number, length = HEADER.unpack(self._read(HEADER.size, patience))
        bounds = next((bounds for kind, bounds in allowed.items() if kind == number), None)
        if magic != MAGIC or bounds is None:
            raise WireError(f"unexpected frame (kind {number}) instead of {'/'.join(kind.name for kind in allowed)}")
        if not bounds[0] <= length <= bounds[1]:
            raise WireError(f"{Kind(number).name} frame of {length} bytes where {bounds[0]} to {bounds[1]} are allowed")
        return Kind(number), self._read(length, patience)

    def _read(self, size: int, patience: Patience | None) -> bytes:
        data = bytearray()
        while len(data) < size:
            _wait(self._readable, patience)
            part = os.read(self._read_fd, min(size - len(data), _CHUNK))
            if not part:
                raise WireError("the other side ended")
            data += part
        return bytes(data)


def _wait(poll: select.poll, patience: Patience | None) -> None:
    if patience is not None:
        patience.wait(poll)


def pack_logits_request(tokens: NDArray[np.int32], training: bool) -> bytes:
    """Encode a request for the logits of `tokens` `[sequences, time]` in training or evaluation mode."""
    return LOGITS_HEADER.pack(training, *tokens.shape) + np.ascontiguousarray(tokens, dtype="<i4").tobytes()


def unpack_logits_request(payload: bytes) -> tuple[NDArray[np.int32], bool]:
    """Decode `pack_logits_request`; raises `WireError` when sizes and payload disagree."""
    training, sequences, time_steps = LOGITS_HEADER.unpack_from(payload)
    if len(payload) != LOGITS_HEADER.size + 4 * sequences * time_steps:
        raise WireError("token payload of the wrong length")
    tokens = np.frombuffer(payload, dtype="<i4", offset=LOGITS_HEADER.size).reshape(sequences, time_steps)
    return tokens.astype(np.int32), bool(training)
