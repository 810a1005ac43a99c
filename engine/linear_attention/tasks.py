"""The probe's tasks as data: tokens and targets, numpy only.

Used twice: by the sandboxed worker with public seeds for training batches, and by the trusted scorer with a secret
seed for evaluation batches. `targets` is the token that has to be predicted at a position, `IGNORE` where nothing is
asked.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from engine.domain import TaskInfo

IGNORE = -1
TASKS_VERSION = 1

Tokens = NDArray[np.int32]
Corpus = NDArray[np.uint8]

KEYS = 16
VALUES = 16
NOISE_TOKENS = 8
NOISE_FRACTION = 0.2
TOKENS_PER_KEY = 4


class Batch(NamedTuple):
    """Inputs and targets, both int32 `[sequences, time]`."""

    tokens: Tokens
    targets: Tokens


class Plan(msgspec.Struct, frozen=True):
    """How one task is trained and scored at one tier; the same for every program.

    length: evaluation length and last training length, in tokens. batch_tokens: tokens per training step, at every
    length. curriculum: (fraction of the steps, training length) stages before the full length, easiest first.
    short_convolution: whether the backbone puts a causal depthwise convolution before every mixer.
    checkpoints: points of the sealed learning curve; *_sequences: sizes of the sealed sets.
    """

    task: str
    steps: int
    length: int
    batch_tokens: int
    learning_rate: float
    short_convolution: bool
    curriculum: tuple[tuple[float, int], ...] = ()
    checkpoints: int = 8
    checkpoint_sequences: int = 64
    final_sequences: int = 256
    probe_sequences: int = 64

    def length_at(self, step: int) -> int:
        """Training length of step `step` (from 0)."""
        for until, length in self.curriculum:
            if step < until * self.steps:
                return length
        return self.length

    def batch_at(self, step: int) -> int:
        """Sequences in the batch of step `step`."""
        return max(1, self.batch_tokens // self.length_at(step))

    def tokens_until(self, step: int) -> int:
        """Training tokens of the first `step` steps."""
        return sum(self.batch_at(index) * self.length_at(index) for index in range(step))

    def checkpoint_steps(self) -> list[int]:
        """Steps after which the sealed curve is measured; the last one is the end of training."""
        return sorted({max(1, round(self.steps * i / self.checkpoints)) for i in range(1, self.checkpoints + 1)})


class Task(msgspec.Struct, frozen=True):
    """A task: how it is described to people and how its sequences are drawn.

    draw(random, sequences, length, training, corpus): evaluation may ask at fewer positions than training does.
    lowest_loss: a sealed loss in nats below which no honest model of these sizes can get; 0 where 0 is honest.
    """

    name: str
    skill: str
    vocabulary: int
    chance: float
    draw: Callable[[np.random.Generator, int, int, bool, Corpus | None], Batch]
    language: bool = False
    lowest_loss: float = 0.0

    @property
    def metric(self) -> str:
        """Name of the final metric."""
        return "bits per byte" if self.language else "accuracy"


def draw_recall(
    random: np.random.Generator, sequences: int, length: int, training: bool, corpus: Corpus | None
) -> Batch:
    """In-context recall: `key value key value …`; at every key seen before, its value is asked."""
    batch = _key_value(random, sequences, length + length % 2, noise=0)
    return Batch(batch.tokens[:, :length], batch.targets[:, :length])


def draw_noisy_recall(
    random: np.random.Generator, sequences: int, length: int, training: bool, corpus: Corpus | None
) -> Batch:
    """In-context recall with tokens that mean nothing strewn between the pairs."""
    return _key_value(random, sequences, length, noise=int(NOISE_FRACTION * length))


def _key_value(random: np.random.Generator, sequences: int, length: int, noise: int) -> Batch:
    pairs = (length - noise) // 2
    noise = length - 2 * pairs
    rows = np.arange(sequences)
    dictionary = KEYS + random.integers(0, VALUES, (sequences, KEYS))
    # Short sequences use few keys, so that each comes up about twice at every length: longer is harder.
    used = max(1, min(KEYS, length // TOKENS_PER_KEY))
    names = random.permuted(np.broadcast_to(np.arange(KEYS), (sequences, KEYS)), axis=1)[:, :used]
    keys = np.take_along_axis(names, random.integers(0, used, (sequences, pairs)), axis=1)
    tokens = KEYS + VALUES + random.integers(0, NOISE_TOKENS, (sequences, length))
    targets = np.full((sequences, length), IGNORE)
    # Each slot is a pair (2 tokens) or a noise token (1); a random order of slots gives every pair its place.
    is_pair = np.arange(pairs + noise) < pairs
    slots = random.permuted(np.broadcast_to(is_pair, (sequences, pairs + noise)), axis=1)
    starts = (np.cumsum(1 + slots, axis=1) - (1 + slots))[slots].reshape(sequences, pairs)
    seen = np.zeros((sequences, KEYS), dtype=bool)
    for index in range(pairs):
        key, start = keys[:, index], starts[:, index]
        value = dictionary[rows, key]
        tokens[rows, start], tokens[rows, start + 1] = key, value
        targets[rows, start] = np.where(seen[rows, key], value, IGNORE)
        seen[rows, key] = True
    return Batch(tokens.astype(np.int32), targets.astype(np.int32))


def draw_parity(
    random: np.random.Generator, sequences: int, length: int, training: bool, corpus: Corpus | None
) -> Batch:
    """Running parity of random bits. Evaluation asks in the second half only: short prefixes can be memorised."""
    bits = random.integers(0, 2, (sequences, length)).astype(np.int32)
    targets = np.cumsum(bits, axis=1, dtype=np.int32) % 2
    if not training:
        targets[:, : length // 2] = IGNORE
    return Batch(bits, targets.astype(np.int32))


def draw_bytes(
    random: np.random.Generator, sequences: int, length: int, training: bool, corpus: Corpus | None
) -> Batch:
    """Windows of the byte corpus; the next byte is asked everywhere. Raises ValueError without a long enough corpus."""
    if corpus is None or len(corpus) <= length + 1:
        raise ValueError(f"the byte task needs a corpus of more than {length + 1} bytes")
    starts = random.integers(0, len(corpus) - length, sequences)
    windows = corpus[starts[:, None] + np.arange(length + 1)].astype(np.int32)
    return Batch(windows[:, :-1], windows[:, 1:])


TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task("recall", "look up a value by its key, in context", KEYS + VALUES, 1 / VALUES, draw_recall),
        Task(
            "noisy_recall",
            "look up a value by its key among noise",
            KEYS + VALUES + NOISE_TOKENS,
            1 / VALUES,
            draw_noisy_recall,
        ),
        Task("parity", "track a state that every token can flip", 2, 0.5, draw_parity),
        Task("bytes", "model the bytes of program text", 256, 8.0, draw_bytes, language=True, lowest_loss=0.7),
    )
}


def describe(plan: Plan) -> TaskInfo:
    """The task of `plan` as people see it."""
    task = TASKS[plan.task]
    return TaskInfo(task.name, task.skill, task.metric, task.chance, plan.steps)


def public_seed(*parts: object) -> int:
    """A 63-bit seed from names and numbers; anybody can compute it."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "little") >> 1


def training_batch(plan: Plan, seed: int, step: int, corpus: Corpus | None) -> Batch:
    """The batch of step `step`: fixed by task, seed and step, the same for every program."""
    random = np.random.default_rng(public_seed("train", plan.task, seed, step))
    return TASKS[plan.task].draw(random, plan.batch_at(step), plan.length_at(step), True, corpus)


def sealed_random(key: bytes, task: str, purpose: str) -> np.random.Generator:
    """A generator that only the holder of `key` can repeat; the same for every program and seed."""
    digest = hmac.new(key, f"{TASKS_VERSION}/{task}/{purpose}".encode(), hashlib.sha256).digest()
    return np.random.default_rng(int.from_bytes(digest, "little"))
