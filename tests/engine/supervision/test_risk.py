"""What is said about a program before it may train, and how gravely."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from engine import assessing, costs
from engine.costs import CostPrediction
from engine.domain import SourceChange, SourceFinding
from engine.laboratory import Laboratory
from engine.linear_attention import baselines
from engine.linear_attention.domain import LinearAttention
from engine.resemblance import Nearest
from engine.runtime import Runtime
from engine.supervision import risk
from engine.supervision.ledger import CPU, MONEY, TOKENS, Account
from store import events as ev
from store.config import RunConfig, Trials
from store.risks import KINDS

CALM = risk.Circumstances(
    source=[], gates=[], tier="probe", level="L2", wanted_level="L2", cost=CostPrediction(50.0, 40.0, 60.0, 5),
    memory_mb=2048, least_memory_mb=300,
)  # fmt: skip


def found(**changes: Any) -> list[tuple[str, str]]:
    known = msgspec.structs.replace(CALM, **changes)
    return [(one.kind, one.severity) for one in risk.assess(known)]


def gate(name: str, evidence: str) -> list[ev.GateVerdict]:
    return [ev.GateVerdict(name, True, evidence)]


FFT = SourceFinding("fft", False, 3, "mixes by a Fourier transform")
GROWS = SourceFinding("state_growth", False, 4, "step joins to its state", "medium")
PREFIX = "prefix: outputs do not depend on the total length, within {} of 5.0e-04 allowed"
CASES: list[tuple[dict[str, Any], list[tuple[str, str]]]] = [
    ({}, []),
    ({"source": [SourceFinding("file", True, 1, "uses open")]}, [("file", "high")]),
    ({"source": [SourceFinding("hook", False, 1, "registers a hook")]}, [("hook", "low")]),
    ({"source": [FFT]}, [("fft", "low")]),
    ({"source": [FFT], "cost_exponent": 1.3}, [("fft", "medium")]),
    ({"source": [GROWS]}, [("state_growth", "medium")]),
    ({"source": [GROWS], "state_floats": 512}, [("state_growth", "low")]),
    ({"gates": gate("complexity", "T"), "cost_exponent": 1.3}, [("cost_growth", "low")]),
    ({"gates": gate("prefix", PREFIX.format("6.3e-07"))}, []),
    ({"gates": gate("prefix", PREFIX.format("4.0e-05"))}, [("leak", "low")]),
    ({"gates": gate("prefix", PREFIX.format("3.0e-04"))}, [("leak", "medium")]),
    ({"gates": gate("prefix", PREFIX.format("e.-+"))}, []),
    ({"gates": gate("gradient", "gradient: all finite; none ever reaches a, b (2 of 9 weights)")},
     [("dead_parameters", "low")]),
    ({"failures": ["leak"]}, [("leak", "high")]),
    ({"failures": ["overrun"]}, [("resources", "low")]),
    ({"nearest": Nearest("e0001", 0.95)}, [("near_duplicate", "low")]),
    ({"nearest": Nearest("e0001", 0.95), "nearest_cheated": True}, [("leak", "medium"), ("near_duplicate", "low")]),
    ({"nearest": Nearest("e0001", 0.6), "nearest_cheated": True}, []),
    ({"cost": CostPrediction(900.0)}, [("resources", "medium")]),
    ({"least_memory_mb": 3000.0}, [("memory", "medium")]),
    ({"accounts": [Account(CPU, 0.5, 1.0)]}, []),
    ({"accounts": [Account(CPU, 0.5, 0.51)]}, [("resources", "medium")]),
    ({"accounts": [Account(CPU, 0.4, 0.51, reserved=0.1)]}, [("resources", "medium")]),
    ({"accounts": [Account(CPU, 0.5, 0.53)], "seeds": 3}, [("resources", "medium")]),
    ({"accounts": [Account(CPU, 0.6, 0.5)]}, [("resources", "low")]),
    ({"accounts": [Account(TOKENS, 9e5, 1e6)], "tokens_each": 2e5}, [("tokens", "medium")]),
    ({"accounts": [Account(TOKENS, 9e5, 1e6)], "tokens_each": 1e3}, []),
    ({"accounts": [Account(MONEY, 9.0, 10.0)], "money_each": 1.5}, [("money", "medium")]),
    ({"accounts": [Account(MONEY, 0.0, 10.0), Account("disk GB", 9, 1)]}, []),
    ({"tier": "explore"}, [("stage", "medium")]),
    ({"drift": SourceChange(0.1, ["f"]), "by_person": True}, [("drift", "low")]),
    ({"drift": SourceChange(0.4, ["f"]), "by_person": True}, [("drift", "medium")]),
    ({"drift": SourceChange(0.9, ["f"]), "by_person": True}, [("drift", "high")]),
    ({"drift": SourceChange(0.9, ["f"])}, [("drift", "low")]),
    ({"drift": SourceChange(0.0, []), "by_person": True}, []),
    ({"level": "L1"}, [("isolation", "medium")]),
    ({"level": "L0"}, [("isolation", "high")]),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "expected"), CASES)
def test_what_is_known_and_what_is_said(changes: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    assert found(**changes) == expected
    assert {kind for kind, _ in expected} <= set(KINDS)


def test_findings_are_bounded_clean_and_worst_first() -> None:
    many = [SourceFinding("obfuscation", False, n, "\x1b]52;c;x\x07\u202e" + "y" * 5000, "medium") for n in range(9000)]
    said = risk.assess(msgspec.structs.replace(CALM, source=[*many, SourceFinding("import", True, 9, "imports os")]))
    assert [one.severity for one in said] == ["high", *["medium"] * (risk.MAX_ALIKE + 1)]
    assert "8992 more" in said[-1].message
    assert all(one.message.isprintable() and len(one.message) <= risk.MAX_MESSAGE for one in said)


def test_the_numbers_of_a_prediction_are_in_its_words() -> None:
    assert "40 to 60, learned from 5 programs" in risk.span(CALM.cost)
    assert "no interval yet" in risk.span(CostPrediction(50.0, programs=2))


class Bench:
    """A run directory with one parent that was vetted, trained and approved by a person; no process is started."""

    def __init__(self, root: Path, **trials: Any) -> None:
        for folder in ("journal", "blobs", "trials"):
            (root / folder).mkdir(parents=True)
        self.runtime = Runtime(root, RunConfig(trials=Trials(tier="probe-smoke", **trials)))
        nothing: Any = None
        self.lab = Laboratory(
            self.runtime, LinearAttention(), nothing, nothing, nothing, nothing, nothing, nothing, "L2", "", nothing,
            nothing,
        )  # fmt: skip
        self.runtime.emit(ev.RunCreated("r", ev.FORMAT, "0", ""))

    async def propose(self, name: str, source: str, origin: ev.Origin = "model") -> str:
        sha = await self.runtime.put(source)
        self.runtime.emit(ev.ExperimentOpened(name, origin))
        self.runtime.emit(ev.ProposalDrafted(name, name, "", "", sha))
        self.vetted(name, sha)
        return sha

    def vetted(self, name: str, sha: str) -> None:
        self.runtime.emit(ev.ProgramVetted(name, sha, True, [], "", step_seconds=0.01))

    async def assess(self, name: str) -> dict[str, ev.Finding]:
        await assessing.Assessing(self.lab, name).assess()
        return {one.kind: one for one in self.runtime.state.experiments[name].findings}


async def test_an_experiment_is_assessed_against_what_came_before(tmp_path: Path) -> None:
    bench, source = Bench(tmp_path), baselines.source("kda")
    known = await bench.propose("b-kda", source, "baseline")
    assert await bench.assess("b-kda") == {}
    entry = bench.runtime.state.experiments["b-kda"]
    raw = entry.predicted_cpu_seconds
    assert (entry.novelty, entry.predicted_cpu_low, entry.predicted_cpu_high) == (1.0, 0.0, 0.0) and raw > 0
    for n, name in enumerate(("gla", "mamba2", "retnet")):
        sha = await bench.propose(f"b-{name}", baselines.source(name), "baseline")
        trial = f"b-{name}-s0"
        bench.runtime.emit(ev.TrialStarted(trial, f"b-{name}", sha, "probe-smoke", 0, "L2"))
        bench.runtime.emit(
            ev.TrialFinished(
                trial, f"b-{name}", sha, "probe-smoke", 0, [], 1, 1.0, 1, 1, raw * (2 + 0.1 * n), 1.0, "d", "p", "r"
            )
        )
    first = await bench.propose("e0001", source.replace("F.silu(v)", "F.gelu(v)"))
    said = await bench.assess("e0001")
    entry = bench.runtime.state.experiments["e0001"]
    assert "b-kda" in said["near_duplicate"].message and entry.novelty < 0.15
    assert entry.predicted_cpu_low < 2.1 * raw < entry.predicted_cpu_high
    assert entry.predicted_cpu_seconds == pytest.approx(costs.predict(raw, [2.0, 2.1, 2.2]).cpu_seconds, abs=1)
    assert entry.step == "gate" and known != first
    await bench.runtime.close()


async def test_a_repair_is_compared_with_what_a_person_approved(tmp_path: Path) -> None:
    bench, source = Bench(tmp_path), baselines.source("kda")
    first = await bench.propose("e0001", source)
    await bench.assess("e0001")
    bench.runtime.emit(ev.ApprovalRequested("R0001", "e0001", first, "probe-smoke", "default", 2e9))
    bench.runtime.emit(ev.ApprovalDecided("e0001", first, "probe-smoke", "approve", "person:ada", "R0001"))
    repaired = await bench.runtime.put(source.replace("F.silu(v)", "F.silu(v.flip(1))") + "\n\nPLACE = '/etc/passwd'\n")
    bench.runtime.emit(ev.ProgramRepaired("e0001", first, repaired, "it diverged", 1))
    bench.vetted("e0001", repaired)
    said = await bench.assess("e0001")
    assert said["drift"].severity == "low" and "Mixer.mix" in said["drift"].message
    assert said["file"].line == source.count("\n") + 3 and "/etc/passwd" in said["file"].message
    other = await bench.runtime.put(baselines.source("mamba2"))
    bench.runtime.emit(ev.ProgramRepaired("e0001", repaired, other, "again", 2))
    bench.vetted("e0001", other)
    assert (await bench.assess("e0001"))["drift"].severity in ("medium", "high")
    (tmp_path / "blobs" / first).unlink()
    assert (await bench.assess("e0001"))["drift"].severity == "high"
    await bench.runtime.close()
