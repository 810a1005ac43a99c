"""A made-up engine for the terminal's tests: a state, live frames, answers, and a record of what was ordered."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
import zlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
from textual.driver import Driver

from asi_tui.app import AsiApp
from asi_tui.stop import EmergencyStop
from engine.client import protocol
from engine.client.connection import Connected, Lost, NotConnected
from engine.client.freeze import FreezeReport
from engine.client.kill import KillReport, Row
from store import events as ev
from store.audit import describe
from store.folding import fold
from store.state import RunState

PROGRAM = '''"""A gated delta rule."""

import torch
from torch import nn


class Mixer(nn.Module):
    def __init__(self, d_model: int, n_heads: int, layer_idx: int, max_len: int):
        super().__init__()
        self.project = nn.Linear(d_model, 3 * d_model)

    def forward(self, x):
        return self.project(x)[..., : x.shape[-1]]
'''

TITLES = (
    "Gated delta rule with a wider short convolution",
    "Linear attention with exponential feature map",
    "Delta product of two Householder steps",
    "Simple GLA, decay from the values",
    "Sliding window beside a delta rule",
    "Gated DeltaNet with beta up to two",
)


class Fake:
    """Builds a run event by event; `line` is the connection the app talks to."""

    def __init__(self, text: str = "") -> None:
        self.text = text
        self.now = time.time() - 3_000
        self.seq = 0
        self.state = RunState()
        self.blobs: dict[str, str] = {}
        self.records: list[ev.Record] = []
        self.orders: list[tuple[str, dict[str, Any]]] = []
        self.looks: list[str] = []
        self.asked: list[tuple[str, str, dict[str, Any]]] = []
        self.queue: asyncio.Queue[Any] = asyncio.Queue()
        self.connected = True
        self.mute = False
        self.says: dict[str, protocol.Answer] = {}
        self.refuses: dict[str, str] = {}

    def record(self, event: ev.AnyEvent, after: float = 1.0) -> ev.Record:
        """The next record, folded into the state here too."""
        self.seq += 1
        self.now += after
        record = ev.Record(self.seq, self.now, "engine", event, "", f"h{self.seq}")
        self.records.append(record)
        fold(self.state, record)
        return record

    def send(self, *events: ev.AnyEvent) -> None:
        """Records for an attached app."""
        self.queue.put_nowait(protocol.Records([self.record(event) for event in events]))

    def blob(self, name: str, content: str) -> str:
        """A blob under a readable hash."""
        sha = (name.encode().hex() * 8)[:64]
        self.blobs[sha] = content
        return sha

    # --- the connection --------------------------------------------------------------------------------------------

    async def messages(self) -> AsyncIterator[Any]:
        """Connected, the whole state, then what the test sends."""
        if self.mute:
            yield Lost("no engine is running")
        else:
            yield Connected(4242)
            copy = msgspec.json.decode(msgspec.json.encode(self.state), type=RunState)
            yield protocol.Snapshot(copy)
            for message in self.live():
                yield message
        while True:
            yield await self.queue.get()

    async def command(self, name: str, **fields: Any) -> protocol.Answer:
        """Remember the order."""
        if not self.connected:
            raise NotConnected("not connected to the engine")
        if name == "look":  # says what is on the screen and orders nothing
            self.looks.append(str(fields["target"]))
            return protocol.Answer(1, True)
        self.orders.append((name, fields))
        if name in self.refuses:
            return protocol.Answer(1, False, error=self.refuses[name])
        return self.says.get(name, protocol.Answer(1, True))

    async def query(self, name: str, target: str = "", **fields: Any) -> protocol.Answer:
        """Answer from the state; what a test put into `says` goes first."""
        if not self.connected:
            raise NotConnected("not connected to the engine")
        self.asked.append((name, target, fields))
        if name in self.says:
            return self.says[name]
        answers = {"blob": self._blob, "curve": self._curve, "transcript": self._transcript}
        if name in answers:
            return protocol.Answer(1, True, text=answers[name](target))
        more: dict[str, Callable[..., str]] = {"leaderboard": self._board, "sql": self._sql, "audit": self._audit, "verify": self._verify,
                "output": self._output, "cognition": self._cognition, "policy": self._policy}  # fmt: skip
        try:
            return protocol.Answer(1, True, text=more[name](target, **fields))
        except sqlite3.Error as error:
            return protocol.Answer(1, False, error=str(error))

    def _sql(self, target: str, limit: int = 1_000, **_: Any) -> str:
        """One statement to a table like the engine's leaderboard, in another database's dialect."""
        found = _database(self._board_rows()).execute(target)
        rows = [["NULL" if cell is None else str(cell) for cell in line] for line in found.fetchmany(limit + 1)]
        columns = [str(column[0]) for column in found.description]
        return msgspec.json.encode(protocol.Table(columns, rows[:limit], len(rows) > limit)).decode()

    def _audit(self, target: str, where: str = "", offset: int = 0, limit: int = 200, **_: Any) -> str:
        lines = [
            protocol.AuditLine(record.seq, record.time, record.actor, record.data.kind,
                               getattr(record.data, "experiment", ""), describe(record), record.hash)
            for record in reversed(self.records)
        ]  # fmt: skip
        found = [
            line for line in lines
            if target in ("", line.experiment) and (not offset or line.seq < offset)
            and all(word in f"{line.kind} {line.actor} {line.text}".lower() for word in where.lower().split())
        ]  # fmt: skip
        before = found[limit - 1].seq if len(found) > limit else 0
        return msgspec.json.encode(protocol.AuditPage(found[:limit], before)).decode()

    def _verify(self, _target: str, **_: Any) -> str:
        return msgspec.json.encode(protocol.Verified(self.seq, f"h{self.seq}", len(self.blobs), 4)).decode()

    def _output(self, target: str, **_: Any) -> str:
        return json.dumps(f"step 1 of {target}\n{self.text}\nstep 2")

    def _cognition(self, _target: str, where: str = "", **_: Any) -> str:
        known = [
            protocol.Knowledge(f"{one.id}-l{number}", one.title, lesson, f"this run, {one.id}", where and "word match")
            for one in self.state.experiments.values() for number, lesson in enumerate(one.lessons)
        ]  # fmt: skip
        return msgspec.json.encode(known).decode()

    def _policy(self, target: str, **_: Any) -> str:
        text = 'version = 1\nname = "cautious"\n\n[[rule]]\nname = "costs"\nthen = "ask"\n'
        rule = '[[rule]]\nname = "like r2"\norigin = ["evolver"]\nthen = "allow"\n' if target else ""
        return msgspec.json.encode(protocol.PolicyView("cautious", "c0de" * 16, text, rule)).decode()

    def _blob(self, target: str) -> str:
        return self.blobs.get(target, "nothing")

    def _curve(self, target: str) -> str:
        trial = self.state.trials.get(target)
        seed = (zlib.crc32(target.encode()) % 7) / 40
        losses = [("recall", step, 0.9 + 3.2 / (1 + step / 45) + seed + (step * 7919 % 13) / 90) for step in
                  range(0, 160 if trial and trial.status == "running" else 400, 4)]  # fmt: skip
        scores = [("recall", step, min(0.97, step / 420 + seed)) for step in range(0, 400, 40)]
        return json.dumps({"losses": losses, "scores": scores})

    def _transcript(self, target: str) -> str:
        turns = []
        for call in self.state.calls.values():
            if call.experiment == target:
                text = self.blobs.get(call.reply, "")
                turns.append({"role": call.role, "agent": call.agent, "time": call.started, "prompt": call.prompt,
                              "reply": call.reply, "text": text, "ok": call.ok, "seconds": call.seconds})  # fmt: skip
        return json.dumps(turns)

    def _board_rows(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        for rank, one in enumerate(self.state.ranking(), start=1):
            scored = one.scored
            assert scored is not None
            rows.append({
                "rank": rank, "experiment": one.id, "title": one.title, "origin": one.origin, "parent": one.parent,
                "control": one.control, "score": scored.score, "low": scored.low, "high": scored.high,
                "seeds": scored.seeds, "against_parent": scored.against_parent,
                "against_parent_low": scored.against_parent_low, "against_parent_high": scored.against_parent_high,
                "parameters": 201_344 + 9_000 * (rank % 4), "state_floats": one.state_floats, "training_flops": 3.4e12,
                "tokens_per_second": 8_300.0 - 200 * rank, "cpu_seconds": 44.2, "tier": "probe", "program": one.program,
                "tasks": [{"task": t.task, "difference": t.difference, "noise": t.noise} for t in scored.tasks],
            })  # fmt: skip
        return rows

    def _board(
        self, target: str, reverse: bool = False, where: str = "", offset: int = 0, limit: int = 200, **_: Any
    ) -> str:
        rows = self._board_rows()
        if where:
            let_through = _database(rows).execute(f"SELECT experiment FROM leaderboard WHERE ({where})").fetchall()
            names = {name for name, in let_through}
            rows = [one for one in rows if one["experiment"] in names]
        most_first = target in ("score", "low", "seeds", "against_parent", "tokens_per_second")
        rows.sort(key=lambda one: one[target] if one[target] is not None else -1e9, reverse=most_first)
        rows = rows[::-1] if reverse else rows
        return json.dumps({"rows": rows[offset : offset + limit], "total": len(rows)})

    # --- a run -----------------------------------------------------------------------------------------------------

    def start(self) -> Fake:
        """Created, armed, running: nothing else yet."""
        self.record(ev.RunCreated("quiet-heron", 1, "0.1.0", ""))
        self.record(ev.EngineStarted(4242, "0.1.0", "boot"))
        self.record(ev.RunArmed("L2", 48, 12.4, 31, 31))
        self.record(ev.RunResumed())
        return self

    def propose(self, name: str, index: int, parent: str = "") -> str:
        """One drafted proposal; returns its program."""
        title = self.text or TITLES[index % len(TITLES)]
        source = PROGRAM.replace("3 *", f"{3 + index} *") + f"# {self.text}\n"
        program = self.blob(f"p{name}", source)
        self.record(ev.ExperimentOpened(name, "evolver", parent))
        call = f"call-{name}"
        self.record(ev.AgentCalled(call, name, "researcher", "evolver", self.blob(f"q{name}", f"Propose. {self.text}")))
        reply = json.dumps({"title": title, "motivation": self.text or "The parent forgets too early.",
                            "program": source})  # fmt: skip
        self.record(ev.AgentReplied(call, name, "researcher", self.blob(f"r{name}", reply), 0.42))
        self.record(ev.ProposalDrafted(
            name, title, self.text or "The parent forgets too early: its decay is the same for every channel.",
            self.text or "A decay per channel keeps what recall needs and drops the rest.", program,
            [ev.Prediction("recall", "up", 0.05, self.text or "longer memory"), ev.Prediction("byte-lm", "same")], "",
            self.text or "decay: scalar → per channel",
        ))  # fmt: skip
        return program

    def vet(self, name: str, program: str) -> None:
        """All gates passed."""
        gates = [ev.GateVerdict(gate, True, self.text or f"{gate}: nothing moved at t=17, 64, 128; largest error 0")
                 for gate in ("static", "shapes", "causal", "batch", "prefix", "stateless", "complexity")]  # fmt: skip
        self.record(ev.ProgramVetted(name, program, True, gates, "", parameters=41_216, state_floats=2_048,
                                     flops_per_token=1.6e5, cost_exponent=1.03, step_seconds=0.04))  # fmt: skip

    def train(self, name: str, program: str, seed: int, finish: bool = True) -> None:
        """One trial."""
        trial = f"{name}-s{seed}"
        self.record(ev.TrialStarted(trial, name, program, "probe", seed, "L2"))
        if finish:
            tasks = [ev.TaskScore(task, 0.6, 0.61, "accuracy") for task in ("recall", "parity", "byte-lm")]
            self.record(ev.TrialFinished(trial, name, program, "probe", seed, tasks, 201_344, 3.4e12, 400_000, 2_048,
                                         44.2, 47.9, "d", "p", "r"), 40)  # fmt: skip

    def score(self, name: str, value: float, half: float, seeds: int, against: float | None = None) -> None:
        """A score with an interval."""
        low, high = (value - half, value + half) if seeds > 1 else (-1e9, 1e9)
        tasks = [ev.TaskDifference("recall", value / 50, 0.02), ev.TaskDifference("byte-lm", value / 90, 0.011)]
        self.record(ev.ExperimentScored(name, "probe", value, low, high, seeds, tasks, against,
                                        None if against is None else against - half,
                                        None if against is None else against + half, 4))  # fmt: skip

    def busy(self) -> Fake:
        """A run in full swing, with everything that screens can show."""
        self.start()
        for number, title in enumerate(("gated_deltanet", "linear_attention", "softmax")):
            name = f"b{number}"
            program = self.blob(f"p{name}", PROGRAM)
            self.record(ev.ExperimentOpened(name, "baseline"))
            self.record(ev.ProposalDrafted(name, title, "", "", program))
            self.vet(name, program)
            for seed in range(4 if number == 0 else 1):
                self.train(name, program, seed)
            self.score(name, (0.0, -2.1, 1.4)[number], 0.5, 3)
            self.record(ev.ExperimentClosed(name, "ranked"))
        for index, (value, half, seeds) in enumerate(((1.82, 0.4, 3), (-0.66, 0.5, 2), (0.31, 0.9, 2), (0.9, 0.0, 1))):
            name = f"e{index + 1:04}"
            program = self.propose(name, index, "b0" if index < 2 else "e0001")
            self.vet(name, program)
            self.record(ev.ApprovalDecided(name, program, "probe", "approve", "policy", rule="cheap"))
            self.train(name, program, 0)
            self.score(name, value, half, seeds, value - 0.2)
            self.record(ev.ExperimentAnalysed(name, self.text or "Recall rose, the byte LM did not.",
                        [self.text or "A decay per channel helps recall."],
                        [ev.PredictionOutcome("recall", "held" if value > 0 else "not held", value / 50)]))  # fmt: skip
            self.record(ev.ExperimentClosed(name, "ranked"))
        self._in_flight()
        return self

    def _in_flight(self) -> None:
        for index, seed in ((4, 0), (5, 1)):
            name = f"e{index + 1:04}"
            program = self.propose(name, index, "e0001")
            self.vet(name, program)
            self.record(ev.ApprovalDecided(name, program, "probe", "approve", "policy", rule="cheap"))
            self.train(name, program, seed, finish=False)
        program = self.propose("e0007", 6, "e0001")
        self.vet("e0007", program)
        severe = [ev.Finding("capability", "high", self.text or "imports ctypes", 3),
                  ev.Finding("cost", "low", self.text or "twice the parent's time")]  # fmt: skip
        self.record(ev.RiskAssessed("e0007", program, "probe", severe, 96.0))
        rule = self.text or "capability"
        self.record(ev.ApprovalRequested("r1", "e0007", program, "probe", rule, time.time() + 3_000))
        program = self.propose("e0008", 7, "e0003")
        self.vet("e0008", program)
        self.record(ev.RiskAssessed("e0008", program, "probe", [ev.Finding("cost", "medium", "slow")], 96.0))
        self.record(ev.ApprovalRequested("r2", "e0008", program, "probe", "cost", time.time() + 3_000))
        self.record(ev.ExperimentOpened("e0009", "evolver", "e0001"))
        self.record(ev.NoteAdded(self.text or "parity is at chance for all but two", "warning"))
        self.now = time.time()

    def live(self) -> list[Any]:
        """Live frames for the trials that run."""
        out: list[Any] = [protocol.LiveLoad(0.83, 3.1 * 2**30, 7.8 * 2**30, 41 * 2**30, 2, 2, 1.5)]
        for trial in self.state.running_trials:
            points = [protocol.CurvePoint("recall", step, 0.9 + 3.2 / (1 + step / 30)) for step in range(0, 160, 4)]
            scores = [protocol.CurvePoint("recall", step, step / 400) for step in range(0, 160, 40)]
            curve = protocol.LiveCurve(trial.id, trial.experiment, "recall", 160, 400, 0.43, points, scores, 9.3, 26.0)
            out.append(curve)
        for found in self.state.experiments.values():
            if found.open:
                out.append(protocol.LiveStep(found.id, self.text or "writing the proposal", time.time() - 3))
                out.append(protocol.LiveText(found.id, "engineer", self.text or "reading the parent's program …\n"))
        return out


def _database(rows: list[dict[str, Any]]) -> sqlite3.Connection:
    """The rows of a leaderboard as a table that can be asked."""
    database = sqlite3.connect(":memory:")
    names = [name for name in (rows[0] if rows else {"experiment": ""}) if name != "tasks"]
    database.execute(f"CREATE TABLE leaderboard ({', '.join(names)})")
    marks = ", ".join("?" for _ in names)
    database.executemany(f"INSERT INTO leaderboard VALUES ({marks})", [[row[name] for name in names] for row in rows])
    return database


def frozen(_root: Path) -> FreezeReport:
    """A freeze that froze three processes."""
    return FreezeReport([11, 12, 13], 2.4, True, [])


def killed(root: Path, **_: Any) -> KillReport:
    """A kill that killed and proved it."""
    rows = [Row("trial e0005-s0", [11, 12], 11.2, "namespace init reaped, namespace empty", True),
            Row("engine", [4242], 1.3, "pidfd readable", True)]  # fmt: skip
    return KillReport(str(root), True, rows, [], 14.8, frozenset(), frozenset())


def stop_button(root: Path, **changes: Any) -> EmergencyStop:
    """A stop button that touches nothing."""
    parts: dict[str, Any] = {"freeze": frozen, "latch": lambda *_: "", "kill": killed, "look_again": lambda _: set()}
    return EmergencyStop(root, "person:ada", **{**parts, **changes})


def app_for(fake: Fake, root: Path | None = None, driver_class: type[Driver] | None = None) -> AsiApp:
    """The real app on a made-up engine."""
    root = root or Path("/nowhere/quiet-heron")
    return AsiApp(root, fake, stop_button(root), driver_class)
