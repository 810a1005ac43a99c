"""Tests of attention: faults that are faults, a secret that is kept and proved, and a test that never runs."""

from __future__ import annotations

import hashlib
import random
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import msgspec
import pytest
import torch

from engine import attention, faults, lessons
from engine.agents.evolver.agent import Evolver
from engine.agents.evolver.genome import SEEDS
from engine.agents.evolver.render import render
from engine.decoys import FILE, Decoys, DecoysError, Truth, seal_of
from engine.experiment import Machine
from engine.halting import Halting
from engine.laboratory import Laboratory
from engine.linear_attention.domain import LinearAttention
from engine.linear_attention.program import load_mixer
from engine.loop import Loop
from engine.replaying import Recording
from engine.runtime import Runtime
from engine.sandboxes import Sandboxes
from engine.slots import Slots
from engine.supervision.deadman import DeadMan
from engine.supervision.sandbox import Launcher
from engine.trials import TrialRunner
from store import events as ev
from store.config import Deadman
from store.policy import Policy
from store.state import Experiment, Request, RunState
from tests.engine.agents.llm.conftest import started

DOMAIN = LinearAttention()
SOUND = [DOMAIN.baseline_source(name) for name in DOMAIN.baselines()] + [render(genome) for genome in SEEDS.values()]


def outputs(program: str, x: torch.Tensor) -> torch.Tensor:
    torch.manual_seed(0)
    with torch.no_grad():
        return load_mixer(program)(16, 2, 0, 64)(x)


@pytest.mark.parametrize("fault", faults.FAULTS, ids=lambda fault: fault.what.partition(":")[0] + fault.title)
def test_every_fault_is_one_wherever_it_is_put(fault: faults.Fault) -> None:
    for source in SOUND:
        program = faults.inject(source, fault)
        assert program is not None
        kept = iter(program.split("\n"))
        assert all(line in kept for line in source.split("\n"))  # nothing of the sound program is missing
    kind = fault.what.partition(":")[0]
    if kind not in ("time leak", "batch leak"):
        assert any(finding.error for finding in DOMAIN.inspect(program))
        return
    source = DOMAIN.baseline_source("gated_deltanet")
    program = faults.inject(source, fault)
    assert program is not None
    assert not any(finding.error for finding in DOMAIN.inspect(program))
    x = torch.randn(3, 12, 16)
    changed = x.clone()
    where = (slice(None), slice(6, None)) if kind == "time leak" else (slice(1, None),)
    changed[where] += 1.0
    seen = (slice(None), slice(None, 6)) if kind == "time leak" else (0,)
    assert torch.equal(outputs(source, x)[seen], outputs(source, changed)[seen])
    assert not torch.equal(outputs(program, x)[seen], outputs(program, changed)[seen])


@pytest.mark.parametrize(
    "source",
    ["", "def", "x = 1\n", "class Mixer:\n    def forward(self, x): return x\n", "class Mixer:\r\n    pass\r\n",
     "class Mixer:\n    def forward(self):\n        return 1\n", "(" * 50_000],
)  # fmt: skip
def test_a_program_that_takes_no_fault_is_left_alone(source: str) -> None:
    assert all(faults.inject(source, fault) is None for fault in faults.FAULTS if not fault.module)
    assert faults.make(source, random.Random(0)) is None


# --- the secret -------------------------------------------------------------------------------------------------------


def played(root: Path, share: float, seed: int, requests: int) -> list[int]:
    """After which requests a test was due."""
    decoys, state, found = Decoys(root, share, seed), RunState(), []
    for number in range(requests):
        state.requests[f"R{len(state.requests)}"] = Request("R", f"x{number}", "p", "t", "r", 0.0, 1.0)
        while decoys.due(state):
            name = f"d{len(found)}"
            decoys._truths[name] = Truth("n", "a leak")  # one write a test would be slow
            state.experiments[name] = Experiment(name, "evolver")
            state.requests[f"R{len(state.requests)}"] = Request("R", name, "p", "t", "r", 0.0, 1.0)
            found.append(number)
    return found


def test_about_the_wanted_share_of_requests_are_tests_always_the_same_ones(tmp_path: Path) -> None:
    found = played(tmp_path, 0.2, 7, 800)
    assert 0.16 < len(found) / (800 + len(found)) < 0.24
    assert played(tmp_path, 0.2, 7, 800) == found
    assert played(tmp_path, 0.2, 8, 800) != found
    assert played(tmp_path, 0.0, 7, 50) == []
    assert not Decoys(tmp_path, 0.5, 7).due(RunState())  # who asks about nothing tests nobody


def test_the_truth_is_private_survives_a_restart_and_opens_its_seal(tmp_path: Path) -> None:
    decoys = Decoys(tmp_path, 0.2, 1)
    test = Experiment("e0001", "evolver", seal=decoys.seal("e0001", "a leak"))
    real = Experiment("e0002", "evolver", seal=decoys.seal("e0002"))
    assert stat.S_IMODE((tmp_path / FILE).stat().st_mode) == 0o600
    assert len(test.seal) == len(real.seal) == 64
    again = Decoys(tmp_path)
    assert (again.is_decoy(test), again.is_decoy(real)) == (True, False)
    what, nonce = again.reveal("e0001")
    assert what == "a leak"
    assert test.seal == hashlib.sha256(f"{nonce}:e0001:decoy".encode()).hexdigest()
    with pytest.raises(KeyError):
        again.reveal("e0002")
    assert again.is_decoy(Experiment("e0003", "person")) is False


def test_what_is_not_known_for_certain_is_taken_for_a_test(tmp_path: Path) -> None:
    decoys = Decoys(tmp_path, 0.2, 1)
    test = Experiment("e0001", "evolver", seal=decoys.seal("e0001", "a leak"))
    kept = msgspec.json.decode((tmp_path / FILE).read_bytes())
    kept["experiments"]["e0001"]["what"] = ""  # somebody wants it to pass for a real one
    (tmp_path / FILE).write_bytes(msgspec.json.encode(kept))
    for known in (Decoys(tmp_path), Decoys(tmp_path / "nowhere"), Decoys()):
        assert known.standing(test) == "unknown"
        with pytest.raises(DecoysError, match="e0001 is sealed"):
            known.is_decoy(test)
    (tmp_path / FILE).write_bytes(b'{"version": 1, "exper')
    with pytest.raises(DecoysError, match="damaged"):
        Decoys(tmp_path)
    (tmp_path / FILE).unlink()
    (tmp_path / FILE).symlink_to("/etc/passwd")
    with pytest.raises(DecoysError, match="cannot be read"):
        Decoys(tmp_path)


# --- in a run ---------------------------------------------------------------------------------------------------------


class Bench:
    """A laboratory with one measured proposal, and nothing that could train."""

    def __init__(self, runtime: Runtime) -> None:
        sandboxes = Sandboxes(cast(Launcher, None), memory_mb=1, disk_mb=1)
        slots = Slots(1)
        self.runtime = runtime
        self.lab = Laboratory(
            runtime, DOMAIN, cast(TrialRunner, None), slots,
            Halting(runtime, sandboxes, slots, lambda ground: cast(Launcher, None)), DeadMan(Deadman()), Evolver(),
            Policy(1, "ask"), "L2", "", self.recall, self.remember, decoys=Decoys(runtime.paths.root, 0.4, 3),
        )  # fmt: skip

    async def recall(self, question: str, count: int) -> list[str]:
        return []

    async def remember(self, name: str, lesson: str) -> None:
        pass

    async def begin(self) -> None:
        put, emit = self.runtime.put, self.runtime.emit
        program = await put(DOMAIN.baseline_source("gated_deltanet"))
        emit(ev.ExperimentOpened("b-gated_deltanet", "baseline"))
        genome = Evolver().seed_genome("gated_deltanet")
        emit(ev.ProposalDrafted("b-gated_deltanet", "gated_deltanet", "", "", program, genome=genome))
        gates = [ev.GateVerdict("causality", True, "no earlier output moved")]
        emit(ev.ProgramVetted("b-gated_deltanet", program, True, gates, "", "s", "f", 900, 64, 1.0, 1.0, 0.01, 2.0))

    async def test(self) -> Experiment:
        """A test, as far as the request for its approval."""
        assert await attention.open_test(self.lab)
        entry = self.runtime.state.proposals[-1]
        assert entry.step == "assess" and not attention.is_unfinished(self.lab, entry)
        self.runtime.emit(ev.RiskAssessed(entry.id, entry.program, self.lab.tier, []))
        await self.runtime.commit(ev.ApprovalRequested(self.next(), entry.id, entry.program, self.lab.tier, "r", 9e9))
        assert not await attention.intercept(self.lab, entry)
        return entry

    def next(self) -> str:
        return f"R{len(self.runtime.state.requests) + 1:04d}"

    async def decide(self, entry: Experiment, decision: ev.Decision, who: str = "ann", reason: str = "no") -> None:
        request = list(self.runtime.state.requests)[-1]
        await self.runtime.commit(
            ev.ApprovalDecided(entry.id, entry.program, self.lab.tier, decision, who, request, reason)
        )

    def events(self, kind: type) -> list[ev.AnyEvent]:
        from store.journal import read

        self.runtime.journal.wait(self.runtime.state.seq, 5)
        return [record.data for record in read(self.runtime.paths.journal) if isinstance(record.data, kind)]


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    runtime = await started(tmp_path / "run")
    made = Bench(runtime)
    await made.begin()
    yield made
    await runtime.close()


async def test_a_test_looks_like_a_proposal_and_its_record_claims_nothing_that_is_not_so(bench: Bench) -> None:
    entry = await bench.test()
    parent = bench.runtime.state.experiments[entry.parent]
    assert (entry.id, entry.origin, entry.step) == ("e0001", "evolver", "gate")
    assert entry.title.startswith("gated_deltanet, ") and entry.motivation and entry.predictions and entry.change
    assert entry.vetted and entry.gates == parent.gates
    vetted = bench.events(ev.ProgramVetted)[-1]
    assert isinstance(vetted, ev.ProgramVetted)
    assert vetted.program == entry.program != parent.program and vetted.seconds == 0
    told = "".join(path.read_text() for path in bench.runtime.paths.journal.iterdir() if path.is_file())
    what, nonce = bench.lab.decoys.reveal("e0001")
    assert what not in told and nonce not in told and "decoy" not in told and "a test of attention" not in told


async def test_an_approved_test_never_runs_and_is_revealed(bench: Bench) -> None:
    entry = await bench.test()
    await bench.decide(entry, "approve")
    assert entry.step == "train"
    assert not Machine(bench.lab, entry.id).approved()
    assert await attention.intercept(bench.lab, entry)
    (checked,) = bench.events(ev.AttentionChecked)
    assert isinstance(checked, ev.AttentionChecked)
    assert (checked.request, checked.who, checked.caught) == ("R0001", "ann", False)
    assert entry.seal == seal_of(entry.id, Truth(checked.nonce, checked.what))
    assert (entry.step, entry.outcome) == ("closed", "rejected") and entry.reason.startswith("a test of attention")
    assert (bench.runtime.state.caught, bench.runtime.state.missed) == (0, 1)
    assert not bench.events(ev.TrialStarted)


async def test_a_rejected_test_teaches_nothing_and_counts_nowhere(bench: Bench, tmp_path: Path) -> None:
    entry = await bench.test()
    await bench.decide(entry, "reject", reason="it looks ahead")
    real = bench.lab.decoys.without(bench.runtime.state)
    assert lessons.rejections(real) == [] and lessons.judged(real) == []
    assert await attention.intercept(bench.lab, entry)
    assert (bench.runtime.state.caught, bench.runtime.state.missed) == (1, 0)
    loop = Loop(bench.lab, 3)
    assert loop.real.proposals == [] and loop._opened() == 0
    assert await loop._open_proposal()
    opened = bench.runtime.state.proposals[-1]
    assert opened.id == "e0002" and bench.lab.decoys.standing(opened) == "real" and opened.seal
    machine = Machine(bench.lab, "e0002")
    assert machine.failures() == [] and [e.id for e in machine.earlier()] == ["b-gated_deltanet"]
    brief = await machine._proposal_brief()
    assert len(brief.tried) == 1 and brief.judged == []
    await machine.propose()
    await machine.close("failed", "enough")
    bench.runtime.journal.wait(bench.runtime.state.seq, 5)
    openings = Recording(bench.runtime.paths.root).openings
    assert [one.opened.experiment for one in openings] == ["e0002"] and openings[0].opened.seal == ""


async def test_nobody_decided_is_neither_caught_nor_missed(bench: Bench) -> None:
    entry = await bench.test()
    await bench.decide(entry, "expire", "clock", "nobody decided in time")
    assert await attention.intercept(bench.lab, entry)
    assert bench.events(ev.AttentionChecked) == []
    assert bench.lab.decoys.reveal(entry.id)[1] in entry.reason


async def test_what_the_policy_decides_by_itself_is_no_test_and_is_not_tried_again(bench: Bench) -> None:
    runtime, lab = bench.runtime, bench.lab
    for number in range(40):
        runtime.emit(ev.ApprovalRequested(bench.next(), "b-gated_deltanet", f"p{number}", lab.tier, "r", 9e9))
    seen = []
    while lab.decoys.due(runtime.state) and await attention.open_test(lab):
        entry = runtime.state.proposals[-1]
        runtime.emit(ev.RiskAssessed(entry.id, entry.program, lab.tier, []))
        runtime.emit(ev.ApprovalDecided(entry.id, entry.program, lab.tier, "approve", "policy", rule="allow"))
        assert await attention.intercept(lab, entry)
        seen.append(lab.decoys.reveal(entry.id)[0])
    assert sorted(seen) == sorted(fault.what for fault in faults.FAULTS)
    assert (runtime.state.caught, runtime.state.missed) == (0, 0)


async def test_no_program_is_shown_twice(bench: Bench) -> None:
    while await attention.open_test(bench.lab):
        assert len(bench.runtime.state.proposals) <= len(faults.FAULTS)
    programs = [entry.program for entry in bench.runtime.state.proposals]
    assert len(set(programs)) == len(programs) == len(faults.FAULTS)


async def test_a_sealed_experiment_of_which_nothing_is_known_is_refused(bench: Bench) -> None:
    entry = await bench.test()
    await bench.decide(entry, "approve")
    bench.lab.decoys = Decoys(bench.runtime.paths.root.parent)
    assert not Machine(bench.lab, entry.id).approved()
    assert await attention.intercept(bench.lab, entry)
    assert (entry.outcome, bench.runtime.state.missed) == ("rejected", 0) and "is sealed" in entry.reason


async def test_a_test_that_a_crash_left_half_opened_is_ended(bench: Bench) -> None:
    seal = bench.lab.decoys.seal("e0001", "a leak")
    bench.runtime.emit(ev.ExperimentOpened("e0001", "evolver", "b-gated_deltanet", seal=seal))
    await Loop(bench.lab, 3)._drive("e0001")
    entry = bench.runtime.state.experiments["e0001"]
    assert entry.outcome == "rejected" and not bench.events(ev.AgentCalled)


async def test_a_full_disk_opens_nothing_and_says_so(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(experiment: str, what: str = "") -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(bench.lab.decoys, "seal", full)
    assert not await Loop(bench.lab, 3)._open_next(room=True)
    assert bench.runtime.state.proposals == []
    assert bench.runtime.state.phase == "paused" and "No space left" in bench.runtime.state.phase_reason
