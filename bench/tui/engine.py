"""A stand-in for an engine: the real socket, the real messages, a made-up run of any size, storms on demand.

`python -m bench.tui.engine RUN [--experiments N] [--events N] [--rows N] [--lines N] [--delay S]`. Reads orders from
its input, one a line: `storm EVENTS_PER_SECOND`, `calm`. Prints `ready` when it listens.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from engine.client import protocol
from engine.client.rundir import RunPaths, atomic_write, lock_content
from engine.server import Server
from engine.snapshots import Snapshots
from store import events as ev
from store.folding import fold
from store.state import RunState
from tests.store import history

PUBLISH_SECONDS = 0.05
CALLS_OF_LONG = 100
"""The longest transcript is spread over so many calls."""


class StandIn:
    """A run that was made up, and what it answers."""

    def __init__(self, experiments: int, events: int, rows: int, lines: int) -> None:
        self.state = _up_to_now(experiments)
        self.draw = random.Random(2)
        self.snapshots = Snapshots()
        self.number = len(self.state.experiments)
        for event in self._story(f"e{self.number:04}x"):  # one proposal is at work, so that something is followed
            if not isinstance(event, ev.TrialFinished | ev.ExperimentScored | ev.ExperimentClosed):
                self.record(event)
        self.state.seq = max(events, self.state.seq)
        self.board = [self._board_row(rank) for rank in range(1, rows + 1)]
        text = "\n".join(f"line {number} of what the agent said" for number in range(lines // CALLS_OF_LONG))
        self.turns = msgspec.json.encode([
            protocol.TranscriptEntry("researcher", "evolver", history.START + turn, "", "", f"turn {turn}\n{text}",
                                     True, 1)
            for turn in range(CALLS_OF_LONG if lines else 2)
        ]).decode()  # fmt: skip

    def record(self, event: ev.AnyEvent) -> ev.Record:
        """The next record, folded."""
        record = ev.Record(self.state.seq + 1, time.time(), "engine", event, "", f"{self.state.seq:064x}")
        fold(self.state, record)
        self.snapshots.touch(record)
        return record

    def _story(self, name: str) -> Iterator[ev.AnyEvent]:
        """One proposal from its beginning to its end, and what is remarked in between."""
        program = history.sha(name)
        yield ev.ExperimentOpened(name, "evolver", "b-gated_deltanet")
        for role in ("researcher", "engineer", "analyst"):
            yield ev.AgentCalled(f"{name}-{role}", name, role, "evolver", program)
            yield ev.AgentReplied(f"{name}-{role}", name, role, program, 0.4)
        yield ev.ProposalDrafted(name, f"Gated delta rule {name}", "forgets too early", "slower decay", program)
        gates = [ev.GateVerdict(gate, True, f"{gate}: nothing moved") for gate in ("static", "shapes", "causal")]
        yield ev.ProgramVetted(name, program, True, gates, program, parameters=40_000, state_floats=2_048)
        yield ev.RiskAssessed(name, program, "probe", [ev.Finding("cost", "low", "one trial", 0)], 45.0)
        yield ev.ApprovalDecided(name, program, "probe", "approve", "policy", rule="cheap")
        yield ev.TrialStarted(f"{name}-s0", name, program, "probe", 0, "L2")
        for number in range(180):  # most of a storm is talk
            yield ev.NoteAdded(f"{name}: remark {number} of {self.draw.random():.6f}", "info")
        tasks = [ev.TaskScore(task, 0.5, 0.6, "accuracy") for task in history.TASKS]
        yield ev.TrialFinished(f"{name}-s0", name, program, "probe", 0, tasks, 201_000, 3.2e11, 128_000, 2048, 41.5,
                               44.2, program, program, program)  # fmt: skip
        gain = self.draw.gauss(0, 1)
        differences = [ev.TaskDifference(task, gain / 20, 0.01) for task in history.TASKS]
        yield ev.ExperimentScored(name, "probe", gain, gain - 1, gain + 1, 2, differences, gain, gain - 1, gain + 1, 4)
        yield ev.ExperimentClosed(name, "ranked")

    def stories(self) -> Iterator[ev.AnyEvent]:
        """Proposals without end."""
        while True:
            self.number += 1
            yield from self._story(f"e{self.number:04}")

    def frames(self) -> Iterator[protocol.Message]:
        """Live frames of one publishing interval."""
        now = time.time()
        for trial in self.state.running_trials[-4:]:
            step = int(now * 100) % 400
            points = [protocol.CurvePoint("recall", step + n, self.draw.uniform(1, 3)) for n in range(5)]
            yield protocol.LiveCurve(trial.id, trial.experiment, "recall", step, 400, step / 400, points, [], 9.0, 20.0)
            yield protocol.LiveStep(trial.experiment, "training seed 0", now - 3)
            yield protocol.LiveText(trial.experiment, "engineer", f"{self.draw.random()} is what I think of it\n")

    def load(self) -> protocol.LiveLoad:
        """The machine's load."""
        busy = self.draw.random()
        return protocol.LiveLoad(busy, (3 + busy) * 2**30, 8 * 2**30, 41 * 2**30, 2, 2, 1.5, strays=[])

    # --- answers ---------------------------------------------------------------------------------------------------

    def _board_row(self, rank: int) -> protocol.BoardRow:
        score = 5 - rank / 1000
        gains = [protocol.TaskGain(task, score / 20, 0.01) for task in history.TASKS]
        return protocol.BoardRow(f"e{rank:05}", score, rank, f"Gated delta rule, variant {rank}", "evolver",
                                 "b-gated_deltanet", low=score - 1, high=score + 1, seeds=2, parameters=40_000,
                                 state_floats=2_048, cpu_seconds=44.0, outcome="ranked", tasks=gains)  # fmt: skip

    async def answer(self, message: protocol.Command | protocol.Query) -> protocol.Answer:
        """What a client asked for."""
        if isinstance(message, protocol.Command):
            return protocol.Answer(message.id, True)
        empty: dict[str, object] = {
            "curve": protocol.Curve([], []), "sql": protocol.Table([], []), "audit": protocol.AuditPage([]),
            "verify": protocol.Verified(1, "", 0, 0), "output": "", "cognition": [],
        }  # fmt: skip
        if message.name == "blob":
            return protocol.Answer(message.id, True, text="a text")
        if message.name == "transcript":
            return protocol.Answer(message.id, True, text=self.turns)
        found = empty.get(message.name)
        if message.name == "leaderboard":
            rows = self.board[::-1] if message.reverse else self.board
            found = protocol.BoardPage(rows[message.offset : message.offset + message.limit], len(rows))
        return protocol.Answer(message.id, True, text=msgspec.json.encode(found).decode())


def _up_to_now(experiments: int) -> RunState:
    """A run whose last event is from just now."""
    steps = history.history(experiments, 1, finished=False)
    shift = time.time() - 5 - steps[-1].time
    state = RunState()
    for record in history.seal([step._replace(time=step.time + shift) for step in steps]):
        fold(state, record)
    return state


async def serve(root: Path, run: StandIn, delay: float) -> None:
    """Listen, and do what is ordered on the input."""
    paths = RunPaths(root)
    inner = paths.socket.with_suffix(".near") if delay else paths.socket
    server = Server(root.name, inner, paths.token, lambda: run.state, run.answer,
                    lambda: run.snapshots.encode(run.state))  # fmt: skip
    await server.start()
    if delay:
        from bench.tui.far import far_line

        await far_line(paths.socket, inner, delay)
    orders = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    rate = [0.0]
    storming = asyncio.create_task(_storm(server, run, rate))
    print("ready", flush=True)
    while line := (await orders.readline()).decode().split():
        rate[0] = float(line[1]) if line[0] == "storm" else 0.0
    storming.cancel()
    await server.close()


async def _storm(server: Server, run: StandIn, rate: list[float]) -> None:
    """Publish as the engine does, as many events as are wanted; the load once a second in any case."""
    loop = asyncio.get_running_loop()
    stories, owed, last, told = run.stories(), 0.0, loop.time(), 0.0
    while True:
        await asyncio.sleep(PUBLISH_SECONDS)
        now = loop.time()
        owed, last = owed + (now - last) * rate[0], now
        if now - told >= 1.0:
            told = now
            server.live(run.load())
        if rate[0]:
            count, owed = int(owed), owed % 1
            server.publish([run.record(next(stories)) for _ in range(count)])
            for frame in run.frames():
                server.live(frame)


def main() -> None:
    """Make the run, then serve it until the input ends."""
    parser = argparse.ArgumentParser(prog="python -m bench.tui.engine", description=__doc__)
    parser.add_argument("run", type=Path)
    for name, usual in (("experiments", 50), ("events", 0), ("rows", 200), ("lines", 0)):
        parser.add_argument(f"--{name}", type=int, default=usual)
    parser.add_argument("--delay", type=float, default=0.0)
    options = parser.parse_args()
    paths = RunPaths(options.run)
    paths.create()
    paths.config.touch()
    atomic_write(paths.lock, lock_content())
    run = StandIn(options.experiments, options.events, options.rows, options.lines)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(options.run, run, options.delay))


if __name__ == "__main__":
    main()
