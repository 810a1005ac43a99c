"""A run in plain lines: for pipes, `--headless`, dumb terminals and screen readers. One line per event that matters.

Each line is complete in itself: the time, who, what happened, and in words what it means for the run. Nothing is drawn,
nothing is written over, and where a person is asked, the line says how to answer.
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

from asi_tui.blind import Me, is_sealed
from asi_tui.commands.common import DONE, FAILED, KILLED, NOT_RUNNING, login
from asi_tui.safe import clean, to_ascii
from asi_tui.terminals import needs_ascii
from asi_tui.words import plural, span
from engine.client import protocol
from engine.client.connection import Connected, Connection, Lost
from engine.client.launch import last_line
from engine.client.records import read_latch
from engine.client.rundir import RunPaths, engine_pid
from store import events as ev
from store.audit import describe
from store.folding import fold
from store.state import Phase, Request, RunState

QUIET = (ev.AgentCalled, ev.AgentReplied, ev.EngineStarted, ev.RiskAssessed, ev.ExperimentOpened)
PROGRESS_SECONDS = 15.0
LONGEST = 400

PHASES: dict[Phase, str] = {
    "created": "starting, nothing is armed yet",
    "armed": "armed, the kill path is proved",
    "running": "running",
    "paused": "paused: running trials finish, nothing new starts",
    "frozen": "frozen: every trial is stopped in place",
    "parked": "parked: trials have left the device",
    "stopped": "stopped",
    "finished": "finished",
    "killed": "killed: nothing may start until it is re-armed",
}
"""A state, for somebody who sees no header."""


def who(actor: str) -> str:
    """`person:ada` as `ada`, `agent:researcher` as `researcher`; the engine as itself."""
    return clean(actor.partition(":")[2] or actor, 60)


def how_to_answer(request: Request, run: str, now: float) -> str:
    """What a person can type about a request."""
    left = f"; it expires in {span(request.expires - now)}" if request.expires > now else ""
    name = clean(request.id, 40)
    return (
        f"answer: asi approve {name} --run {run}, or asi defer {name} --run {run}, "
        f"or asi reject {name} --run {run} --reason '…'{left}"
    )


class _Follower:
    """Prints what happens; knows how the run ended."""

    def __init__(self, root: Path, progress: float = PROGRESS_SECONDS) -> None:
        self.root = root
        self.state = RunState()
        self.code: int | None = None
        self.curves: dict[str, protocol.LiveCurve] = {}
        self.last_line = time.monotonic()
        self._progress = progress
        self._said = ""
        self._ascii = needs_ascii()

    def line(self, when: float, text: str) -> None:
        """One line, inert, with its time."""
        text = f"{time.strftime('%T', time.localtime(when))}  {clean(text, LONGEST)}"
        print(to_ascii(text) if self._ascii else text, flush=True)
        self.last_line = time.monotonic()

    def take(self, message: object) -> None:
        """Take one message of the engine."""
        if isinstance(message, protocol.Snapshot):
            self.state = message.state
            self.line(time.time(), self._summary())
            for request in self.state.pending:
                self._ask(request, time.time())
        elif isinstance(message, protocol.Records):
            for record in message.records:
                if record.seq > self.state.seq:
                    before = self.state.phase
                    self.state = fold(self.state, record)
                    self._record(record, before)
        elif isinstance(message, protocol.LiveCurve):
            self.curves[message.trial] = message

    def _record(self, record: ev.Record, before: Phase) -> None:
        event = record.data
        if isinstance(event, ev.ApprovalVoted | ev.ApprovalWithdrawn):
            request = self.state.requests.get(event.request)
            if request is not None and is_sealed(request, Me(login(), {})):
                return self.line(record.time, f"{event.request}: an answer, which is told once you have given yours")
        if not isinstance(event, QUIET):
            name, text = who(record.actor), describe(record)
            if not text.startswith(f"{name} "):
                text = f"{name}: {text}"
            if self.state.phase != before:
                text += f"; the run is now {PHASES[self.state.phase]}"
            self.line(record.time, text)
        if isinstance(event, ev.ApprovalRequested) and event.request in self.state.requests:
            self._ask(self.state.requests[event.request], record.time)
        if isinstance(event, ev.RunStopped):
            self.code = DONE
        elif isinstance(event, ev.ArmingFailed):
            self.code = FAILED

    def _ask(self, request: Request, when: float) -> None:
        found = self.state.experiments.get(request.experiment)
        title = f" “{clean(found.title, 80)}”" if found is not None and found.title else ""
        what = f"{clean(request.experiment, 40)}{title} at {request.tier}, rule {clean(request.rule, 80)}"
        self.line(when, f"waits for you: {what}; {how_to_answer(request, self.root.name, time.time())}")

    def progress(self) -> None:
        """A line on running trials when nothing else has been said for a while, and it is not the same again."""
        if not self._progress or time.monotonic() - self.last_line < self._progress:
            return
        alive = {trial.id for trial in self.state.running_trials}
        self.curves = {trial: curve for trial, curve in self.curves.items() if trial in alive}
        parts = [
            f"{curve.trial} {curve.task} step {curve.step} of {curve.steps}, {curve.done:.0%} done"
            for curve in self.curves.values()
        ]
        text = "; ".join([self._summary(), *parts])
        if text != self._said:
            self._said = text
            self.line(time.time(), text)

    def _summary(self) -> str:
        state = self.state
        closed = sum(not entry.open for entry in state.proposals)
        waiting = f", {plural(len(state.pending), 'approval')} waiting" if state.pending else ""
        training = f", {plural(len(state.running_trials), 'trial')} running" if state.running_trials else ""
        return f"{state.phase}: {plural(len(state.proposals), 'proposal')}, {closed} closed{training}{waiting}"


async def _follow(root: Path, until_end: bool, progress: float) -> int:
    follower = _Follower(root, progress)

    async def ticker() -> None:
        while True:
            await asyncio.sleep(1.0)
            follower.progress()

    ticking = asyncio.create_task(ticker())
    try:
        async for message in Connection(root).messages():
            if isinstance(message, Connected):
                text = f"attached to the engine of {root.name} (pid {message.pid}); Ctrl+C detaches"
                follower.line(time.time(), text)
            elif isinstance(message, Lost):
                if follower.code is not None:
                    return follower.code
                if engine_pid(root) is None:
                    return _ended(root, follower, message)
            else:
                follower.take(message)
                if follower.code is not None and until_end and follower.code != DONE:
                    return follower.code
    finally:
        ticking.cancel()
    return DONE


def _ended(root: Path, follower: _Follower, lost: Lost) -> int:
    if read_latch(root) is not None:
        follower.line(time.time(), "the run was killed")
        return KILLED
    try:
        words = last_line(RunPaths(root).log).removeprefix("asi: ")
    except OSError:
        words = ""
    follower.line(time.time(), f"the engine is gone ({words or lost.reason}); go on with: asi run {root.name}")
    return NOT_RUNNING


def follow(root: Path, until_end: bool, progress: float = PROGRESS_SECONDS) -> int:
    """Follow a run until it ends; returns the exit code. Ctrl+C detaches.

    Args:
        root: the run directory.
        until_end: whether a failed start ends it too.
        progress: seconds of silence after which a line says how far the trials are; 0 for none.
    """
    try:
        return asyncio.run(_follow(root, until_end, progress))
    except KeyboardInterrupt:
        print(f"\ndetached; the engine goes on. asi attach {root.name} | asi stop {root.name}", file=sys.stderr)
        return DONE
