"""Scoring one task: the sealed data, the metric, and three tests of whether the program used the future.

No torch and no candidate code here. The worker only ever sees inputs. Whether it used the future is tested three
ways: an earlier logit may not change when later tokens do (exactly), the loss on a bare prefix must be the loss on
the whole sequence (up to rounding), and sequences of which the worker *only* ever sees prefixes must be as easy as
those it sees whole (statistically; this one holds even against a program that remembers what it was shown).

A task can be left and gone on with. What was measured stays measured; an evaluation that was left undone is done
again, with the same inputs, of which none is whole that was a bare prefix before.
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.domain import ScorePoint, TaskResult
from engine.linear_attention.account import TaskState, append_once
from engine.linear_attention.session import Abandoned, Floats, Late, Session, TrialFailed
from engine.linear_attention.tasks import IGNORE, TASKS, Batch, Corpus, Plan, Task, Tokens, sealed_random
from engine.linear_attention.tiers import PARAMETER_TOLERANCE, ScorerSpec, Tier, max_length, reference_parameters
from engine.linear_attention.wire import Begin, Counts, Progress, Usage

# Losses in nats. A bare prefix has another shape than the whole sequence, hence other rounding.
ROUNDING = 0.01
SUSPICIOUS_DEVIATIONS = 5.0
SUSPICIOUS_GAP = 0.1
CUTS = 8
ROWS = 8
REQUEST_TOKENS = 4096
# Training is asked for in pieces, so that the scorer can leave soon: at most so many steps, about so many seconds.
PIECE_STEPS = 10
PIECE_SECONDS = 0.5


class Parked(Exception):
    """The task was left because the scorer was asked to leave; its state says from where it goes on."""


class Measured(NamedTuple):
    """Per asked position: loss in nats, whether the best guess was right, and the position in its sequence."""

    losses: Floats
    correct: NDArray[np.bool_]
    positions: NDArray[np.int64]


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
    """Trains and scores one task through a session, from where `state` stands; keeps `state` up to date.

    worker_seconds: CPU seconds of the worker on this task, once `run` is over; where the worker did not say, the
    seconds that it had.
    """

    def __init__(
        self, session: Session, spec: ScorerSpec, plan: Plan, key: bytes, corpus: Corpus | None, state: TaskState
    ) -> None:
        self.session = session
        self.spec = spec
        self.plan = plan
        self.task: Task = TASKS[plan.task]
        self.state = state
        self.worker_seconds = 0.0
        self._key = key
        self._corpus = corpus
        self._piece = 1
        self._progress = Progress(0, 0, 0.0)

    def run(self, cpu_seconds: float) -> tuple[TaskResult, Counts, Progress]:
        """The whole task, or the rest of it; the worker may use `cpu_seconds`.

        Raises TrialFailed when anything is missing, malformed, late or not finite, and Parked when it was left.
        """
        started, waited = time.perf_counter(), self.session.waited
        usage: Usage | None = None
        try:
            counts = self._begin(cpu_seconds)
            self._train_and_measure()
            final, gap = self._measure_final()
            usage = self.session.finish()
        except Abandoned:
            usage = self._save()
            raise Parked from None
        except Late:
            raise Parked from None
        finally:
            self.worker_seconds = _checked(usage) if usage else self.session.waited - waited
            self.state.seconds += time.perf_counter() - started
        return self._result(final, gap), counts, self._progress

    def _begin(self, cpu_seconds: float) -> Counts:
        ready = self.session.begin(Begin(self.plan.task, self.state.step, cpu_seconds))
        _check_counts(ready.counts, self.spec.tier, self.plan)
        # A worker that lost its checkpoint starts over: the same training from the first step on.
        _check_progress(ready.progress, self.plan, self.state.step if ready.progress.step else 0)
        self._progress = ready.progress
        return ready.counts

    def _train_and_measure(self) -> None:
        measured = {step for step, _ in self.state.curve}
        for step in self.plan.checkpoint_steps():
            while self._progress.step < step:
                self._leave_if_asked()
                self._train_piece(step)
            if step not in measured:
                self.state.curve.append((step, self._checkpoint(step)))
        self._leave_if_asked()

    def _leave_if_asked(self) -> None:
        if self.session.leaving.asked:
            raise Abandoned

    def _train_piece(self, until: int) -> None:
        begun = self._progress.step
        due = min(until, begun + self._piece)
        started = time.monotonic()
        progress = self.session.train(due)
        took = max(time.monotonic() - started, 1e-3)
        _check_progress(progress, self.plan, due)
        self._progress = progress
        self._piece = max(1, min(PIECE_STEPS, int((due - begun) * PIECE_SECONDS / took)))

    def _save(self) -> Usage | None:
        """Have the worker write its checkpoint; where it does not, the task goes on from the one before."""
        try:
            saved = self.session.save()
        except (Late, TrialFailed):
            return None
        _check_progress(saved.progress, self.plan, self._progress.step)
        self.state.step = self._progress.step
        return saved.usage

    def _measure_final(self) -> tuple[Measured, float]:
        sealed = self._draw("final", self.plan.final_sequences)
        with self.session.evaluation():
            final = measure(self.session, sealed, self.task.vocabulary)
        value = self._metric(final)
        if self.state.final not in (None, value):
            self._doubt(f"the final metric was {self.state.final:.6g} before parking and is {value:.6g} after it")
        self.state.final = value
        with self.session.evaluation():
            gap = self._prefix_check(final)
        with self.session.evaluation():
            self._perturbation_check()
        return final, gap

    def _result(self, final: Measured, gap: float) -> TaskResult:
        state = self.state
        value = self._metric(final)
        area = sum(point for _, point in state.curve) / len(state.curve)
        if final.losses.mean() < self.task.lowest_loss:
            self._doubt(f"loss {final.losses.mean():.3f} nats is lower than any honest model of this size can reach")
        return TaskResult(
            task=self.plan.task,
            score=-value if self.task.language else (area + value) / 2,
            final=value,
            metric=self.task.metric,
            curve=state.curve,
            prefix_gap=gap,
            causal_error=state.causal_error,
            honest=not state.doubts,
            evidence="; ".join(state.doubts),
            seconds=state.seconds,
        )

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
        append_once(Path(self.spec.scores), point)
        return value

    def _note(self, change: float, evidence: str) -> None:
        """Keep the evidence of an exact check: any change at all is a doubt."""
        if change > 0:
            self._doubt(evidence)
        self.state.causal_error = max(self.state.causal_error, change)

    def _doubt(self, evidence: str) -> None:
        # A check that is done again after the trial was parked repeats what it said.
        if evidence not in self.state.doubts:
            self.state.doubts.append(evidence)

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
            self._doubt(f"the loss on a bare prefix differs from that on the whole sequence by {worst:.3g} nats")
        for doubt in _unpaired_doubt(np.concatenate([m.losses for m in bare]), final, cuts):
            self._doubt(doubt)
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
    if not (0 < progress.flops < 1e21 or progress.step == progress.flops == 0):
        raise TrialFailed(f"the worker reports {progress.flops} FLOPs")


def _checked(usage: Usage) -> float:
    if not 0 <= usage.cpu_seconds < 1e9:
        raise TrialFailed(f"the worker reports {usage.cpu_seconds} CPU seconds")
    return usage.cpu_seconds
