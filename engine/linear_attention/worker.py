"""The sandboxed half of a trial: it runs candidate code and does what the scorer outside asks, nothing more.

The parent imports torch once and forks one child per task; candidate code runs in the children only. Logits are
computed in a fork of the child, so that being evaluated changes nothing in the training process. Nor does how many
steps are asked for at a time, or going on from a checkpoint: whatever is random in a step depends on the seed and the
number of the step alone.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import math
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import cast

for _variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[_variable] = "1"
os.environ["TORCHDYNAMO_DISABLE"] = "1"

import msgspec  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from numpy.typing import NDArray  # noqa: E402
from torch import nn  # noqa: E402

from engine.domain import Point  # noqa: E402
from engine.linear_attention import budget, checkpoint  # noqa: E402
from engine.linear_attention.account import MAX_POINTS_BYTES  # noqa: E402
from engine.linear_attention.checkpoint import Checkpoint, CheckpointError, Identity  # noqa: E402
from engine.linear_attention.model import (  # noqa: E402
    GRADIENT_CLIP,
    Block,
    MixerFactory,
    build_model,
    build_optimizer,
    rate_factor,
)
from engine.linear_attention.program import load_mixer  # noqa: E402
from engine.linear_attention.tasks import IGNORE, TASKS, Plan, public_seed, training_batch  # noqa: E402
from engine.linear_attention.tiers import WorkerSpec  # noqa: E402
from engine.linear_attention.wire import (  # noqa: E402
    LOGITS_HEADER,
    MAX_TEXT,
    MAX_TOKENS,
    Begin,
    Channel,
    Counts,
    Kind,
    Progress,
    Ready,
    Saved,
    Usage,
    WireError,
    unpack_logits_request,
)

POINT_INTERVAL = 10
TRAINING_REQUESTS = {Kind.TRAIN: (4, 4), Kind.EVALUATE: (0, 0), Kind.SAVE: (0, 0), Kind.FINISH: (0, 0)}
EVALUATION_REQUESTS = {
    Kind.LOGITS: (LOGITS_HEADER.size, LOGITS_HEADER.size + 4 * MAX_TOKENS),
    Kind.RELEASE: (0, 0),
}


class Trainer:
    """One task's training, advanced step by step on request."""

    def __init__(self, spec: WorkerSpec, plan: Plan, factory: MixerFactory, points: Path) -> None:
        self.plan = plan
        self.seed = spec.trial.seed
        self.model = build_model(factory, spec.tier, plan, self.seed)
        self.optimizer = build_optimizer(self.model, plan.learning_rate)
        self.step = 0
        self.tokens = 0
        self.flops = 0.0
        self._flops = {length: self._count_flops(length) for length in set(map(plan.length_at, range(plan.steps)))}
        self._corpus = np.fromfile(spec.corpus, dtype=np.uint8) if TASKS[plan.task].language else None
        self._points = points
        self._recorded = last_recorded(points, plan.task)
        self._started = time.perf_counter()

    def counts(self, d_model: int) -> Counts:
        """Sizes of the model, for the record."""
        blocks = cast(list[Block], list(self.model.blocks))
        widths = [block.mlp.outer.in_features for block in blocks]
        state = budget.state_floats(copy.deepcopy(blocks[0].mixer), d_model)
        return Counts(budget.count_parameters(self.model), round(sum(widths) / len(widths)), state)

    def _count_flops(self, length: int) -> float:
        copied = copy.deepcopy(self.model).eval()
        return budget.TRAINING_FACTOR * budget.forward_flops(copied, torch.zeros(1, length, dtype=torch.long))

    @property
    def progress(self) -> Progress:
        """Where training stands."""
        return Progress(self.step, self.tokens, self.flops)

    def capture(self, identity: Identity) -> Checkpoint:
        """Everything that the rest of the training depends on."""
        return checkpoint.capture(identity, self.step, self.tokens, self.flops, self.model, self.optimizer)

    def go_on_from(self, saved: Checkpoint) -> None:
        """Stand where `saved` was taken; raises CheckpointError when it does not fit the model."""
        saved.restore(self.model, self.optimizer)
        self.step, self.tokens, self.flops = saved.step, saved.tokens, saved.flops

    def train_to(self, step: int) -> Progress:
        """Train until `step` steps are done. Raises ValueError when the loss or a gradient is not finite."""
        if not self.step <= step <= self.plan.steps:
            raise ValueError(f"asked to train to step {step} of {self.plan.steps} from step {self.step}")
        self.model.train()
        while self.step < step:
            loss, norm = self._train_step()
            self.step += 1
            finite = bool(np.isfinite(loss) and np.isfinite(norm))
            if not finite or self.step % POINT_INTERVAL == 0 or self.step == self.plan.steps:
                self._write_point(loss, norm)
            if not finite:
                raise ValueError(f"loss {loss} and gradient norm {norm} at step {self.step}: training diverged")
        return self.progress

    def _train_step(self) -> tuple[float, float]:
        batch = training_batch(self.plan, self.seed, self.step, self._corpus)
        for group in self.optimizer.param_groups:
            group["lr"] = self.plan.learning_rate * rate_factor(self.step, self.plan.steps)
        torch.manual_seed(public_seed("noise", self.plan.task, self.seed, self.step))
        tokens, targets = torch.from_numpy(batch.tokens).long(), torch.from_numpy(batch.targets).long()
        logits = self.model(tokens)
        loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORE)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), GRADIENT_CLIP)
        self.optimizer.step()
        self.tokens += tokens.numel()
        self.flops += tokens.shape[0] * self._flops[tokens.shape[1]]
        return loss.item(), norm.item()

    def _write_point(self, loss: float, norm: float) -> None:
        if self.step <= self._recorded:
            return
        point = Point(
            task=self.plan.task,
            step=self.step,
            steps=self.plan.steps,
            loss=loss if np.isfinite(loss) else None,
            seconds=time.perf_counter() - self._started,
            gradient_norm=norm if np.isfinite(norm) else None,
        )
        with self._points.open("ab") as file:
            file.write(msgspec.json.encode(point) + b"\n")

    def logits(self, tokens: NDArray[np.int32], training: bool) -> bytes:
        """Logits of `tokens` `[sequences, time]` as little-endian float32 `[sequences, time, vocabulary]`."""
        self.model.train(training)
        # The same noise for every request: two inputs may be compared under the same dropout mask.
        torch.manual_seed(0)
        with torch.no_grad():
            values = self.model(torch.from_numpy(tokens).long())
        return values.float().contiguous().numpy().astype("<f4").tobytes()


def last_recorded(points: Path, task: str) -> int:
    """The last step of `task` that stands in points.jsonl; 0 without one."""
    try:
        lines = checkpoint.read_plain(points, MAX_POINTS_BYTES).splitlines()
    except OSError:
        return 0
    steps = [0]
    for line in lines:
        with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError):
            point = msgspec.json.decode(line, type=Point)
            steps.append(point.step if point.task == task else 0)
    return max(steps)


def run_task(spec: WorkerSpec, begin: Begin, source: str, channel: Channel, folder: Path) -> None:
    """Serve one task's requests until FINISH; runs in a child of its own. Whatever the program raises, it raises."""
    identity = Identity(spec.trial.trial, spec.trial.program, begin.task, spec.trial.seed)
    saved = checkpoint.load(folder, identity, begin.step) if begin.step else None
    trainer = Trainer(spec, spec.tier.plan(begin.task), load_mixer(source), folder / "points.jsonl")
    counts = trainer.counts(spec.tier.d_model)
    if saved is not None:
        trainer.go_on_from(saved)
    channel.send(Kind.READY, msgspec.json.encode(Ready(counts, trainer.progress)))
    while True:
        kind, payload = channel.receive(TRAINING_REQUESTS)
        if kind == Kind.FINISH:
            return
        if kind == Kind.TRAIN:
            progress = trainer.train_to(int.from_bytes(payload, "little"))
            channel.send(Kind.TRAINED, msgspec.json.encode(progress))
        elif kind == Kind.SAVE:
            checkpoint.save(folder, trainer.capture(identity))
            channel.send(Kind.SAVED, msgspec.json.encode(Saved(trainer.progress, Usage(own_cpu_seconds()))))
        else:
            fork_and_run(channel, lambda: evaluate(trainer, channel))


def own_cpu_seconds() -> float:
    """CPU seconds of this process and of its children that have ended."""
    usages = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def evaluate(trainer: Trainer, channel: Channel) -> None:
    """Answer requests for logits until RELEASE; runs in a copy of the training process."""
    while True:
        kind, payload = channel.receive(EVALUATION_REQUESTS)
        if kind == Kind.RELEASE:
            return
        channel.send(Kind.VALUES, trainer.logits(*unpack_logits_request(payload)))


def fork_and_run(channel: Channel, work: Callable[[], None]) -> float:
    """Run `work` in a forked child and return the CPU seconds it took.

    A child that raises tells the scorer why; the caller then ends by SystemExit, as it does after a child that died.
    """
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) and error.code else 1
        except BaseException as error:
            channel.send(Kind.FAILED, _describe(error))
        finally:
            os._exit(code)
    _, status, usage = os.wait4(pid, 0)
    if os.WIFSIGNALED(status):
        name = signal.Signals(os.WTERMSIG(status)).name
        channel.send(Kind.FAILED, f"the training process was ended by {name}".encode())
    if status:
        raise SystemExit(1)
    return usage.ru_utime + usage.ru_stime


def _describe(error: BaseException) -> bytes:
    if isinstance(error, CheckpointError):
        return str(error).encode()
    lines = traceback.format_exception(error)
    text = "".join(lines).encode("utf-8", "replace")
    return text[-MAX_TEXT:].decode("utf-8", "ignore").encode()


def warm_up(spec: WorkerSpec) -> None:
    """One training step of a model without candidate code, so that children start with everything imported."""
    plan = spec.tier.plan(spec.trial.tasks[0])
    model = build_model(lambda d_model, *_: nn.Linear(d_model, d_model), spec.tier, plan, 0)
    optimizer = build_optimizer(model, plan.learning_rate)
    model(torch.zeros(1, 8, dtype=torch.long)).logsumexp(-1).sum().backward()
    nn.utils.clip_grad_norm_(model.parameters(), GRADIENT_CLIP)
    optimizer.step()


def limit_cpu_seconds(limit: int) -> None:
    """End this process by SIGXCPU when it has used `limit` CPU seconds, or sooner where a limit is set already."""
    _, most = resource.getrlimit(resource.RLIMIT_CPU)
    if most == resource.RLIM_INFINITY:
        most = limit + 5
    resource.setrlimit(resource.RLIMIT_CPU, (min(limit, most), min(limit + 5, most)))


def serve(workdir: Path, channel: Channel) -> None:
    """Answer the scorer's TASK frames, one child per task, until END."""
    spec = msgspec.json.decode((workdir / "spec.json").read_bytes(), type=WorkerSpec)
    source = (workdir / "program.py").read_text(encoding="utf-8")
    warm_up(spec)
    while True:
        kind, payload = channel.receive({Kind.TASK: (1, 256), Kind.END: (0, 0)})
        if kind == Kind.END:
            return
        begin = msgspec.json.decode(payload, type=Begin)

        def work(begin: Begin = begin) -> None:
            limit_cpu_seconds(math.ceil(begin.cpu_seconds))
            run_task(spec, begin, source, channel, workdir)

        seconds = fork_and_run(channel, work)
        channel.send(Kind.FINISHED, msgspec.json.encode(Usage(seconds)))


def main() -> int:
    """Command line of the worker: `WORKDIR --read-fd R --write-fd W`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workdir", type=Path)
    parser.add_argument("--read-fd", type=int, required=True)
    parser.add_argument("--write-fd", type=int, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_num_interop_threads(1)
    torch.set_flush_denormal(True)
    try:
        serve(arguments.workdir, Channel(arguments.read_fd, arguments.write_fd))
    except WireError as error:
        print(f"worker: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
