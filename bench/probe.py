"""Calibration of the probe tier: `python -m bench.probe`.

Trains the baselines on the probe's tasks over several seeds, through the same worker and scorer as the engine but
without a sandbox (the baselines are ours), and prints mean ± standard deviation per task, the cost, and whether the
orderings that the field knows come out in every seed.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from importlib.metadata import version
from pathlib import Path

import msgspec
import numpy as np

from engine.domain import TaskResult, TrialResult, TrialSpec
from engine.linear_attention import baselines
from engine.linear_attention.corpus import CorpusInfo, build_corpus
from engine.linear_attention.tiers import (
    TIERS,
    ScorerSpec,
    Tier,
    WorkerSpec,
    ensure_key,
    scorer_argv,
    worker_argv,
)

Results = dict[tuple[str, int], TrialResult]


class Ordering(msgspec.Struct, frozen=True):
    """Something the field knows that must come out: `holds(better, worse)` on one task, in every seed."""

    claim: str
    task: str
    better: str
    worse: str
    holds: Callable[[TaskResult, TaskResult], bool]


def _above(first: TaskResult, second: TaskResult) -> bool:
    return first.score > second.score


def _not_below(first: TaskResult, second: TaskResult) -> bool:
    return first.score >= second.score - 0.01


def _solves_alone(first: TaskResult, second: TaskResult) -> bool:
    return first.final > 0.95 and second.final < 0.75


ORDERINGS = (
    Ordering("softmax beats linear attention", "recall", "softmax_attention", "linear_attention", _above),
    Ordering("softmax beats linear attention", "noisy_recall", "softmax_attention", "linear_attention", _above),
    Ordering("DeltaNet beats linear attention", "recall", "deltanet", "linear_attention", _above),
    Ordering("DeltaNet beats linear attention", "noisy_recall", "deltanet", "linear_attention", _above),
    Ordering("β in (0, 2) solves parity, (0, 1) does not", "parity", "deltanet_negative", "deltanet", _solves_alone),
    Ordering("Gated DeltaNet not worse than linear", "recall", "gated_deltanet", "linear_attention", _not_below),
    Ordering("Gated DeltaNet not worse than linear", "noisy_recall", "gated_deltanet", "linear_attention", _not_below),
    Ordering("Gated DeltaNet not worse than linear", "parity", "gated_deltanet", "linear_attention", _not_below),
    Ordering("Gated DeltaNet not worse than linear", "bytes", "gated_deltanet", "linear_attention", _not_below),
)


def run_trial(source: str, spec: TrialSpec, tier: Tier, corpus: CorpusInfo, key: Path, workdir: Path) -> TrialResult:
    """One trial over real pipes, worker and scorer as children, no sandbox. Raises OSError, CalledProcessError."""
    sandbox = workdir / "sandbox"
    sandbox.mkdir(parents=True, exist_ok=True)
    (sandbox / "program.py").write_text(source, encoding="utf-8")
    (sandbox / "spec.json").write_bytes(msgspec.json.encode(WorkerSpec(spec, tier, corpus.train_path)))
    scores = str(workdir / "scores.jsonl")
    scorer_spec = ScorerSpec(spec, tier, corpus.validation_path, corpus.hash, str(key), scores)
    (workdir / "scorer.json").write_bytes(msgspec.json.encode(scorer_spec))
    to_worker, to_scorer = os.pipe(), os.pipe()
    with (workdir / "worker.log").open("wb") as log, contextlib.ExitStack() as stack:
        argv = worker_argv(str(sandbox), to_worker[0], to_scorer[1])
        descriptors = (to_worker[0], to_scorer[1])
        worker = stack.enter_context(subprocess.Popen(argv, pass_fds=descriptors, stdout=log, stderr=log, cwd=sandbox))
        stack.callback(worker.terminate)
        for descriptor in descriptors:
            os.close(descriptor)
        argv = scorer_argv(str(workdir / "scorer.json"), to_scorer[0], to_worker[1])
        descriptors = (to_scorer[0], to_worker[1])
        scorer = stack.enter_context(subprocess.Popen(argv, pass_fds=descriptors, stdout=subprocess.PIPE))
        for descriptor in descriptors:
            os.close(descriptor)
        output, _ = scorer.communicate()
        return msgspec.json.decode(output, type=TrialResult)


def calibrate(
    tier: Tier, programs: list[str], seeds: list[int], tasks: list[str], parallel: int, home: Path
) -> Iterator[tuple[str, int, TrialResult]]:
    """All trials, seed by seed, as they finish."""
    corpus = build_corpus(home / "corpus")
    key = home / "key"
    ensure_key(key)

    def one(name: str, seed: int) -> tuple[str, int, TrialResult]:
        spec = TrialSpec(f"{name}-{seed}", name, tier.name, seed, tasks)
        workdir = home / "trials" / spec.trial
        return name, seed, run_trial(baselines.source(name), spec, tier, corpus, key, workdir)

    with ThreadPoolExecutor(parallel) as pool:
        for future in as_completed([pool.submit(one, name, seed) for seed in seeds for name in programs]):
            yield future.result()


def header(tier: Tier, corpus: CorpusInfo) -> str:
    """Machine, versions and data, so that a figure can be read years later."""
    processor = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        processor = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), processor)
    lengths = ", ".join(
        f"{plan.task} {plan.steps} steps × {plan.batch_tokens} tokens, length {plan.length}, "
        f"lr {plan.learning_rate:g}, "
        f"{'with' if plan.short_convolution else 'without'} backbone convolution"
        for plan in tier.plans
    )
    return (
        f"{processor}, {os.cpu_count()} CPUs, 1 thread per trial; Python {platform.python_version()}, "
        f"torch {version('torch')}, numpy {np.__version__}\n"
        f"tier {tier.name}: d_model {tier.d_model}, {tier.n_heads} heads, {tier.n_layers} layers; {lengths}\n"
        f"corpus: {corpus.note}, {corpus.bytes / 1e6:.2f} MB, sha256 {corpus.hash[:16]}"
    )


def table(results: Results, programs: list[str], tasks: list[str]) -> str:
    """The calibration table in Markdown: score and final metric per task, mean ± standard deviation over seeds."""
    columns = ["mixer", *(f"{task} (score / final)" for task in tasks), "CPU s", "parameters", "seeds"]
    rows = [columns, ["---"] * len(columns)]
    for name in programs:
        trials = [result for (program, _), result in results.items() if program == name]
        if not trials:
            continue
        cells = [name]
        for task in tasks:
            found = [item for trial in trials for item in trial.tasks if item.task == task]
            scores, finals = [item.score for item in found], [item.final for item in found]
            cells.append(f"{_spread(scores)} / {_spread(finals)}")
        cells.append(_spread([trial.cpu_seconds for trial in trials], 1))
        cells += [str(max(trial.parameters for trial in trials)), str(len(trials))]
        rows.append(cells)
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _spread(values: list[float], digits: int = 3) -> str:
    if not values:
        return "–"
    deviation = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.{digits}f}{deviation}"


def orderings(results: Results, seeds: list[int]) -> list[str]:
    """One line per known ordering whose mixers and task were run: in how many seeds it held."""
    lines = []
    for ordering in ORDERINGS:
        verdicts = []
        for seed in seeds:
            pair = [_task(results.get((name, seed)), ordering.task) for name in (ordering.better, ordering.worse)]
            if pair[0] is not None and pair[1] is not None:
                verdicts.append(ordering.holds(pair[0], pair[1]))
        if verdicts:
            word = "holds" if all(verdicts) else "FAILS"
            lines.append(f"{word} in {sum(verdicts)} of {len(verdicts)} seeds: {ordering.claim} ({ordering.task})")
    return lines


def _task(result: TrialResult | None, task: str) -> TaskResult | None:
    return next((item for item in result.tasks if item.task == task), None) if result else None


def main() -> int:
    """Command line; exit code 1 when an ordering fails, a trial fails or an honest baseline is called a cheat."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tier", default="probe", choices=list(TIERS))
    parser.add_argument("--seeds", type=int, default=3, help="seeds 0 to N-1")
    parser.add_argument("--baselines", nargs="+", default=baselines.names(), choices=baselines.names())
    parser.add_argument("--tasks", nargs="+", help="default: all of the tier")
    parser.add_argument("--parallel", type=int, default=2, help="trials at a time")
    parser.add_argument("--markdown", action="store_true", help="print the report only, for the README")
    arguments = parser.parse_args()
    tier = TIERS[arguments.tier]
    tasks = arguments.tasks or tier.tasks
    seeds = list(range(arguments.seeds))
    results: Results = {}
    good = True
    with tempfile.TemporaryDirectory(prefix="asi-probe-") as temporary:
        home = Path(temporary)
        report = header(tier, build_corpus(home / "corpus"))
        started = time.monotonic()
        for name, seed, result in calibrate(tier, arguments.baselines, seeds, tasks, arguments.parallel, home):
            results[name, seed] = result
            doubts = "; ".join(f"{item.task}: {item.evidence}" for item in result.tasks if not item.honest)
            good = good and not result.failure and not doubts
            if not arguments.markdown or result.failure or doubts:
                line = " ".join(f"{item.task} {item.score:.3f}/{item.final:.3f}" for item in result.tasks)
                print(
                    f"[{time.monotonic() - started:6.0f} s] {name} seed {seed}: {line} ({result.cpu_seconds:.1f} CPU s)"
                    f"{' DOUBT ' + doubts if doubts else ''}{' FAILED ' + result.failure if result.failure else ''}",
                    file=sys.stderr if arguments.markdown else sys.stdout,
                    flush=True,
                )
    verdicts = orderings(results, seeds)
    print(f"{report}\n\n{table(results, arguments.baselines, tasks)}\n")
    print("\n".join(f"- {verdict}" for verdict in verdicts))
    return 0 if good and not any(verdict.startswith("FAILS") for verdict in verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
