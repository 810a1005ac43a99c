"""The pipe between the trusted scorer (master) and the sandboxed worker (slave): small binary frames.

A frame is a header (magic, kind, payload length) and the payload. Whoever waits for a frame says beforehand which
kinds may come and how long each may be, so that a hostile peer can neither make the other side allocate memory nor
keep it waiting: a wrong magic, kind or length, an end of file or a passed deadline is a `WireError`.
"""

from __future__ import annotations

import enum
import os
import select
import struct
import time
from collections.abc import Mapping

import msgspec
import numpy as np
from numpy.typing import NDArray

MAGIC = b"asi1"
HEADER = struct.Struct("<4sBI")
LOGITS_HEADER = struct.Struct("<BII")
MAX_TEXT = 4096
MAX_TOKENS = 1 << 20
_CHUNK = 1 << 16


class WireError(Exception):
    """The peer broke the protocol, went away or was too slow."""


class Kind(enum.IntEnum):
    """What a frame is. Requests of the scorer are odd, answers of the worker even.

    LOGITS is asked between EVALUATE and RELEASE only: a copy of the training process answers it.
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
    RELEASE = 13


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


class Usage(msgspec.Struct, frozen=True):
    """CPU seconds of the process that ran one task, as the kernel counted them."""

    cpu_seconds: float


class Channel:
    """Frames over two pipe ends. With a deadline (absolute, `time.monotonic`) no call blocks past it."""

    def __init__(self, read_fd: int, write_fd: int) -> None:
        self._read_fd = read_fd
        self._write_fd = write_fd
        self._readable = select.poll()
        self._readable.register(read_fd, select.POLLIN)
        self._writable = select.poll()
        self._writable.register(write_fd, select.POLLOUT)

    def send(self, kind: Kind, payload: bytes = b"", deadline: float | None = None) -> None:
        """Write one frame; raises `WireError` when the peer is gone or does not read in time."""
        frame = memoryview(HEADER.pack(MAGIC, kind, len(payload)) + payload)
        while frame:
            _wait(self._writable, deadline)
            # A pipe that polls writable takes PIPE_BUF bytes without blocking; more could block past the deadline.
            size = len(frame) if deadline is None else select.PIPE_BUF
            try:
                frame = frame[os.write(self._write_fd, frame[:size]) :]
            except BrokenPipeError as error:
                raise WireError("the other side closed the pipe") from error

    def receive(self, allowed: Mapping[Kind, tuple[int, int]], deadline: float | None = None) -> tuple[Kind, bytes]:
        """Read one frame of an allowed kind with a payload of `least..most` bytes; anything else is a `WireError`."""
        magic, number, length = HEADER.unpack(self._read(HEADER.size, deadline))
        bounds = next((bounds for kind, bounds in allowed.items() if kind == number), None)
        if magic != MAGIC or bounds is None:
            raise WireError(f"unexpected frame (kind {number}) instead of {'/'.join(kind.name for kind in allowed)}")
        if not bounds[0] <= length <= bounds[1]:
            raise WireError(f"{Kind(number).name} frame of {length} bytes where {bounds[0]} to {bounds[1]} are allowed")
        return Kind(number), self._read(length, deadline)

    def _read(self, size: int, deadline: float | None) -> bytes:
        data = bytearray()
        while len(data) < size:
            _wait(self._readable, deadline)
            part = os.read(self._read_fd, min(size - len(data), _CHUNK))
            if not part:
                raise WireError("the other side ended")
            data += part
        return bytes(data)


def _wait(poll: select.poll, deadline: float | None) -> None:
    if deadline is None:
        return
    remaining = deadline - time.monotonic()
    if remaining <= 0 or not poll.poll(remaining * 1000):
        raise WireError("no answer before the deadline")


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
