"""A plausible run, made up: every kind of event, in the order in which an engine would write them.

`history(n, seed)` gives the events, `records(...)` seals them into a chain in memory, and `write_run(...)` makes a whole
run directory with journal, blobs and curve files. The same arguments give the same run. For tests of everything that
reads a run: projection, audit, terminal, replay.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from store import events as ev
from store.blobs import Blobs
from store.config import RunConfig, dump
from store.folding import fold
from store.journal import GENESIS, Journal
from store.journal import seal as seal_record
from store.state import RunState

TASKS = ("recall", "copying", "parity", "byte-lm")
START = 1_800_000_000.0
TEST, NONCE = "e0001", "0a" * 16


class Step(NamedTuple):
    """One event with its moment (seconds since the epoch) and actor."""

    time: float
    actor: str
    event: ev.Event


def sha(text: str) -> str:
    """The blob name of a text."""
    return hashlib.sha256(text.encode()).hexdigest()


class _Story:
    """Tells one run; `texts` are the contents of all blobs that its events name."""

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)
        self.now = START
        self.steps: list[Step] = []
        self.texts: dict[str, str] = {}
        self.scores: dict[str, float] = {}
        self.curves: dict[str, tuple[str, str]] = {}

    def tell(self, event: ev.Event, actor: str = "engine", seconds: float = 0.5) -> None:
        self.now += self.draw.uniform(0.2, 1.0) * seconds
        self.steps.append(Step(round(self.now, 3), actor, event))

    def blob(self, text: str) -> str:
        self.texts[sha(text)] = text
        return sha(text)

    def arm(self, pid: int) -> None:
        self.tell(ev.EngineStarted(pid, "0.1.0", f"boot-{pid}"))
        self.tell(ev.RunArmed("L2", 4, 5.5, 31, 31))

    def program(self, name: str, revision: int = 0) -> str:
        return self.blob(f"class Mixer:\n    name = {name!r}\n    revision = {revision}\n")

    def agent(self, experiment: str, role: str) -> None:
        call = f"c{len(self.steps):05}"
        self.tell(ev.AgentCalled(call, experiment, role, "evolver", self.blob(f"prompt {call}")), f"agent:{role}")
        ok = self.draw.random() > 0.1
        reply = ev.AgentReplied(
            call, experiment, role, self.blob(f"reply {call}"), 0.4, ok, 900, 300, 0.002, "" if ok else "not JSON"
        )
        self.tell(reply, f"agent:{role}")

    def vet(self, experiment: str, program: str, passed: bool = True) -> None:
        gates = [ev.GateVerdict("static", True, "imports torch and math")]
        evidence = "no change of y[:64] after x[64:] was replaced" if passed else "y[31] changed by 0.7 after x[32:]"
        gates.append(ev.GateVerdict("causal", passed, evidence))
        report = self.blob(json.dumps([gate.evidence for gate in gates]))
        sizes: dict[str, Any] = {"parameters": 40_000 + len(experiment), "state_floats": 2048, "flops_per_token": 1.5e5}
        self.tell(
            ev.ProgramVetted(
                experiment, program, passed, gates, report, sha("s" + program), sha("f" + program), **sizes,
                cost_exponent=1.02, step_seconds=0.05, seconds=3.1,
            ),
            seconds=4,
        )

    def trial(self, experiment: str, program: str, seed: int, gain: float, cached: bool = False) -> None:
        name = f"{experiment}-s{seed}"
        points, scores = self.curve(gain)
        if not cached:
            self.tell(ev.TrialStarted(name, experiment, program, "probe", seed, "L2"))
            self.curves[name] = (points, scores)
        noise = self.draw.gauss(0, 0.01)
        tasks = [ev.TaskScore(task, 0.5 + gain / 20 + noise, 0.6, "accuracy") for task in TASKS]
        finished = ev.TrialFinished(
            name, experiment, program, "probe", seed, tasks, 201_000, 3.2e11, 128_000, 2048, 41.5, 44.25,
            sha("corpus"), sha(points), self.blob(f"result {name}"), cached,
        )
        self.tell(finished, seconds=0.5 if cached else 60)

    def curve(self, gain: float) -> tuple[str, str]:
        points, scores = [], []
        for task in TASKS:
            for step in range(0, 60, 10):
                loss = round(3.0 - gain / 10 - step / 40 + self.draw.gauss(0, 0.02), 4)
                point = {"task": task, "step": step, "steps": 60, "loss": loss, "seconds": step / 10}
                points.append(json.dumps({**point, "gradient_norm": 0.9}))
            scores.append(json.dumps({"task": task, "step": 60, "value": 0.6, "loss": 1.4}))
        return "\n".join(points) + "\n", "\n".join(scores) + "\n"

    def gate(self, experiment: str, program: str, asks: bool) -> str:
        self.tell(ev.RiskAssessed(experiment, program, "probe", [ev.Finding("cost", "low", "one trial", 0)], 45.0))
        if not asks:
            self.tell(ev.ApprovalDecided(experiment, program, "probe", "approve", "policy", rule="cheap"))
            return "approve"
        request = f"r{len(self.steps):05}"
        self.tell(ev.ApprovalRequested(request, experiment, program, "probe", "novel import", self.now + 3600))
        outcomes: tuple[ev.Decision, ...] = ("approve", "approve", "reject", "expire")
        decision = self.draw.choice(outcomes)
        who = "engine" if decision == "expire" else "person:ada"
        if self.draw.random() < 0.3:
            deferred = ev.ApprovalDecided(experiment, program, "probe", "defer", "person:ada", request, "tonight")
            self.tell(deferred, "person:ada")
        if decision in ("approve", "reject"):
            self.tell(ev.ApprovalVoted(request, "approve", "ada", program, "hasty", self.now + 6, 1.5, 0.2), "person:ada")
            self.tell(ev.ApprovalWithdrawn(request, "ada"), "person:ada")
            voted = ev.ApprovalVoted(request, decision, "ada", program, "looked at it", self.now + 5, 14.0, 1.0)
            self.tell(voted, "person:ada", 20)
        decided = ev.ApprovalDecided(experiment, program, "probe", decision, who, request, "looked at it", "novel import")
        self.tell(decided, who, 30)
        return decision

    def score(self, experiment: str, gain: float, seeds: int, parent: str) -> None:
        self.scores[experiment] = gain
        differences = [ev.TaskDifference(task, gain / 20, 0.01) for task in TASKS]
        low, high = (-1e9, 1e9) if seeds == 1 else (gain - 2.0, gain + 2.0)
        against = gain - self.scores[parent] if parent in self.scores else None
        self.tell(
            ev.ExperimentScored(
                experiment, "probe", round(gain, 4), low, high, seeds, differences, against,
                None if against is None else against - 2, None if against is None else against + 2, 5, sha("score"),
            )
        )

    def baseline(self, name: str, gain: float) -> None:
        experiment = f"b-{name}"
        program = self.program(name)
        self.tell(ev.ExperimentOpened(experiment, "baseline"))
        self.tell(ev.ProposalDrafted(experiment, name, "a known mixer", "reference", program))
        self.vet(experiment, program)
        for seed in range(2):
            self.trial(experiment, program, seed, gain, cached=seed == 1)
        self.score(experiment, gain, 2, "")
        self.tell(ev.ExperimentClosed(experiment, "ranked"))

    def experiment(self, number: int) -> None:
        """One proposal; its number decides which way it goes, so that ten of them go every way."""
        name = f"e{number:04}"
        parent = self.draw.choice(list(self.scores))
        origin: ev.Origin = "person" if number % 10 == 6 else "control" if number % 10 == 7 else "evolver"
        # One that is never launched was a test of attention from the beginning.
        seal = sha(f"{NONCE}:{name}:decoy") if name == TEST else ""
        opened = ev.ExperimentOpened(name, origin, parent, list(self.scores)[:2], number % 10 == 7, number, seal)
        self.tell(opened)
        self.agent(name, "researcher")
        program = self.program(name)
        drafted = ev.ProposalDrafted(
            name, f"Gated delta rule, variant {number}", f"{parent} forgets too early", "slower decay helps recall", program,
            [ev.Prediction("recall", "up", 0.02, "longer memory"), ev.Prediction("score", "same")],
            self.blob(f"genome {number}"), f"decay of {parent} × 0.9",
        )
        self.tell(drafted, "agent:researcher")
        if number % 10 == 1:
            self.tell(ev.ProposalDuplicate(name, parent, "exact"))
            self.tell(ev.ExperimentClosed(name, "duplicate", f"repeats {parent}"))
            return
        if number % 10 == 2:
            program = self.repaired(name, program)
        self.vet(name, program)
        if self.gate(name, program, asks=number % 10 in (3, 6)) != "approve":
            self.tell(ev.ExperimentClosed(name, "rejected", "refused at the gate"))
            return
        if number % 10 in (4, 5):
            self.lost_trial(name, program, killed=number % 10 == 4)
            if number % 10 == 5:
                self.tell(ev.ExperimentClosed(name, "failed", "diverged"))
                return
        gain = self.draw.gauss(0.3, 1.5)
        seeds = 3 if gain > 1 else 1
        for seed in range(seeds):
            self.trial(name, program, seed, gain)
        self.score(name, gain, seeds, parent)
        self.agent(name, "analyst")
        outcomes = [ev.PredictionOutcome("recall", "held" if gain > 0 else "not held", gain / 20)]
        report = self.blob(f"report {name}")
        self.tell(ev.ExperimentAnalysed(name, "The decay explains it.", [f"lesson of {name}"], outcomes, report))
        self.tell(ev.ExperimentClosed(name, "ranked"))

    def repaired(self, name: str, program: str) -> str:
        self.vet(name, program, passed=False)
        self.agent(name, "engineer")
        repaired = self.program(name, 1)
        self.tell(ev.ProgramRepaired(name, program, repaired, "the mask was missing", 1, self.blob(f"mended {name}")))
        return repaired

    def lost_trial(self, name: str, program: str, killed: bool) -> None:
        trial = f"{name}-s9"
        self.tell(ev.TrialStarted(trial, name, program, "probe", 9, "L2"))
        if killed:
            self.tell(ev.TrialParked(trial, name, "engine", "c" * 64, 1.5), seconds=5)
            self.tell(ev.TrialStarted(trial, name, program, "probe", 9, "L2", resumed=True), seconds=5)
            self.tell(ev.TrialKilled(trial, name, "engine", 3.5), seconds=10)
            return
        self.tell(ev.TrialAnomaly(trial, name, "divergence", "loss 3.1 → 88 in 20 steps"), seconds=10)
        self.tell(ev.TrialFailed(trial, name, "divergence", "loss 88 at step 40", name.endswith("15"), 7.5))

    def interlude(self) -> None:
        """What people and accidents do to a run between two experiments."""
        self.tell(ev.RunPaused("lunch"), "person:ada")
        self.tell(ev.RunResumed(), "person:ada", 600)
        self.tell(ev.RunFrozen(8), "person:ada")
        self.tell(ev.RunKilled("person:ada", self.now, "fan is loud", 8, True), "person:ada")
        self.tell(ev.RunRearmed("fan replaced"), "person:ada", 60)
        self.tell(ev.ArmingFailed("no user namespaces"))
        self.tell(ev.JournalRepaired("000001.jsonl", 117, len(self.steps)))
        self.arm(4343)
        self.tell(ev.RunParked("GPU needed"), "person:ada")
        self.tell(ev.RunResumed(), "person:ada")
        self.tell(ev.BudgetExceeded("cpu hours", 0.8, 1.0, False))
        self.tell(ev.ClockJumped(3600.0))
        self.tell(ev.LeaseLost(21.0, 2, True), "guard")
        self.tell(ev.PolicyAdopted(self.blob("version = 1"), "cautious", "ada", "models propose now"), "person:ada")
        self.tell(ev.SignersAdopted("", []))
        self.tell(ev.AutonomyChanged("A1", "an anomaly"), "engine")
        self.tell(ev.AutonomyChanged("A2", "looked into it"), "person:ada")
        self.tell(ev.QuestionAsked("b-linear_attention", "ada", "why so slow?"), "person:ada")
        self.tell(ev.ExperimentHeld("b-linear_attention", "wait for the others"), "person:ada")
        self.tell(ev.ExperimentReleased("b-linear_attention"), "person:ada")
        self.tell(ev.AttentionChecked("r00001", TEST, "ada", True, "imports os", NONCE))
        self.tell(ev.RunForked("history", "elder", 3, sha("head"), "b-linear_attention", "ada"), "person:ada")
        self.arm(4344)
        self.tell(ev.RunResumed(), "person:ada")
        self.tell(ev.NoteAdded("parity is at chance for all but two", "warning"), "person:ada")


def tell(experiments: int = 12, seed: int = 0, finished: bool = True) -> _Story:
    """A run of so many proposals, with its blobs and curves; ten or more contain every kind of event."""
    story = _Story(seed)
    story.tell(ev.RunCreated("history", ev.FORMAT, "0.1.0", story.blob(dump(RunConfig(name="history")))), "person:ada")
    story.arm(4242)
    story.tell(ev.RunResumed())
    story.baseline("gated_deltanet", 0.0)
    story.baseline("linear_attention", -2.0)
    for number in range(1, experiments + 1):
        story.experiment(number)
        if number == experiments // 2:
            story.interlude()
    if finished:
        story.tell(ev.RunStopped(f"{experiments} experiments are done", True))
        story.tell(ev.EngineStopped("finished"))
    return story


def history(experiments: int = 12, seed: int = 0, finished: bool = True) -> list[Step]:
    """The events of a run of so many proposals."""
    return tell(experiments, seed, finished).steps


def seal(steps: list[Step]) -> Iterator[ev.Record]:
    """The steps as records of one chain."""
    head = GENESIS
    for seq, step in enumerate(steps, start=1):
        record, _ = seal_record(seq, step.time, step.actor, step.event, head)
        head = record.hash
        yield record


def records(experiments: int = 12, seed: int = 0, finished: bool = True) -> list[ev.Record]:
    """A run as records, in memory."""
    return list(seal(history(experiments, seed, finished)))


def state(experiments: int = 12, seed: int = 0, finished: bool = True) -> RunState:
    """A run, folded."""
    folded = RunState()
    for record in records(experiments, seed, finished):
        fold(folded, record)
    return folded


def write_run(run: Path, experiments: int = 12, seed: int = 0, finished: bool = True, segment_bytes: int = 1 << 26) -> Path:
    """A whole run directory: run.toml, journal, blobs, curves. Returns `run`."""
    story = tell(experiments, seed, finished)
    run.mkdir(mode=0o700, parents=True, exist_ok=True)
    (run / "run.toml").write_text(dump(RunConfig(name="history")))
    blobs = Blobs(run / "blobs")
    for text in story.texts.values():
        blobs.put(text)
    for trial, (points, scores) in story.curves.items():
        folder = run / "trials" / trial
        (folder / "work").mkdir(parents=True)
        (folder / "work" / "points.jsonl").write_text(points)
        (folder / "scores.jsonl").write_text(scores)
    moments = iter([step.time for step in story.steps])
    with Journal.open(run / "journal", clock=lambda: next(moments), segment_bytes=segment_bytes) as journal:
        for number, step in enumerate(story.steps):
            journal.append(step.event, step.actor)
            if number % 20 == 0:
                journal.wait(journal.seq)
    return run
