"""What the engine and a research domain say to each other: plain data, no torch.

A domain receives a program (one Python source file) and answers with a `VetReport`; it receives a `TrialSpec` and
answers with a `TrialResult`. Everything here crosses a process boundary as JSON and is validated on arrival.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Protocol

import msgspec


class GateResult(msgspec.Struct, frozen=True):
    """One vetting gate's verdict.

    `evidence` says in one or two sentences what was executed and what was seen (which t, which error, how large); it
    is what the Engineer gets for a repair and what the supervisor reads. `measured` holds the bare numbers.
    """

    gate: str
    passed: bool
    evidence: str
    seconds: float = 0.0
    measured: dict[str, float] = {}


class VetReport(msgspec.Struct, frozen=True):
    """The whole vetting battery on one program.

    parameters: of the mixer alone, at the tier's sizes.
    flops_per_token: forward, mixer alone, at the tier's training length.
    state_floats: recurrent state per layer and sequence, in floats; 0 when not known.
    cost_exponent: fitted exponent of cost against time: 1 is linear, 2 quadratic.
    dead_parameters: names that never received a gradient.
    functional_hash: hash of the outputs on fixed probes after a canonical initialisation; empty when it could not run.
    step_seconds: CPU seconds of one training step at the tier's size, for the prediction of a trial's cost.
    """

    passed: bool
    gates: list[GateResult]
    parameters: int = 0
    flops_per_token: float = 0.0
    state_floats: int = 0
    cost_exponent: float = 0.0
    dead_parameters: list[str] = []
    functional_hash: str = ""
    offers_step: bool = False
    step_seconds: float = 0.0
    seconds: float = 0.0

    def first_failure(self) -> GateResult | None:
        """The first gate that failed, or None."""
        return next((gate for gate in self.gates if not gate.passed), None)


class VetSpec(msgspec.Struct, frozen=True):
    """What to vet a program at: the sizes of the tier it is meant for."""

    d_model: int = 64
    n_heads: int = 2
    train_length: int = 128
    max_cost_exponent: float = 1.35
    max_state_floats: int = 65_536
    max_parameters: int = 200_000
    allow_quadratic: bool = False


class TrialSpec(msgspec.Struct, frozen=True):
    """One training process: one program, one tier, one seed. `tasks` names tasks of the tier, in order.

    With `resume` it goes on from `work/checkpoint.pt` and the scorer's `progress.json` of the same trial.
    """

    trial: str
    program: str
    tier: str
    seed: int
    tasks: list[str]
    max_cpu_seconds: float = 600.0
    resume: bool = False


class TaskResult(msgspec.Struct, frozen=True):
    """What the trusted scorer measured on one task.

    `score` is the number the ladder uses, higher is better (learning-curve area for skills, minus bits per byte for
    language). `prefix_gap` is the largest difference between the loss on full inputs and on prefixes only, in nats;
    `causal_error` the largest change of an earlier logit when later tokens were replaced (0 when exact).
    """

    task: str
    score: float
    final: float
    metric: str
    curve: list[tuple[int, float]]
    prefix_gap: float
    causal_error: float
    honest: bool
    evidence: str = ""
    seconds: float = 0.0


class TrialResult(msgspec.Struct, frozen=True):
    """Everything a finished trial reports; `tasks` come from the scorer, the counts from the harness.

    `parked`: it was asked to leave and wrote a checkpoint instead of finishing.
    """

    trial: str
    tasks: list[TaskResult]
    parameters: int
    mlp_hidden: int
    training_flops: float
    tokens: int
    state_floats: int
    cpu_seconds: float
    data_hash: str
    failure: str = ""
    parked: bool = False


class TaskInfo(msgspec.Struct, frozen=True):
    """A task as people see it: its name, what skill it measures, the metric's name and chance level."""

    name: str
    skill: str
    metric: str
    chance: float
    steps: int


class SourceFinding(msgspec.Struct, frozen=True):
    """One thing seen in a program's source without running it; `error` means that vetting will refuse it.

    severity: how grave a reviewer should take it.
    """

    kind: str
    error: bool
    line: int
    message: str
    severity: Literal["info", "low", "medium", "high"] = "low"


class SourceChange(msgspec.Struct, frozen=True):
    """How one program differs from another: the share of changed lines, 0 to 1, and the functions they stand in."""

    share: float
    where: list[str]


class Point(msgspec.Struct, frozen=True):
    """One line of points.jsonl, written by the training process and therefore untrusted.

    `loss` is the training loss in nats; a NaN is written as null.
    """

    task: str
    step: int
    steps: int
    loss: float | None
    seconds: float
    gradient_norm: float | None = None


class ScorePoint(msgspec.Struct, frozen=True):
    """One line of scores.jsonl, written by the trusted scorer: the metric on sealed data after `step` steps."""

    task: str
    step: int
    value: float
    loss: float


class Domain(Protocol):
    """What the engine asks of a field of research. Nothing here runs a program or imports torch.

    Command lines are for the engine's launcher: `vet_argv` and `worker_argv` run inside the sandbox, with the program
    beside their spec in the working directory; `scorer_argv` runs outside it and is trusted.
    """

    contract: str
    quadratic_baselines: frozenset[str]

    def baselines(self) -> list[str]:
        """Names of the known programs that everything descends from."""
        ...

    def baseline_source(self, name: str) -> str:
        """A baseline's program."""
        ...

    def baseline_about(self, name: str) -> str:
        """One line on a baseline."""
        ...

    def inspect(self, source: str) -> list[SourceFinding]:
        """What can be said about a program without running it."""
        ...

    def syntax_hash(self, source: str) -> str:
        """The same for programs that differ only in layout, comments and local names."""
        ...

    def fingerprint(self, source: str) -> frozenset[int]:
        """A program as a set of its pieces, whatever they are named: what two share of them is their likeness."""
        ...

    def changed(self, before: str, after: str) -> SourceChange:
        """How far a program strays from another one."""
        ...

    def prepare(self, cache: Path) -> str:
        """Make the data once per machine; returns a note on it for people. Blocking; raises OSError."""
        ...

    def data_hash(self, tier: str) -> str:
        """What makes two scores comparable: sizes, tasks, data. Needs `prepare` before."""
        ...

    def tasks(self, tier: str) -> list[TaskInfo]:
        """The tier's tasks."""
        ...

    def vet_spec(self, tier: str, quadratic: bool = False) -> VetSpec:
        """What a program is vetted at before it may train at `tier`."""
        ...

    def predicted_cpu_seconds(self, tier: str, step_seconds: float) -> float:
        """CPU seconds of one trial, from the measured seconds of one training step."""
        ...

    def least_memory_mb(self, tier: str, state_floats: int) -> float:
        """Megabytes that a trial needs at least, of what is known before it runs."""
        ...

    def write_specs(self, trial: TrialSpec, folder: Path) -> None:
        """Write the worker's spec into `folder/work` and the scorer's beside it."""
        ...

    def readable(self, trial: TrialSpec) -> list[Path]:
        """Files and folders the sandboxed worker may read besides the program's own folder."""
        ...

    def vet_argv(self, workdir: Path) -> list[str]:
        """Vet `workdir/program.py` against `workdir/spec.json`; prints one `VetReport` as JSON."""
        ...

    def worker_argv(self, workdir: Path, read_fd: int, write_fd: int) -> list[str]:
        """Train under the scorer's orders."""
        ...

    def scorer_argv(self, folder: Path, read_fd: int, write_fd: int) -> list[str]:
        """Drive a worker and print one `TrialResult` as JSON; writes `scores.jsonl` into `folder` on the way.

        On SIGTERM it has the worker write `work/checkpoint.pt`, keeps its own account in `progress.json`, and answers
        with `parked`.
        """
        ...

    def lowest_honest_loss(self, task: str, step: int) -> float:
        """Training loss in nats below which a model at `step` is suspected of seeing the answers."""
        ...
