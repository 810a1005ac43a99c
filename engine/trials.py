"""Run one vetting or one training process in its sandbox, under watch, and bring back what can be trusted of it.

A trial is two processes: the worker in the sandbox, and the trusted scorer outside that drives it. Whatever ends
either from outside (a person, a lost lease, the emergency stop, parking) is told apart from what the program did.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import msgspec
from watchfiles import awatch

import engine
from engine import checkpoints
from engine.client.freeze import FreezeReport, freeze_records, thaw_records
from engine.client.rundir import RUN_MARK, RunPaths, run_mark
from engine.domain import Domain, TrialResult, TrialSpec, VetReport, VetSpec
from engine.supervision.sandbox import Exit, Launcher, LaunchFailed, SandboxProcess, SandboxSpec
from engine.tailing import Curve, Publish, open_plain
from engine.watch import Anomaly, Watch

MAX_REPORT = 1 << 20
VET_CPU_SECONDS = 180
VET_SECONDS = 900.0  # a vetting that sleeps uses no CPU time
TICK_SECONDS = 0.5
LAUNCH_SECONDS = 2.0  # a launch under way when everything is to be frozen is waited for so long


class Ended(Exception):
    """A sandbox was ended from outside, or could not be started: not the program's fault, and no result either.

    `who` ended it: `person:<login>`, `park`, `the lease`, `the emergency stop`, or what kept it from starting.
    """

    def __init__(self, who: str, cpu_seconds: float = 0.0) -> None:
        super().__init__(who)
        self.who, self.cpu_seconds = who, cpu_seconds


class NotStarted(Ended):
    """The launcher could not start a sandbox on this machine as it is now; the message is one line."""


class VettingFailed(Exception):
    """The vetting process gave no report; the message says why."""


class TrialFailure(msgspec.Struct, frozen=True):
    """A trial without a score, by its own fault."""

    reason: str
    evidence: str = ""
    cheat: bool = False
    anomaly: bool = False
    cpu_seconds: float = 0.0


class TrialParted(msgspec.Struct, frozen=True):
    """A trial that left the device and can go on; `checkpoint` is a sha256, empty where it starts over."""

    checkpoint: str
    cpu_seconds: float


class TrialSuccess(msgspec.Struct, frozen=True):
    """A trial with sealed scores. `wall_seconds` are those in which it was allowed to run."""

    result: TrialResult
    points_hash: str
    wall_seconds: float


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


class TrialRunner:
    """Starts sandboxes for one run and knows which are alive."""

    def __init__(
        self, root: Path, domain: Domain, launcher: Launcher, *, memory_mb: int, disk_mb: int, publish: Publish
    ) -> None:
        self._paths, self._domain, self._launcher = RunPaths(root), domain, launcher
        self._memory_mb, self._disk_mb, self._publish = memory_mb, disk_mb, publish
        self.alive: dict[str, SandboxProcess] = {}
        self.clock = RunningClock()
        self.parked = False
        self._launching = 0
        self._thawed = asyncio.Event()
        self._thawed.set()
        self.lease_lost: Callable[[], bool] = lambda: False
        self._environment = {
            "PATH": os.defpath,
            "LANG": "C.UTF-8",
            "PYTHONPATH": str(Path(engine.__file__).resolve().parents[1]),
            "PYTHONSAFEPATH": "1",
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            RUN_MARK: run_mark(root),
        }
        self._scorers: dict[str, asyncio.subprocess.Process] = {}
        self._ended: dict[str, str] = {}
        self._killing: set[asyncio.Future[Exit]] = set()

    @property
    def frozen(self) -> bool:
        """Whether everything is stopped in place, and what wants to start waits."""
        return not self._thawed.is_set()

    @property
    def training(self) -> list[str]:
        """The trials whose processes are alive."""
        return list(self._scorers)

    # --- vetting and training -----------------------------------------------------------------------------------------

    async def vet(self, name: str, source: str, spec: VetSpec) -> VetReport:
        """Run the vetting battery on a program.

        Raises:
            VettingFailed: no report came back, by the program's fault.
            Ended: it was ended from outside, or did not start.
        """
        folder = self._paths.trials / name
        with _trouble_is_ours():
            workdir = await asyncio.to_thread(_prepare, folder, source, False)
            (workdir / "spec.json").write_bytes(msgspec.json.encode(spec))
        read_end, write_end = os.pipe()
        try:
            argv = [*self._domain.vet_argv(workdir), "--report-fd", str(write_end)]
            process = await self._launch(name, argv, workdir, [], [write_end], VET_CPU_SECONDS)
        except BaseException:
            os.close(read_end)
            raise
        finally:
            os.close(write_end)
        ended = Exit(None, None)
        limit = asyncio.create_task(self._end_after(process, VET_SECONDS))
        try:
            raw = await _read_bounded(read_end, MAX_REPORT)
            ended = await process.wait()
        finally:
            limit.cancel()
            await process.kill()
            self.alive.pop(name, None)
        if who := self._who_ended(name, ended):
            raise Ended(who, process.peak().cpu_seconds)
        line = raw.strip().rsplit(b"\n", 1)[-1]
        try:
            return msgspec.json.decode(line, type=VetReport)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            why = ended.reason or f"its log ends: {_tail(folder / 'stdout.log')}"
            raise VettingFailed(f"vetting gave no report; {why}") from None

    async def train(
        self, spec: TrialSpec, experiment: str, source: str, used_cpu_seconds: float = 0.0
    ) -> TrialSuccess | TrialFailure | TrialParted:
        """Run one trial to its end: worker in the sandbox, trusted scorer outside, watch over both.

        With `spec.resume` it goes on from its kept checkpoint; `used_cpu_seconds` is what it has used before.

        Raises:
            Ended: it was ended from outside, or did not start.
        """
        folder = self._paths.trials / spec.trial
        with _trouble_is_ours():
            workdir = await asyncio.to_thread(_prepare, folder, source, spec.resume)
            await asyncio.to_thread(self._domain.write_specs, spec, folder)
        curve = Curve(spec, experiment, folder, self._domain, self._publish, self.clock)
        started = self.clock()
        async with self._pair(spec, folder, workdir, used_cpu_seconds) as (process, scorer):
            raw = await self._follow(spec, process, scorer, curve, used_cpu_seconds)
            if raw is not None:
                curve.read()
            ended = await process.kill()
        cpu_seconds = used_cpu_seconds + process.peak().cpu_seconds
        who = self._who_ended(spec.trial, ended)
        if self.parked and (who or not raw):  # it had no time to answer; an earlier checkpoint still holds
            sha = await asyncio.to_thread(checkpoints.keep, folder, self._disk_mb << 20) if spec.resume else ""
            if sha:
                return TrialParted(sha, cpu_seconds)
            raise Ended(who or "park", cpu_seconds)
        if who:
            raise Ended(who, cpu_seconds)
        if curve.anomaly is not None:
            what = curve.anomaly
            return TrialFailure(what.what, what.evidence, what.what == "leak", anomaly=True, cpu_seconds=cpu_seconds)
        outcome = self._conclude(spec, raw or b"", ended, cpu_seconds)
        if isinstance(outcome, TrialFailure):
            return outcome
        if outcome.parked:
            sha = await asyncio.to_thread(checkpoints.keep, folder, self._disk_mb << 20)
            return TrialParted(sha, max(cpu_seconds, outcome.cpu_seconds))
        points = await asyncio.to_thread(_file_hash, workdir / "points.jsonl")
        return TrialSuccess(outcome, points, self.clock() - started)

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
        return await asyncio.to_thread(freeze_records, [process.record for process in self.alive.values()])

    async def thaw(self) -> None:
        """Let every frozen sandbox go on. Vetting measures times, so one that was frozen begins anew."""
        for name in self.alive.keys() - self._scorers.keys():
            self.end(name, "the freeze")
        await asyncio.to_thread(thaw_records, [process.record for process in self.alive.values()])
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

    def _who_ended(self, name: str, ended: Exit) -> str:
        """Who ended a sandbox from outside, empty when it ended by itself or by the watch over its limits."""
        if who := self._ended.pop(name, ""):
            return who
        killed = ended.signal == signal.SIGKILL and not ended.reason
        return "the lease" if killed and self.lease_lost() else ""

    # --- starting, watching, judging ----------------------------------------------------------------------------------

    async def _launch(
        self, name: str, argv: list[str], workdir: Path, readable: list[Path], fds: list[int], cpu_seconds: float
    ) -> SandboxProcess:
        spec = SandboxSpec(
            id=name,
            argv=tuple(argv),
            workdir=workdir,
            read_only=tuple(readable),
            memory_mb=self._memory_mb,
            disk_mb=self._disk_mb,
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
            raise NotStarted(str(error)) from error
        finally:
            self._launching -= 1
        if self.parked:
            self.alive.pop(name)
            await process.kill()
            raise Ended("park")
        return process

    @contextlib.asynccontextmanager
    async def _pair(
        self, spec: TrialSpec, folder: Path, workdir: Path, used_cpu_seconds: float
    ) -> AsyncIterator[tuple[SandboxProcess, asyncio.subprocess.Process]]:
        """Worker and scorer with two pipes between them; both are dead when the block is left."""
        to_worker, from_worker = os.pipe(), os.pipe()
        process: SandboxProcess | None = None
        scorer: asyncio.subprocess.Process | None = None
        try:
            try:
                argv = self._domain.worker_argv(workdir, to_worker[0], from_worker[1])
                left = max(1.0, spec.max_cpu_seconds - used_cpu_seconds)
                readable, fds = self._domain.readable(spec), [to_worker[0], from_worker[1]]
                process = await self._launch(spec.trial, argv, workdir, readable, fds, left)
                scorer = await self._start_scorer(folder, from_worker[0], to_worker[1])
            finally:
                for descriptor in (*to_worker, *from_worker):
                    os.close(descriptor)
            self._scorers[spec.trial] = scorer
            if self.frozen:
                scorer.send_signal(signal.SIGSTOP)
            yield process, scorer
        finally:
            if scorer is not None:
                with contextlib.suppress(ProcessLookupError):
                    scorer.kill()
                await scorer.wait()
            if process is not None:
                await process.kill()
            self._scorers.pop(spec.trial, None)
            self.alive.pop(spec.trial, None)

    async def _start_scorer(self, folder: Path, read_end: int, write_end: int) -> asyncio.subprocess.Process:
        """The trusted half, in an environment built from nothing: no key of ours is near hostile data."""
        argv = self._domain.scorer_argv(folder, read_end, write_end)
        try:
            return await asyncio.create_subprocess_exec(
                *argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                pass_fds=[read_end, write_end],
                cwd="/",
                env=self._environment,
            )
        except OSError as error:
            raise NotStarted(f"the scorer did not start: {error}") from error

    async def _follow(
        self,
        spec: TrialSpec,
        process: SandboxProcess,
        scorer: asyncio.subprocess.Process,
        curve: Curve,
        used_cpu_seconds: float,
    ) -> bytes | None:
        """What the scorer printed; None when the watch found something first (then `curve.anomaly` says what)."""
        assert scorer.stdout is not None
        answer = asyncio.ensure_future(_read_stream(scorer.stdout, MAX_REPORT))
        watching = asyncio.ensure_future(self._watch(spec, process, curve, used_cpu_seconds))
        try:
            await asyncio.wait({answer, watching}, return_when=asyncio.FIRST_COMPLETED)
            if answer.done():
                return answer.result()
            curve.anomaly = watching.result()
            return None
        finally:
            for task in (answer, watching):
                task.cancel()
            await asyncio.gather(answer, watching, return_exceptions=True)

    async def _watch(self, spec: TrialSpec, process: SandboxProcess, curve: Curve, used_cpu_seconds: float) -> Anomaly:
        """Tail the trial's files until something is wrong; returns the anomaly. Cancelled when the trial ends well."""
        watch = Watch(spec.max_cpu_seconds, self._domain.lowest_honest_loss)
        started = self.clock()
        tick = int(TICK_SECONDS * 1000)
        async for _ in awatch(curve.folder, step=50, debounce=200, rust_timeout=tick, yield_on_timeout=True):
            running = self.clock() - started
            cpu_seconds = used_cpu_seconds + process.peak().cpu_seconds
            for point in curve.read():
                if anomaly := watch.point(point, running, cpu_seconds):
                    return anomaly
            if anomaly := curve.anomaly or watch.tick(running, cpu_seconds):
                return anomaly
        return Anomaly("silent", "the watch over the trial's files ended")

    async def _end_after(self, process: SandboxProcess, seconds: float) -> None:
        """Kill a sandbox that is still there after so many running seconds."""
        started = self.clock()
        while (left := started + seconds - self.clock()) > 0:
            await asyncio.sleep(min(left, 10.0))
        await process.kill(f"time: not done after {seconds:.0f} s")

    def _conclude(self, spec: TrialSpec, raw: bytes, ended: Exit, cpu_seconds: float) -> TrialResult | TrialFailure:
        """What the scorer's answer means; a missing or dishonest number is a failure."""
        if ended.reason:
            return TrialFailure("limit", ended.reason, anomaly=True, cpu_seconds=cpu_seconds)
        try:
            result = msgspec.json.decode(raw.strip().rsplit(b"\n", 1)[-1], type=TrialResult)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            return TrialFailure("the scorer gave no result", str(error), cpu_seconds=cpu_seconds)
        cpu_seconds = max(cpu_seconds, result.cpu_seconds)
        if result.failure:
            return TrialFailure("training failed", result.failure, cpu_seconds=cpu_seconds)
        if result.parked:
            return result
        for task in result.tasks:
            if not task.honest:
                return TrialFailure("cheat", f"{task.task}: {task.evidence}", cheat=True, cpu_seconds=cpu_seconds)
        missing = sorted(set(spec.tasks) - {task.task for task in result.tasks})
        if missing:
            return TrialFailure("missing numbers", f"no score for {', '.join(missing)}", cpu_seconds=cpu_seconds)
        return msgspec.structs.replace(result, cpu_seconds=cpu_seconds)


@contextlib.contextmanager
def _trouble_is_ours() -> Iterator[None]:
    """A folder that cannot be made or filled is this machine's trouble, never the program's."""
    try:
        yield
    except OSError as error:
        raise NotStarted(f"{error.filename or 'the trial folder'}: {error.strerror}") from error


def _prepare(folder: Path, source: str, resume: bool) -> Path:
    workdir = checkpoints.fresh_workdir(folder, resume)
    (workdir / "program.py").write_text(source, encoding="utf-8")
    return workdir


async def _read_stream(stream: asyncio.StreamReader, limit: int) -> bytes:
    """Read a stream to its end, at most `limit` bytes."""
    received = bytearray()
    while len(received) < limit and (part := await stream.read(limit - len(received))):
        received += part
    return bytes(received)


async def _read_bounded(descriptor: int, limit: int) -> bytes:
    """Read a pipe to its end, at most `limit` bytes."""
    reader = asyncio.StreamReader(limit=limit)
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(descriptor, "rb", 0)
    )
    try:
        return await _read_stream(reader, limit)
    finally:
        transport.close()


def _tail(path: Path, size: int = 400) -> str:
    """The last words of a log, as one line of printable characters."""
    descriptor = open_plain(path)
    if descriptor is None:
        return "(none)"
    with os.fdopen(descriptor, "rb") as stream:
        stream.seek(max(0, os.fstat(descriptor).st_size - size))
        text = " ".join(stream.read(size).decode("utf-8", "replace").split())
    return "".join(c if c.isprintable() else "?" for c in text) or "(empty)"


def _file_hash(path: Path) -> str:
    """sha256 of a plain file, empty when there is none; its size is bounded by the sandbox."""
    descriptor = open_plain(path)
    if descriptor is None:
        return ""
    with os.fdopen(descriptor, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
