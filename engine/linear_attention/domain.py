"""The linear-attention domain as the engine sees it: data, command lines and texts; no torch."""

from __future__ import annotations

import contextlib
import math
import sys
from pathlib import Path

import msgspec

from engine.domain import SourceChange, SourceFinding, TaskInfo, TrialSpec, VetSpec
from engine.linear_attention import account, baselines, corpus, likeness, static, tiers
from engine.linear_attention.signatures import building_blocks
from engine.linear_attention.tasks import TASKS

CONTRACT = """\
One Python file that defines

    class Mixer(nn.Module):
        def __init__(self, d_model: int, n_heads: int, layer_idx: int, max_len: int)
        def forward(self, x: Tensor) -> Tensor            # [batch, time, d_model] to the same shape, causal
        def step(self, x_t: Tensor, state) -> tuple[Tensor, object]   # optional; [batch, d_model], state None at first

It may import torch, math, typing, dataclasses, einops and engine.linear_attention.ops. Its cost must grow linearly with
time. Samples of a batch must not see each other, and nothing may be carried from one call to the next.
"""


class LinearAttention:
    """Implements `engine.domain.Domain`."""

    quadratic_baselines = frozenset({"softmax_attention"})

    def __init__(self) -> None:
        self.contract = f"{CONTRACT}\n{building_blocks()}"
        self._corpus: corpus.CorpusInfo | None = None
        self._key = Path()

    def baselines(self) -> list[str]:
        """Names of the baselines."""
        return baselines.names()

    def baseline_source(self, name: str) -> str:
        """A baseline's program."""
        return baselines.source(name)

    def baseline_about(self, name: str) -> str:
        """One line on a baseline."""
        return baselines.DESCRIPTIONS[name]

    def inspect(self, source: str) -> list[SourceFinding]:
        """What the syntax tree says."""
        return [
            SourceFinding(item.kind, item.severity == "error", item.line, item.message, item.weight)
            for item in static.check_source(source)
        ]

    def syntax_hash(self, source: str) -> str:
        """Hash of the normalised syntax tree."""
        return likeness.normalised_hash(source)

    def fingerprint(self, source: str) -> frozenset[int]:
        """Hashed lines and pairs of lines of the syntax tree."""
        return likeness.fingerprint(source)

    def changed(self, before: str, after: str) -> SourceChange:
        """Changed lines of the syntax tree, function by function."""
        found = likeness.change(before, after)
        return SourceChange(found.share, found.where)

    def prepare(self, cache: Path) -> str:
        """Build the corpus and the machine's secret once; returns a note on the data. Blocking; raises OSError."""
        folder = cache / "corpus"
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._corpus = corpus.build_corpus(folder)
        # Sandboxes run under a user id of their own; the sealed half stays with us.
        Path(self._corpus.train_path).chmod(0o644)
        self._key = cache / "sealed.key"
        tiers.ensure_key(self._key)
        return self._corpus.note

    def data_hash(self, tier: str) -> str:
        """What makes two scores comparable."""
        return tiers.data_hash(tiers.TIERS[tier], self._ready().hash, tiers.load_key(self._key))

    def tasks(self, tier: str) -> list[TaskInfo]:
        """The tier's tasks."""
        return tiers.TIERS[tier].infos

    def vet_spec(self, tier: str, quadratic: bool = False) -> VetSpec:
        """The sizes to vet at."""
        return msgspec.structs.replace(tiers.TIERS[tier].vet, allow_quadratic=quadratic)

    def predicted_cpu_seconds(self, tier: str, step_seconds: float) -> float:
        """CPU seconds of one trial."""
        return tiers.predicted_cpu_seconds(tiers.TIERS[tier], step_seconds)

    def least_memory_mb(self, tier: str, state_floats: int) -> float:
        """Weights with their gradients and moments, the states of a batch, and torch itself."""
        return tiers.least_memory_mb(tiers.TIERS[tier], state_floats)

    def write_specs(self, trial: TrialSpec, folder: Path) -> None:
        """Write `work/spec.json` for the worker and `scorer.json` for the scorer."""
        info, tier = self._ready(), tiers.TIERS[trial.tier]
        worker = tiers.WorkerSpec(trial, tier, str(info.train_path))
        scorer = tiers.ScorerSpec(
            trial, tier, str(info.validation_path), info.hash, str(self._key), str(folder / "scores.jsonl")
        )
        (folder / "work" / "spec.json").write_bytes(msgspec.json.encode(worker))
        (folder / "scorer.json").write_bytes(msgspec.json.encode(scorer))
        if trial.resume:
            with contextlib.suppress(account.AccountError):  # which the scorer will say
                kept = account.open_account(scorer.progress, trial, self.data_hash(trial.tier))
                account.cut_points(folder / "work" / "points.jsonl", kept)

    def readable(self, trial: TrialSpec) -> list[Path]:
        """The training half of the corpus; the validation half and the secret stay outside."""
        return [Path(self._ready().train_path)]

    def vet_argv(self, workdir: Path) -> list[str]:
        """The vetting battery."""
        return [sys.executable, "-m", "engine.linear_attention.vetting", str(workdir)]

    def worker_argv(self, workdir: Path, read_fd: int, write_fd: int) -> list[str]:
        """The training process."""
        return tiers.worker_argv(str(workdir), read_fd, write_fd)

    def scorer_argv(self, folder: Path, read_fd: int, write_fd: int) -> list[str]:
        """The trusted scorer."""
        return tiers.scorer_argv(str(folder / "scorer.json"), read_fd, write_fd)

    def lowest_honest_loss(self, task: str, step: int) -> float:
        """A byte model this small cannot go below about one bit per byte; a skill cannot be solved in a few steps."""
        if task in TASKS and TASKS[task].language:
            return math.log(2.0)
        return 0.02 if step <= 20 else -1.0

    def _ready(self) -> corpus.CorpusInfo:
        if self._corpus is None:
            raise RuntimeError("prepare() comes first")
        return self._corpus
