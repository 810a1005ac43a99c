"""The tiers of the ladder: sizes, tasks and command lines. No torch here; the engine reads this module.

`reference_parameters` is the budget that every program is matched to: the fixed backbone around a mixer with four
`d_model × d_model` projections. `predicted_cpu_seconds` turns a measured step into the cost of a trial.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import sys
from pathlib import Path

import msgspec

from engine.domain import TaskInfo, TrialSpec, VetSpec
from engine.linear_attention.tasks import TASKS, TASKS_VERSION, Plan, describe

KEY_BYTES = 32
CONVOLUTION_WIDTH = 4
PARAMETER_TOLERANCE = 0.01
# A step of the scorer's checks and evaluations costs about this share of the training it accompanies.
SCORING_SHARE = 0.35
START_SECONDS = 3.0
TORCH_MB = 200.0
FLOAT_BYTES = 4


class Tier(msgspec.Struct, frozen=True):
    """One rung: model sizes, the plan of every task, and the sizes programs are vetted at.

    mlp_hidden: SwiGLU width beside the reference mixer; other mixers get more or less, so that totals match.
    """

    name: str
    d_model: int
    n_heads: int
    n_layers: int
    mlp_hidden: int
    plans: tuple[Plan, ...]
    vet: VetSpec

    @property
    def tasks(self) -> list[str]:
        """Names of the tier's tasks, in order."""
        return [plan.task for plan in self.plans]

    @property
    def infos(self) -> list[TaskInfo]:
        """The tier's tasks as people see them."""
        return [describe(plan) for plan in self.plans]

    def plan(self, task: str) -> Plan:
        """The plan of one task; raises KeyError for a task that is not of this tier."""
        for plan in self.plans:
            if plan.task == task:
                return plan
        raise KeyError(f"tier {self.name} has no task {task!r}")


class WorkerSpec(msgspec.Struct, frozen=True):
    """`spec.json` of the sandboxed worker. corpus: path of the training half, empty when no task reads it."""

    trial: TrialSpec
    tier: Tier
    corpus: str = ""


class ScorerSpec(msgspec.Struct, frozen=True):
    """Spec file of the trusted scorer; it and what it names stay outside the sandbox.

    corpus: path of the validation half. key: path of the machine's secret. scores: file that gets the sealed curve.
    silence_seconds: longest wait for any one answer of the worker, not counting time in which the scorer is stopped.
    """

    trial: TrialSpec
    tier: Tier
    corpus: str
    corpus_hash: str
    key: str
    scores: str
    silence_seconds: float = 1800.0

    @property
    def progress(self) -> Path:
        """Where the scorer keeps its account of a parked trial."""
        return Path(self.scores).with_name("progress.json")


def max_length(plan: Plan) -> int:
    """The `max_len` a mixer is built with: room for the checks beyond the training length."""
    return 2 * plan.length + 16


def reference_parameters(tier: Tier, plan: Plan) -> int:
    """Total parameters that every model of this task is matched to."""
    mixer = 4 * tier.d_model * tier.d_model
    return backbone_parameters(tier, plan) + tier.n_layers * (mixer + 3 * tier.d_model * tier.mlp_hidden)


def backbone_parameters(tier: Tier, plan: Plan) -> int:
    """Parameters that are neither mixer nor MLP: embedding, head, norms, and the convolution where there is one."""
    convolution = CONVOLUTION_WIDTH * tier.d_model if plan.short_convolution else 0
    layer = 2 * tier.d_model + convolution
    return 2 * TASKS[plan.task].vocabulary * tier.d_model + tier.d_model + tier.n_layers * layer


def worker_argv(workdir: str, read_fd: int, write_fd: int, python: str = sys.executable) -> list[str]:
    """Command line of the worker; `workdir` holds `spec.json` and `program.py` and is writable."""
    module = "engine.linear_attention.worker"
    return [python, "-m", module, workdir, "--read-fd", str(read_fd), "--write-fd", str(write_fd)]


def scorer_argv(spec: str, read_fd: int, write_fd: int, python: str = sys.executable) -> list[str]:
    """Command line of the scorer; it prints one `TrialResult` as JSON."""
    module = "engine.linear_attention.scorer"
    return [python, "-m", module, spec, "--read-fd", str(read_fd), "--write-fd", str(write_fd)]


def ensure_key(path: Path) -> bytes:
    """The machine's secret for sealed data, made on first use (mode 0600). Raises ValueError when it is malformed."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return load_key(path)
    key = os.urandom(KEY_BYTES)
    with os.fdopen(descriptor, "wb") as file:
        file.write(key)
    return key


def load_key(path: Path) -> bytes:
    """Read the machine's secret; raises ValueError when it is malformed."""
    key = path.read_bytes()
    if len(key) != KEY_BYTES:
        raise ValueError(f"{path}: a key of {KEY_BYTES} bytes was expected, found {len(key)}")
    return key


def data_hash(tier: Tier, corpus_hash: str, key: bytes) -> str:
    """What makes two scores comparable: sizes, plans, corpus and sealed data (without giving the key away)."""
    parts = [str(TASKS_VERSION).encode(), msgspec.json.encode(tier), corpus_hash.encode()]
    parts.append(hmac.new(key, b"fingerprint", hashlib.sha256).digest())
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def predicted_cpu_seconds(tier: Tier, step_seconds: float, tasks: list[str] | None = None) -> float:
    """CPU seconds of one trial, from the measured seconds of one training step (worker and scorer together)."""
    steps = sum(plan.steps for plan in tier.plans if tasks is None or plan.task in tasks)
    return START_SECONDS + steps * step_seconds * (1 + SCORING_SHARE)


def least_memory_mb(tier: Tier, state_floats: int) -> float:
    """Megabytes that a trial cannot do without: torch, four floats per weight, and every layer's state per sequence.

    What the backward pass keeps depends on the program and is not in it.
    """
    tasks = [
        4 * reference_parameters(tier, plan) + tier.n_layers * state_floats * plan.batch_tokens / plan.length
        for plan in tier.plans
    ]
    return TORCH_MB + FLOAT_BYTES * max(tasks) / 2**20


_RECALL_CURRICULUM = ((0.2, 16), (0.45, 32))

_PROBE = Tier(
    name="probe",
    d_model=64,
    n_heads=2,
    n_layers=2,
    mlp_hidden=128,
    plans=(
        Plan("recall", 240, 64, 1024, 3e-3, True, _RECALL_CURRICULUM),
        Plan("noisy_recall", 240, 64, 1024, 3e-3, True, _RECALL_CURRICULUM),
        Plan("parity", 300, 64, 1024, 3e-3, False, ((0.3, 8), (0.6, 16), (0.8, 32))),
        Plan("bytes", 160, 128, 2048, 4e-3, False, checkpoint_sequences=32, final_sequences=128),
    ),
    vet=VetSpec(d_model=64, n_heads=2, train_length=128),
)


def _smoke(plan: Plan) -> Plan:
    return msgspec.structs.replace(
        plan,
        steps=12,
        length=16,
        batch_tokens=128,
        curriculum=((0.5, 8),),
        checkpoints=3,
        checkpoint_sequences=8,
        final_sequences=16,
        probe_sequences=16,
    )


_PROBE_SMOKE = Tier(
    name="probe-smoke",
    d_model=32,
    n_heads=2,
    n_layers=2,
    mlp_hidden=64,
    plans=tuple(_smoke(plan) for plan in _PROBE.plans),
    vet=VetSpec(d_model=32, n_heads=2, train_length=16),
)

TIERS: dict[str, Tier] = {tier.name: tier for tier in (_PROBE, _PROBE_SMOKE)}
