"""The scorer against workers that lie, remember, hang or break the protocol."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

from engine.domain import ScorePoint, TaskResult, TrialSpec
from engine.linear_attention import session, wire
from engine.linear_attention.account import TaskState
from engine.linear_attention.leaving import Leaving
from engine.linear_attention.session import Floats, Late, Session, TrialFailed
from engine.linear_attention.task_scorer import Parked, TaskScorer, losses_of
from engine.linear_attention.tasks import IGNORE, TASKS, Tokens
from engine.linear_attention.tiers import TIERS, ScorerSpec, reference_parameters
from engine.linear_attention.wire import (
    HEADER,
    MAGIC,
    Begin,
    Channel,
    Counts,
    Kind,
    Patience,
    Progress,
    Ready,
    Saved,
    Usage,
    WireError,
    pack_logits_request,
    unpack_logits_request,
)

TIER = TIERS["probe-smoke"]
PLAN = msgspec.structs.replace(TIER.plan("bytes"), length=64, probe_sequences=32, final_sequences=64)
CORPUS = np.random.default_rng(0).integers(97, 123, 60_000, dtype=np.uint8)
KEY = b"k" * 32
BEGIN = Begin("recall", 0, 60.0)


class Worker(Session):
    """A worker in this process; subclasses say what it answers. The honest guess: every letter alike."""

    def __init__(self) -> None:
        self.leaving = Leaving()
        self.waited = 0.0
        self.step = 0
        self.parameters = reference_parameters(TIER, PLAN)
        self.flops = 1e6

    def progress(self) -> Progress:
        return Progress(self.step, PLAN.tokens_until(self.step), self.flops if self.step else 0.0)

    def begin(self, begin: Begin) -> Ready:
        self.step = begin.step
        return Ready(Counts(self.parameters, 64, 0), self.progress())

    def train(self, step: int) -> Progress:
        self.step = step
        return self.progress()

    def save(self) -> Saved:
        return Saved(self.progress(), Usage(0.5))

    def finish(self) -> Usage:
        return Usage(1.0)

    @contextlib.contextmanager
    def evaluation(self) -> Iterator[None]:
        yield

    def logits(self, tokens: Tokens, vocabulary: int, training: bool = False) -> Floats:
        values = np.full((*tokens.shape, vocabulary), -8.0)
        values[..., 97:123] = 0.0
        return values


class LooksAhead(Worker):
    """Knows the next token wherever it was sent, while `active`."""

    def active(self) -> bool:
        return True

    def logits(self, tokens: Tokens, vocabulary: int, training: bool = False) -> Floats:
        values = super().logits(tokens, vocabulary)
        if self.active():
            rows, columns = np.indices(tokens[:, 1:].shape)
            values[rows, columns, tokens[:, 1:]] = 20.0
        return values


class LooksAheadWhileTraining(LooksAhead):
    def active(self) -> bool:
        return 0 < self.step < PLAN.steps


class Remembers(LooksAhead):
    """Looks ahead in sequences it has not met; repeats its earlier answer where it has met the beginning."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[bytes, Floats] = {}

    def logits(self, tokens: Tokens, vocabulary: int, training: bool = False) -> Floats:
        values = super().logits(tokens, vocabulary)
        for row, sequence in enumerate(tokens):
            for end in range(1, len(sequence) + 1):
                key = sequence[:end].tobytes()
                values[row, end - 1] = self.seen.setdefault(key, values[row, end - 1].copy())
        return values


class ReadsTheAnswers(Worker):
    """Finds the text in its own copy of the corpus: causal, consistent, and impossibly good."""

    text = CORPUS.tobytes()

    def logits(self, tokens: Tokens, vocabulary: int, training: bool = False) -> Floats:
        values = super().logits(tokens, vocabulary)
        for row, sequence in enumerate(tokens):
            for end in range(5, len(sequence) + 1):
                place = self.text.find(sequence[end - 5 : end].astype(np.uint8).tobytes())
                if 0 <= place < len(self.text) - 5:
                    values[row, end - 1, self.text[place + 5]] = 20.0
        return values


class SlightlyLeaky(Worker):
    def logits(self, tokens: Tokens, vocabulary: int, training: bool = False) -> Floats:
        return super().logits(tokens, vocabulary) + 1e-6 * tokens[:, -1][:, None, None]


class MixesBatchInTraining(Worker):
    def logits(self, tokens: Tokens, vocabulary: int, training: bool = False) -> Floats:
        return super().logits(tokens, vocabulary) + (tokens[0, 0] if training else 0)


def score(worker: Session, tmp_path: Path, state: TaskState | None = None) -> TaskResult:
    trial = TrialSpec("trial", "program", TIER.name, 0, ["bytes"])
    spec = ScorerSpec(trial, TIER, "", "", "", str(tmp_path / "scores.jsonl"))
    return TaskScorer(worker, spec, PLAN, KEY, CORPUS, state or TaskState("bytes")).run(60.0)[0]


def test_an_honest_worker_is_scored_in_bits_per_byte(tmp_path: Path) -> None:
    result = score(Worker(), tmp_path)
    assert result.honest
    assert result.evidence == ""
    assert result.prefix_gap == result.causal_error == 0
    assert result.final == pytest.approx(np.log2(26), abs=0.01)
    assert result.score == -result.final
    lines = (tmp_path / "scores.jsonl").read_bytes().splitlines()
    points = [msgspec.json.decode(line, type=ScorePoint) for line in lines]
    assert [(point.step, point.value) for point in points] == result.curve
    assert [step for step, _ in result.curve] == PLAN.checkpoint_steps()


@pytest.mark.parametrize(
    ("worker", "evidence"),
    [
        (LooksAhead, "bare prefix"),
        (LooksAheadWhileTraining, "after step"),
        (Remembers, "seen only as prefixes"),
        (ReadsTheAnswers, "lower than any honest model"),
        (SlightlyLeaky, "when later tokens do"),
        (MixesBatchInTraining, "other sequences of the batch do, at length 64 in training mode"),
    ],
)
def test_every_kind_of_cheat_leaves_evidence(worker: type[Worker], evidence: str, tmp_path: Path) -> None:
    result = score(worker(), tmp_path)
    assert not result.honest
    assert evidence in result.evidence


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [("parameters", 10**9, "parameters"), ("parameters", 1, "parameters"), ("flops", float("nan"), "FLOPs")],
)
def test_impossible_counts_fail_the_trial(name: str, value: float, reason: str, tmp_path: Path) -> None:
    worker = Worker()
    setattr(worker, name, value)
    with pytest.raises(TrialFailed, match=reason):
        score(worker, tmp_path)


def test_training_for_fewer_steps_than_asked_fails_the_trial(tmp_path: Path) -> None:
    worker = Worker()
    worker.train = lambda step: Progress(step, PLAN.tokens_until(step) + 1, 1.0)  # type: ignore[method-assign]
    with pytest.raises(TrialFailed, match="was due"):
        score(worker, tmp_path)


class LeavesAt(Worker):
    """Is asked to leave once it has trained `at` steps; what it then says about its checkpoint is `claims`."""

    def __init__(self, at: int, claims: Progress | None = None) -> None:
        super().__init__()
        self.at, self.claims = at, claims

    def train(self, step: int) -> Progress:
        if step >= self.at:
            self.leaving.ask()
        return super().train(step)

    def save(self) -> Saved:
        return Saved(self.claims or self.progress(), Usage(0.5))


def test_a_parked_task_goes_on_from_its_state_to_the_same_result(tmp_path: Path) -> None:
    state = TaskState("bytes")
    with pytest.raises(Parked):
        score(LeavesAt(PLAN.steps // 2), tmp_path, state)
    assert PLAN.steps // 2 <= state.step < PLAN.steps
    resumed = score(Worker(), tmp_path, state)
    (tmp_path / "whole").mkdir()
    whole = score(Worker(), tmp_path / "whole")
    assert msgspec.structs.replace(resumed, seconds=0.0) == msgspec.structs.replace(whole, seconds=0.0)
    assert len((tmp_path / "scores.jsonl").read_bytes().splitlines()) == len(PLAN.checkpoint_steps())


@pytest.mark.parametrize(
    "claims",
    [
        Progress(PLAN.steps, PLAN.tokens_until(PLAN.steps), 1e6),
        Progress(0, 0, 0.0),
        Progress(4, 0, 1e6),
    ],
)
def test_a_false_account_of_the_checkpoint_fails_the_trial(claims: Progress, tmp_path: Path) -> None:
    with pytest.raises(TrialFailed, match="was due"):
        score(LeavesAt(4, claims), tmp_path)


@pytest.mark.parametrize("trouble", [Late(), TrialFailed("the worker reported: no space left")])
def test_a_checkpoint_that_is_not_written_leaves_the_one_before(trouble: Exception, tmp_path: Path) -> None:
    class Unable(LeavesAt):
        def save(self) -> Saved:
            raise trouble

    state = TaskState("bytes", step=4)
    with pytest.raises(Parked):
        score(Unable(6), tmp_path, state)
    assert state.step == 4


@pytest.mark.parametrize("step", [3, 5, PLAN.steps])
def test_going_on_from_another_step_than_the_scorer_knows_fails_the_trial(step: int, tmp_path: Path) -> None:
    worker = Worker()
    worker.begin = lambda begin: Ready(  # type: ignore[method-assign]
        Counts(worker.parameters, 64, 0), Progress(step, PLAN.tokens_until(step), 1e6)
    )
    with pytest.raises(TrialFailed, match=f"reports step {step} .* step 4 was due"):
        score(worker, tmp_path, TaskState("bytes", step=4))
    with pytest.raises(TrialFailed, match=f"reports step {step} .* was due"):
        score(worker, tmp_path, TaskState("bytes"))


def test_doubts_outlive_parking_and_a_changed_final_metric_is_one(tmp_path: Path) -> None:
    state = TaskState("bytes", doubts=["seen before"], causal_error=0.5, final=1.0)
    result = score(Worker(), tmp_path, state)
    assert not result.honest
    assert result.causal_error == 0.5
    assert "seen before" in result.evidence
    assert "before parking" in result.evidence


def test_negative_cpu_seconds_fail_the_trial(tmp_path: Path) -> None:
    worker = Worker()
    worker.finish = lambda: Usage(-100.0)  # type: ignore[method-assign]
    with pytest.raises(TrialFailed, match="CPU seconds"):
        score(worker, tmp_path)


def test_losses_are_cross_entropy_and_survive_large_logits() -> None:
    logits = np.zeros((1, 3, 4))
    logits[0, 1] = [1e30, 0, 0, 0]
    measured = losses_of(logits, np.array([[2, 0, IGNORE]], dtype=np.int32))
    assert measured.losses == pytest.approx([np.log(4), 0.0])
    assert list(measured.positions) == [0, 1]
    assert measured.correct[1]


def frame(kind: int, payload: bytes) -> bytes:
    return HEADER.pack(MAGIC, kind, len(payload)) + payload


def test_silence_ends_in_time_and_the_failure_says_what_was_asked(pipes: Pipes) -> None:
    with pytest.raises(TrialFailed, match="asked to TASK: no answer before the deadline"):
        Session(pipes.scorer, 0.2, Leaving()).begin(BEGIN)


def test_a_worker_that_is_still_starting_is_not_waited_for(pipes: Pipes) -> None:
    leaving = Leaving()
    threading.Timer(0.3, leaving.ask).start()
    with pytest.raises(Late):
        Session(pipes.scorer, 60.0, leaving).begin(BEGIN)


def test_a_worker_that_never_saves_is_given_up(pipes: Pipes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "GIVE_UP_SECONDS", 0.3)
    leaving = Leaving()
    talking = Session(pipes.scorer, 60.0, leaving)
    ready = msgspec.json.encode(Ready(Counts(1, 1, 0), Progress(0, 0, 0.0)))
    os.write(pipes.worker_write, frame(Kind.READY, ready))
    talking.begin(BEGIN)
    leaving.ask()
    with pytest.raises(Late):
        talking.save()


def test_patience_does_not_count_the_time_in_which_the_waiting_process_was_stopped() -> None:
    patience = Patience(60.0)
    now = [0.0]

    class Stopped:
        def poll(self, milliseconds: float) -> list[object]:
            now[0] += 1000.0
            return [] if now[0] < 5000.0 else [object()]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wire.time, "monotonic", lambda: now[0])
        patience.wait(Stopped())  # type: ignore[arg-type]
    assert patience.spent < 2.0


def test_a_worker_that_does_not_read_cannot_block_the_scorer(pipes: Pipes) -> None:
    with pytest.raises(WireError, match="deadline"):
        pipes.scorer.send(Kind.LOGITS, bytes(1 << 22), Patience(0.0))
    tokens = np.zeros((512, 1024), dtype=np.int32)
    with pytest.raises(TrialFailed, match="before it was asked to LOGITS"):
        Session(pipes.scorer, 0.3, Leaving()).logits(tokens, 4)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"rubbish rubbish rubbish", "unexpected frame"),
        (frame(Kind.TRAINED, b"{}"), "unexpected frame"),
        (frame(99, b"{}"), "unexpected frame"),
        (frame(Kind.READY, b"x" * 10_000), "10000 bytes where 2 to 512"),
        (HEADER.pack(MAGIC, Kind.READY, 0xFFFFFFFF), "bytes where"),
        (frame(Kind.READY, b'{"parameters": "many"}'), "malformed READY"),
        (frame(Kind.READY, b"\xff\xfe\xfd"), "malformed READY"),
        (frame(Kind.READY, b"{}")[:-1], "the other side ended"),
        (frame(Kind.FAILED, b"oops \x1b[2J" + "é\x00".encode()), r"the worker reported: oops \?\[2Jé\?"),
    ],
)
def test_a_broken_answer_is_a_failure_with_a_reason(answer: bytes, reason: str, pipes: Pipes) -> None:
    os.write(pipes.worker_write, answer)
    os.close(pipes.worker_write)
    with pytest.raises(TrialFailed, match=reason):
        Session(pipes.scorer, 5.0, Leaving()).begin(BEGIN)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_logits_that_are_no_numbers_are_a_failure(value: float, pipes: Pipes) -> None:
    def answer() -> None:
        pipes.worker.receive({Kind.LOGITS: (0, 1 << 16)})
        pipes.worker.send(Kind.VALUES, np.full((2, 3, 4), value, dtype="<f4").tobytes())

    with pipes.answering(answer), pytest.raises(TrialFailed, match="not finite"):
        Session(pipes.scorer, 5.0, Leaving()).logits(np.zeros((2, 3), dtype=np.int32), 4)


def test_a_request_for_logits_survives_the_trip() -> None:
    tokens = TASKS["recall"].draw(np.random.default_rng(0), 3, 17, True, None).tokens
    back, training = unpack_logits_request(pack_logits_request(tokens, True))
    assert training
    assert (back == tokens).all()
    with pytest.raises(WireError):
        unpack_logits_request(pack_logits_request(tokens, False)[:-1])


class Pipes:
    """Both ends of a channel in one process."""

    def __init__(self) -> None:
        worker_read, scorer_write = os.pipe()
        scorer_read, self.worker_write = os.pipe()
        self.scorer = Channel(scorer_read, scorer_write)
        self.worker = Channel(worker_read, self.worker_write)
        self._descriptors = [worker_read, scorer_write, scorer_read, self.worker_write]

    def close(self) -> None:
        for descriptor in self._descriptors:
            with contextlib.suppress(OSError):
                os.close(descriptor)

    @contextlib.contextmanager
    def answering(self, work: Callable[[], None]) -> Iterator[None]:
        thread = threading.Thread(target=work)
        thread.start()
        yield
        thread.join(10)
        assert not thread.is_alive()


@pytest.fixture
def pipes() -> Iterator[Pipes]:
    opened = Pipes()
    yield opened
    opened.close()
