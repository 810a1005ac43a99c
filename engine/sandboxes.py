"""The sandboxes of one run: which are alive, how they start, and how they stop and go on together.

A trial is two processes, the worker in its sandbox and the trusted scorer outside; what happens to one happens to both.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ParamSpec, TypeVar

from engine.client.freeze import FreezeReport, freeze_records, thaw_records
from engine.supervision.sandbox import Exit, Launcher, LaunchFailed, SandboxProcess, SandboxSpec

P = ParamSpec("P")
T = TypeVar("T")

LAUNCH_SECONDS = 2.0  # a launch under way when everything is to be frozen is waited for so long


class Ended(Exception):
    """A sandbox was ended from outside, or could not be started: not the program's fault, and no result either.

    `who` ended it: `person:<login>`, `park`, `the lease`, `the emergency stop`, or what kept it from starting.
    """

    def __init__(self, who: str, cpu_seconds: float = 0.0) -> None:
        super().__init__(who)
        self.who, self.cpu_seconds = who, cpu_seconds


class MachineTrouble(Ended):
    """A sandbox could not be started, or had to end, for what this machine is like now; the message is one line."""


class RunningClock:
    """Seconds in which trials were allowed to run: it stands still while they are frozen."""

    def __init__(self) -> None:
        self._stopped_at: float | None = None
        self._lost = 0.0

    def __call__(self) -> float:
        """Running seconds since some moment in the past."""
        return (time.monotonic() if self._stopped_at is None else self._stopped_at) - self._lost

    def stop(self) -> None:
        """Trials are frozen from now on."""
        if self._stopped_at is None:
            self._stopped_at = time.monotonic()

    def go(self) -> None:
        """Trials run again."""
        if self._stopped_at is not None:
            self._lost += time.monotonic() - self._stopped_at
            self._stopped_at = None


class Sandboxes:
    """Starts sandboxes for one run and knows which are alive.

    lease_lost: whether the guard has just killed everything because the engine was silent.
    """

    def __init__(self, launcher: Launcher, *, memory_mb: int, disk_mb: int) -> None:
        self.memory_mb, self.disk_mb = memory_mb, disk_mb
        self.alive: dict[str, SandboxProcess] = {}
        self.clock = RunningClock()
        self.parked = False
        self.lease_lost: Callable[[], bool] = lambda: False
        self._launcher = launcher
        self._launching = 0
        self._thawed = asyncio.Event()
        self._thawed.set()
        self._scorers: dict[str, asyncio.subprocess.Process] = {}
        self._ended: dict[str, str] = {}
        self._killing: set[asyncio.Future[Exit]] = set()
        # Of its own: the threads that everybody shares may all be waiting for something.
        self._hands = ThreadPoolExecutor(2, "urgent")

    @property
    def frozen(self) -> bool:
        """Whether everything is stopped in place, and what wants to start waits."""
        return not self._thawed.is_set()

    @property
    def training(self) -> list[str]:
        """The trials whose processes are alive."""
        return list(self._scorers)

    async def urgently(self, work: Callable[P, T], *args: P.args, **more: P.kwargs) -> T:
        """Run blocking work of the emergency stop in threads that nothing else uses."""
        return await asyncio.get_running_loop().run_in_executor(self._hands, functools.partial(work, *args, **more))

    # --- starting -----------------------------------------------------------------------------------------------------

    async def launch(
        self, name: str, argv: list[str], workdir: Path, readable: list[Path], fds: list[int], cpu_seconds: float
    ) -> SandboxProcess:
        """Start a program, once nothing is frozen.

        readable: what it may read besides its folder. fds: descriptors that it inherits. cpu_seconds: over its tree.

        Raises:
            Ended: everything was parked meanwhile, or the guard killed it on its way.
            MachineTrouble: this machine could not start it.
        """
        spec = SandboxSpec(
            id=name,
            argv=tuple(argv),
            workdir=workdir,
            read_only=tuple(readable),
            memory_mb=self.memory_mb,
            disk_mb=self.disk_mb,
            cpu_seconds=int(cpu_seconds) + 1,
            pass_fds=tuple(fds),
            log=workdir.parent / "stdout.log",
        )
        await self._thawed.wait()
        self._launching += 1
        try:
            process = await self._launcher.start(spec)
            self.alive[name] = process
        except LaunchFailed as error:
            if self.lease_lost():
                raise Ended("the lease") from error
            raise MachineTrouble(str(error)) from error
        finally:
            self._launching -= 1
        if self.parked:
            self.alive.pop(name)
            await process.kill()
            raise Ended("park")
        if self.frozen:  # the launch took longer than a freeze waits
            await self.urgently(freeze_records, [process.record])
        return process

    def pair(self, name: str, scorer: asyncio.subprocess.Process) -> None:
        """A scorer drives this sandbox from now on."""
        self._scorers[name] = scorer
        if self.frozen:
            scorer.send_signal(signal.SIGSTOP)

    def forget(self, name: str) -> None:
        """A sandbox and its scorer have ended."""
        self._scorers.pop(name, None)
        self.alive.pop(name, None)

    # --- stopping and going on ----------------------------------------------------------------------------------------

    def end(self, name: str, who: str) -> bool:
        """Kill one sandbox; its owner is told that it was ended by `who`. False when it is not alive."""
        process = self.alive.get(name)
        if process is None:
            return False
        self._ended.setdefault(name, who)
        killing = asyncio.ensure_future(process.kill(f"ended by {who}"))
        self._killing.add(killing)
        killing.add_done_callback(self._killing.discard)
        return True

    async def freeze(self) -> FreezeReport:
        """Stop every sandbox and scorer in place, and with them every clock. Nothing starts until `thaw`."""
        self._thawed.clear()
        self.clock.stop()
        self._signal_scorers(signal.SIGSTOP)
        report = await self._freeze_alive()
        until = time.monotonic() + LAUNCH_SECONDS
        while self._launching and time.monotonic() < until:
            await asyncio.sleep(0.002)
            if not self._launching:
                late = await self._freeze_alive()
                report = late._replace(milliseconds=report.milliseconds + late.milliseconds)
        return report

    async def _freeze_alive(self) -> FreezeReport:
        return await self.urgently(freeze_records, [process.record for process in self.alive.values()])

    async def thaw(self) -> None:
        """Let every frozen sandbox go on. Vetting measures times, so one that was frozen begins anew."""
        for name in self.alive.keys() - self._scorers.keys():
            self.end(name, "the freeze")
        await self.urgently(thaw_records, [process.record for process in self.alive.values()])
        self._signal_scorers(signal.SIGCONT)
        self.clock.go()
        self._thawed.set()

    async def park(self, grace: float) -> tuple[int, int]:
        """Have every trial write its checkpoint and leave; end whatever has not left after `grace` seconds.

        Returns how many sandboxes left by themselves, and how many were ended. Nothing starts until `unpark`.
        """
        self.parked = True
        names = set(self.alive)
        for name in names - self._scorers.keys():
            self.end(name, "park")
        self._signal_scorers(signal.SIGTERM)
        until = time.monotonic() + grace
        while names & self._scorers.keys() and time.monotonic() < until:
            await asyncio.sleep(0.02)
        late = names & self._scorers.keys()
        for name in late:
            self.end(name, f"park: no checkpoint within {grace:.0f} s")
        while names & self.alive.keys() and time.monotonic() < until + 30.0:
            await asyncio.sleep(0.02)
        return len(names) - len(late), len(late)

    def unpark(self) -> None:
        """Sandboxes may start again after `park`."""
        self.parked = False

    def _signal_scorers(self, number: int) -> None:
        for scorer in self._scorers.values():
            with contextlib.suppress(ProcessLookupError):  # it has just ended; its trial is about to
                scorer.send_signal(number)

    def who_ended(self, name: str, ended: Exit) -> str:
        """Who ended a sandbox from outside, empty when it ended by itself or by the watch over its limits."""
        if who := self._ended.pop(name, ""):
            return who
        killed = ended.signal == signal.SIGKILL and not ended.reason
        return "the lease" if killed and self.lease_lost() else ""

    async def end_idle(self, process: SandboxProcess, seconds: float) -> None:
        """Kill a sandbox that has done next to nothing for so many running seconds: it sleeps, or waits for ever."""
        since, worked = self.clock(), 0.0
        while self.clock() - since < seconds:
            await asyncio.sleep(1.0)
            cpu_seconds = process.peak().cpu_seconds
            if cpu_seconds - worked > seconds / 20:
                since, worked = self.clock(), cpu_seconds
        await process.kill(f"time: no work for {seconds:.0f} s")
