"""The trusted half of a trial: it owns the sealed data, asks the worker for logits and computes every score itself.

No torch and no candidate code here. The worker only ever sees inputs. Whether it used the future is tested three
ways: an earlier logit may not change when later tokens do (exactly), the loss on a bare prefix must be the loss on
the whole sequence (up to rounding), and sequences of which the worker *only* ever sees prefixes must be as easy as
those it sees whole (statistically; this one holds even against a program that remembers what it was shown).
"""

from __future__ import annotations

import argparse
import contextlib
import math
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from engine.domain import ScorePoint, TaskResult, TrialResult
from engine.linear_attention.tasks import IGNORE, TASKS, Batch, Corpus, Plan, Task, Tokens, sealed_random
from engine.linear_attention.tiers import (
    PARAMETER_TOLERANCE,
    ScorerSpec,
    Tier,
    data_hash,
    load_key,
    max_length,
    reference_parameters,
)
from engine.linear_attention.wire import (
    MAX_TEXT,
    Channel,
    Counts,
    Kind,
    Progress,
    Usage,
    WireError,
    pack_logits_request,
)

# Losses in nats. A bare prefix has another shape than the whole sequence, hence other rounding.
ROUNDING = 0.01
SUSPICIOUS_DEVIATIONS = 5.0
SUSPICIOUS_GAP = 0.1
CUTS = 8
ROWS = 8
REQUEST_TOKENS = 4096

Floats = NDArray[np.float64]
Answer = TypeVar("Answer", Counts, Progress, Usage)


class TrialFailed(Exception):
    """The trial cannot be scored; the message says why, with the worker's own words quoted and bounded."""


class Measured(NamedTuple):
    """Per asked position: loss in nats, whether the best guess was right, and the position in its sequence."""

    losses: Floats
    correct: NDArray[np.bool_]
    positions: NDArray[np.int64]


class Session:
    """The worker as the scorer sees it: requests with deadlines, answers of exactly the expected size."""

    def __init__(self, channel: Channel, silence_seconds: float) -> None:
        self._channel = channel
        self._silence = silence_seconds

    def begin(self, task: str) -> Counts:
        """Have the worker build a model for `task`."""
        return self._ask(Kind.TASK, task.encode(), Kind.READY, Counts)

    def train(self, step: int) -> Progress:
        """Have the worker train until `step` steps are done."""
        return self._ask(Kind.TRAIN, step.to_bytes(4, "little"), Kind.TRAINED, Progress)

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
        yield
        self._send(Kind.RELEASE, b"")

    def logits(self, tokens: Tokens, vocabulary: int, training: bool = False) -> Floats:
        """Logits `[sequences, time, vocabulary]`; raises TrialFailed when one is not finite."""
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
        deadline = time.monotonic() + self._silence
        try:
            kind, content = self._channel.receive({answer: bounds, Kind.FAILED: (0, MAX_TEXT)}, deadline)
        except WireError as error:
            raise TrialFailed(f"worker lost while it was asked to {request.name}: {error}") from error
        if kind == Kind.FAILED:
            text = "".join(c if c.isprintable() or c == "\n" else "?" for c in content.decode("utf-8", "replace"))
            raise TrialFailed(f"the worker reported: {text}")
        return content

    def _send(self, request: Kind, payload: bytes) -> None:
        try:
            self._channel.send(request, payload, time.monotonic() + self._silence)
        except WireError as error:
            raise TrialFailed(f"worker lost before it was asked to {request.name}: {error}") from error


def measure(session: Session, batch: Batch, vocabulary: int) -> Measured:
    """Loss and accuracy at the asked positions of `batch`, from the worker's logits."""
    rows = max(1, REQUEST_TOKENS // batch.tokens.shape[1])
    parts = []
    for start in range(0, len(batch.tokens), rows):
        logits = session.logits(batch.tokens[start : start + rows], vocabulary)
        parts.append(losses_of(logits, batch.targets[start : start + rows]))
    return Measured(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def losses_of(logits: Floats, targets: Tokens) -> Measured:
    """Cross-entropy in nats, in float64, of `logits` `[n, t, v]` at the asked positions of `targets` `[n, t]`."""
    asked = targets != IGNORE
    chosen, wanted = logits[asked], targets[asked]
    shifted = chosen - chosen.max(axis=1, keepdims=True)
    losses = np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(wanted)), wanted]
    return Measured(losses, chosen.argmax(axis=1) == wanted, np.nonzero(asked)[1])


class TaskScorer:
    """Trains and scores one task through a session."""

    def __init__(self, session: Session, spec: ScorerSpec, plan: Plan, key: bytes, corpus: Corpus | None) -> None:
        self.session = session
        self.spec = spec
        self.plan = plan
        self.task: Task = TASKS[plan.task]
        self._key = key
        self._corpus = corpus
        self._doubts: list[str] = []
        self._causal_error = 0.0

    def run(self) -> tuple[TaskResult, Counts, Progress, Usage]:
        """The whole task; raises TrialFailed when anything is missing, malformed, late or not finite."""
        started = time.perf_counter()
        counts = self.session.begin(self.plan.task)
        _check_counts(counts, self.spec.tier, self.plan)
        curve = []
        for step in self.plan.checkpoint_steps():
            progress = self.session.train(step)
            _check_progress(progress, self.plan, step)
            curve.append((step, self._checkpoint(step)))
        sealed = self._draw("final", self.plan.final_sequences)
        with self.session.evaluation():
            final = measure(self.session, sealed, self.task.vocabulary)
        with self.session.evaluation():
            gap = self._prefix_check(final)
        with self.session.evaluation():
            self._perturbation_check()
        usage = self.session.finish()
        value = self._metric(final)
        area = sum(point for _, point in curve) / len(curve)
        if final.losses.mean() < self.task.lowest_loss:
            self._doubts.append(
                f"loss {final.losses.mean():.3f} nats is lower than any honest model of this size can reach"
            )
        result = TaskResult(
            task=self.plan.task,
            score=-value if self.task.language else (area + value) / 2,
            final=value,
            metric=self.task.metric,
            curve=curve,
            prefix_gap=gap,
            causal_error=self._causal_error,
            honest=not self._doubts,
            evidence="; ".join(self._doubts),
            seconds=time.perf_counter() - started,
        )
        return result, counts, progress, usage

    def _draw(self, purpose: str, sequences: int, length: int | None = None) -> Batch:
        random = sealed_random(self._key, self.plan.task, purpose)
        return self.task.draw(random, sequences, length or self.plan.length, False, self._corpus)

    def _metric(self, measured: Measured) -> float:
        return float(measured.losses.mean() / math.log(2) if self.task.language else measured.correct.mean())

    def _checkpoint(self, step: int) -> float:
        batch = self._draw(f"checkpoint {step}", self.plan.checkpoint_sequences)
        few = batch.tokens[:ROWS]
        changed, future, _ = self._other_future(f"checkpoint cuts {step}", few)
        # A program that looked ahead during training only would gain on the curve: every point is checked.
        with self.session.evaluation():
            blind = self.session.logits(changed, self.task.vocabulary)
            measured = measure(self.session, batch, self.task.vocabulary)
            leak = float(np.where(future, 0.0, self._difference(few, blind, training=False)).max())
        self._note(leak, f"earlier logits change by {leak:.3g} when later tokens do, after step {step}")
        value = self._metric(measured)
        point = ScorePoint(self.plan.task, step, value, float(measured.losses.mean()))
        with Path(self.spec.scores).open("ab") as file:
            file.write(msgspec.json.encode(point) + b"\n")
        return value

    def _note(self, change: float, evidence: str) -> None:
        """Keep the evidence of an exact check: any change at all is a doubt."""
        if change > 0:
            self._doubts.append(evidence)
        self._causal_error = max(self._causal_error, change)

    def _other_future(self, purpose: str, tokens: Tokens) -> tuple[Tokens, NDArray[np.bool_], Tokens]:
        """`tokens` with random ones after a random cut in each row, where that is, and random ones everywhere."""
        random = sealed_random(self._key, self.plan.task, purpose)
        future = np.arange(tokens.shape[1]) >= random.integers(1, tokens.shape[1], len(tokens))[:, None]
        other = random.integers(0, self.task.vocabulary, tokens.shape, dtype=np.int32)
        return np.where(future, other, tokens), future, other

    def _prefix_check(self, final: Measured) -> float:
        """Send bare prefixes, then half of the sequences whole; returns the largest difference in loss, in nats.

        The other half is never sent whole: its mean loss is compared with that of the final set at the same
        positions, so that remembering what was shown does not help.
        """
        random = sealed_random(self._key, self.plan.task, "cuts")
        batch = self._draw("prefix", 2 * self.plan.probe_sequences)
        cuts = _cuts(random, final.positions)
        groups = np.arange(len(batch.tokens)) % len(cuts)
        paired = np.arange(len(batch.tokens)) < self.plan.probe_sequences
        bare: list[Measured] = []
        worst = 0.0
        for group, cut in enumerate(cuts):
            for together in (False, True):
                rows = (groups == group) & (paired == together)
                tokens, targets = batch.tokens[rows], batch.targets[rows].copy()
                targets[:, :cut] = targets[:, cut + 1 :] = IGNORE
                logits = self.session.logits(np.ascontiguousarray(tokens[:, : cut + 1]), self.task.vocabulary)
                alone = losses_of(logits, targets[:, : cut + 1])
                bare.append(alone)
                if together and len(alone.losses):
                    whole = losses_of(self.session.logits(tokens, self.task.vocabulary), targets)
                    worst = max(worst, float(np.abs(alone.losses - whole.losses).max()))
        if worst > ROUNDING:
            self._doubts.append(
                f"the loss on a bare prefix differs from that on the whole sequence by {worst:.3g} nats"
            )
        self._doubts += _unpaired_doubt(np.concatenate([m.losses for m in bare]), final, cuts)
        return worst

    def _perturbation_check(self) -> None:
        """Replace later tokens, and other sequences of the batch: earlier logits must stay exactly the same."""
        longer = max_length(self.plan) - 3
        half = np.arange(ROWS) < ROWS // 2
        for training in (False, True):
            for length in (self.plan.length, longer):
                where = f"at length {length} in {'training' if training else 'evaluation'} mode"
                tokens = self._draw(f"perturbed {length} {training}", ROWS, length).tokens
                changed, future, other = self._other_future(f"perturbation {length} {training}", tokens)
                base = self.session.logits(tokens, self.task.vocabulary, training)
                leak = float(np.where(future, 0.0, self._difference(changed, base, training)).max())
                self._note(leak, f"earlier logits change by {leak:.3g} when later tokens do, {where}")
                neighbours = np.where(half[:, None], other, tokens)
                mixing = float(self._difference(neighbours, base, training)[~half].max())
                self._note(mixing, f"logits change by {mixing:.3g} when other sequences of the batch do, {where}")

    def _difference(self, tokens: Tokens, base: Floats, training: bool) -> Floats:
        logits = self.session.logits(tokens, self.task.vocabulary, training)
        return np.abs(logits - base).max(axis=2)


def _cuts(random: np.random.Generator, positions: NDArray[np.int64]) -> list[int]:
    """A few asked positions, spread over the sequence, odd ends included."""
    asked = np.unique(positions)
    return sorted(int(cut) for cut in random.choice(asked, min(CUTS, len(asked)), replace=False))


def _unpaired_doubt(bare: Floats, final: Measured, cuts: list[int]) -> list[str]:
    whole = final.losses[np.isin(final.positions, cuts)]
    if len(bare) < 8 or len(whole) < 8:
        return []
    gap = float(bare.mean() - whole.mean())
    deviation = math.sqrt(bare.var() / len(bare) + whole.var() / len(whole)) + 1e-9
    if gap > SUSPICIOUS_GAP and gap > SUSPICIOUS_DEVIATIONS * deviation:
        return [f"sequences seen only as prefixes cost {gap:.3g} nats more than those seen whole"]
    return []


def _check_counts(counts: Counts, tier: Tier, plan: Plan) -> None:
    target = reference_parameters(tier, plan)
    if not abs(counts.parameters / target - 1) <= PARAMETER_TOLERANCE:
        raise TrialFailed(f"the worker reports {counts.parameters} parameters, {target} were to be matched within 1 %")
    if not (0 < counts.mlp_hidden <= target and 0 <= counts.state_floats <= 1 << 40):
        raise TrialFailed("the worker reports impossible model sizes")


def _check_progress(progress: Progress, plan: Plan, step: int) -> None:
    if progress.step != step or progress.tokens != plan.tokens_until(step):
        raise TrialFailed(f"the worker reports step {progress.step} with {progress.tokens} tokens, step {step} was due")
    if not 0 < progress.flops < 1e21:
        raise TrialFailed(f"the worker reports {progress.flops} FLOPs")


def score_trial(spec: ScorerSpec, channel: Channel) -> TrialResult:
    """Run all tasks of a trial and report; a trial that fails has `failure` set and only its finished tasks."""
    key = load_key(Path(spec.key))
    corpus = np.fromfile(spec.corpus, dtype=np.uint8) if spec.corpus else None
    session = Session(channel, spec.silence_seconds)
    results: list[TaskResult] = []
    parameters = hidden = state = tokens = 0
    flops = seconds = 0.0
    failure = ""
    try:
        for name in spec.trial.tasks:
            scorer = TaskScorer(session, spec, spec.tier.plan(name), key, corpus)
            result, counts, progress, usage = scorer.run()
            results.append(result)
            parameters, hidden = max(parameters, counts.parameters), max(hidden, counts.mlp_hidden)
            state = max(state, counts.state_floats)
            tokens, flops, seconds = tokens + progress.tokens, flops + progress.flops, seconds + usage.cpu_seconds
        session.end()
    except TrialFailed as error:
        failure = str(error)
    return TrialResult(
        trial=spec.trial.trial,
        tasks=results,
        parameters=parameters,
        mlp_hidden=hidden,
        training_flops=flops,
        tokens=tokens,
        state_floats=state,
        cpu_seconds=seconds + time.process_time(),
        data_hash=data_hash(spec.tier, spec.corpus_hash, key),
        failure=failure,
    )


def main() -> int:
    """Command line of the scorer: `SPEC.json --read-fd R --write-fd W`; prints one `TrialResult`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("spec", type=Path)
    parser.add_argument("--read-fd", type=int, required=True)
    parser.add_argument("--write-fd", type=int, required=True)
    arguments = parser.parse_args()
    spec = msgspec.json.decode(arguments.spec.read_bytes(), type=ScorerSpec)
    result = score_trial(spec, Channel(arguments.read_fd, arguments.write_fd))
    sys.stdout.buffer.write(msgspec.json.encode(result) + b"\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
