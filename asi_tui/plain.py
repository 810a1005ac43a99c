"""A run in plain lines: for pipes, `--headless`, dumb terminals and screen readers. One line per event that matters."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

from asi_tui.commands.common import DONE, FAILED, KILLED, NOT_RUNNING
from asi_tui.safe import clean
from engine.client import protocol
from engine.client.connection import Connected, Connection, Lost
from engine.client.launch import last_line
from engine.client.records import read_latch
from engine.client.rundir import RunPaths, engine_pid
from store import events as ev
from store.audit import describe
from store.state import RunState, fold

QUIET = (ev.AgentCalled, ev.AgentReplied, ev.EngineStarted, ev.RiskAssessed, ev.ExperimentOpened)
PROGRESS_SECONDS = 15.0


class _Follower:
    """Prints what happens; knows how the run ended."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.state = RunState()
        self.code: int | None = None
        self.curves: dict[str, protocol.LiveCurve] = {}
        self.last_line = time.monotonic()

    def line(self, when: float, text: str) -> None:
        print(f"{time.strftime('%T', time.localtime(when))}  {clean(text, 400)}", flush=True)
        self.last_line = time.monotonic()

    def take(self, message: object) -> None:
        """Take one message of the engine."""
        if isinstance(message, protocol.Snapshot):
            self.state = message.state
            self.line(time.time(), self._summary())
        elif isinstance(message, protocol.Records):
            for record in message.records:
                if record.seq > self.state.seq:
                    self.state = fold(self.state, record)
                    self._record(record)
        elif isinstance(message, protocol.LiveCurve):
            self.curves[message.trial] = message

    def _record(self, record: ev.Record) -> None:
        event = record.data
        if not isinstance(event, QUIET):
            self.line(record.time, describe(record))
        if isinstance(event, ev.RunStopped):
            self.code = DONE
        elif isinstance(event, ev.ArmingFailed):
            self.code = FAILED

    def progress(self) -> None:
        """A line on running trials when nothing else has been said for a while."""
        if time.monotonic() - self.last_line < PROGRESS_SECONDS:
            return
        alive = {trial.id for trial in self.state.running_trials}
        parts = [
            f"{curve.trial} {curve.task} step {curve.step}/{curve.steps} ({curve.done:.0%})"
            for curve in self.curves.values()
            if curve.trial in alive
        ]
        self.line(time.time(), "; ".join([self._summary(), *parts]))

    def _summary(self) -> str:
        state = self.state
        closed = sum(not entry.open for entry in state.proposals)
        waiting = f", {len(state.pending)} wait for approval" if state.pending else ""
        return f"{state.phase}: {len(state.proposals)} proposals, {closed} closed{waiting}"


async def _follow(root: Path, until_end: bool) -> int:
    follower = _Follower(root)

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


def follow(root: Path, until_end: bool) -> int:
    """Follow a run until it ends; returns the exit code. Ctrl+C detaches."""
    try:
        return asyncio.run(_follow(root, until_end))
    except KeyboardInterrupt:
        print(f"\ndetached; the engine goes on. asi attach {root.name} | asi stop {root.name}", file=sys.stderr)
        return DONE
