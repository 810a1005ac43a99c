"""The sandboxed half of a trial: it runs candidate code and does what the scorer outside asks, nothing more.

The parent imports torch once and forks one child per task; candidate code runs in the children only. Logits are
computed in a fork of the child, so that being evaluated changes nothing in the training process.
"""

from __future__ import annotations

import argparse
import copy
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
from engine.linear_attention import budget  # noqa: E402
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
    Channel,
    Counts,
    Kind,
    Progress,
    Usage,
    WireError,
    unpack_logits_request,
)

POINT_INTERVAL = 10
TRAINING_REQUESTS = {Kind.TRAIN: (4, 4), Kind.EVALUATE: (0, 0), Kind.FINISH: (0, 0)}
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

    def train_to(self, step: int) -> Progress:
        """Train until `step` steps are done. Raises ValueError when the loss or a gradient is not finite."""
        if not self.step <= step <= self.plan.steps:
            raise ValueError(f"asked to train to step {step} of {self.plan.steps} from step {self.step}")
        torch.manual_seed(public_seed("noise", self.plan.task, self.seed, self.step))
        self.model.train()
        while self.step < step:
            loss, norm = self._train_step()
            self.step += 1
            finite = bool(np.isfinite(loss) and np.isfinite(norm))
            if not finite or self.step % POINT_INTERVAL == 0 or self.step == self.plan.steps:
                self._write_point(loss, norm)
            if not finite:
                raise ValueError(f"loss {loss} and gradient norm {norm} at step {self.step}: training diverged")
        return Progress(self.step, self.tokens, self.flops)

    def _train_step(self) -> tuple[float, float]:
        batch = training_batch(self.plan, self.seed, self.step, self._corpus)
        for group in self.optimizer.param_groups:
            group["lr"] = self.plan.learning_rate * rate_factor(self.step, self.plan.steps)
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


def run_task(spec: WorkerSpec, plan: Plan, source: str, channel: Channel, points: Path) -> None:
    """Serve one task's requests until FINISH; runs in a child of its own. Whatever the program raises, it raises."""
    trainer = Trainer(spec, plan, load_mixer(source), points)
    channel.send(Kind.READY, msgspec.json.encode(trainer.counts(spec.tier.d_model)))
    while True:
        kind, payload = channel.receive(TRAINING_REQUESTS)
        if kind == Kind.FINISH:
            return
        if kind == Kind.TRAIN:
            progress = trainer.train_to(int.from_bytes(payload, "little"))
            channel.send(Kind.TRAINED, msgspec.json.encode(progress))
        else:
            fork_and_run(channel, lambda: evaluate(trainer, channel))


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


def serve(workdir: Path, channel: Channel) -> None:
    """Answer the scorer's TASK frames, one child per task, until END."""
    spec = msgspec.json.decode((workdir / "spec.json").read_bytes(), type=WorkerSpec)
    source = (workdir / "program.py").read_text(encoding="utf-8")
    warm_up(spec)
    limit = int(spec.trial.max_cpu_seconds)
    while True:
        kind, payload = channel.receive({Kind.TASK: (1, 64), Kind.END: (0, 0)})
        if kind == Kind.END:
            return
        plan = spec.tier.plan(payload.decode())

        def work(plan: Plan = plan) -> None:
            resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 5))
            run_task(spec, plan, source, channel, workdir / "points.jsonl")

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
