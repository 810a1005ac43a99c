"""Run one vetting or one training process in its sandbox, under watch, and bring back what can be trusted of it.

A trial is two processes: the worker in the sandbox, and the trusted scorer outside that drives it. Whatever ends
either from outside (a person, a lost lease, the emergency stop, parking) is told apart from what the program did.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import msgspec
from watchfiles import awatch

import engine
from engine import checkpoints
from engine.client.rundir import RUN_MARK, RunPaths, run_mark
from engine.domain import Domain, TrialResult, TrialSpec, VetReport, VetSpec
from engine.sandboxes import Ended, MachineTrouble, Sandboxes
from engine.supervision.sandbox import Exit, SandboxProcess
from engine.supervision.watching import MACHINE
from engine.tailing import Curve, Publish, open_plain
from engine.watch import Anomaly, Watch

MAX_REPORT = 1 << 20
UNPROVED = "the death of a sandbox could not be proved"
VET_CPU_SECONDS = 180
IDLE_SECONDS = 60.0  # a vetting that sleeps uses no CPU time
TICK_SECONDS = 0.5


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


class TrialRunner:
    """Vets and trains programs of one run in its sandboxes."""

    def __init__(self, root: Path, domain: Domain, sandboxes: Sandboxes, publish: Publish) -> None:
        self._paths, self._domain, self.sandboxes, self._publish = RunPaths(root), domain, sandboxes, publish
        self._environment = {
            "PATH": os.defpath,
            "LANG": "C.UTF-8",
            "PYTHONPATH": str(Path(engine.__file__).resolve().parents[1]),
            "PYTHONSAFEPATH": "1",
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            RUN_MARK: run_mark(root),
        }

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
            await asyncio.to_thread((workdir / "spec.json").write_bytes, msgspec.json.encode(spec))
        read_end, write_end = os.pipe()
        try:
            argv = [*self._domain.vet_argv(workdir), "--report-fd", str(write_end)]
            process = await self.sandboxes.launch(name, argv, workdir, [], [write_end], VET_CPU_SECONDS)
        except BaseException:
            os.close(read_end)
            raise
        finally:
            os.close(write_end)
        ended = Exit(None, None)
        limit = asyncio.create_task(self.sandboxes.end_idle(process, IDLE_SECONDS))
        try:
            raw = await _read_bounded(read_end, MAX_REPORT)
            ended = await process.wait()
        finally:
            limit.cancel()
            await process.kill()
            self.sandboxes.forget(name)
        if who := self.sandboxes.who_ended(name, ended):
            raise Ended(who, process.peak().cpu_seconds)
        if ended.reason.startswith(MACHINE):
            raise MachineTrouble(ended.reason.removeprefix(MACHINE))
        line = raw.strip().rsplit(b"\n", 1)[-1]
        try:
            return msgspec.json.decode(line, type=VetReport)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            end = f"it was ended by signal {ended.signal}" if ended.signal else f"it ended with code {ended.code}"
            why = ended.reason or f"{end}; its log ends: {_tail(folder / 'stdout.log')}"
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
        curve = Curve(spec, experiment, folder, self._domain, self._publish, self.sandboxes.clock)
        started = self.sandboxes.clock()
        async with self._pair(spec, folder, workdir, used_cpu_seconds) as (process, scorer):
            raw = await self._follow(spec, process, scorer, curve, used_cpu_seconds)
            if raw is not None:
                curve.read()
            ended = await process.kill()
        cpu_seconds = used_cpu_seconds + process.peak().cpu_seconds
        who = self.sandboxes.who_ended(spec.trial, ended)
        if not process.proved:
            raise MachineTrouble(UNPROVED, cpu_seconds)
        if ended.reason.startswith(MACHINE):
            raise MachineTrouble(ended.reason.removeprefix(MACHINE), cpu_seconds)
        if self.sandboxes.parked and (who.startswith("park") or not (who or raw)):
            # It had no time to answer; an earlier checkpoint still holds.
            if spec.resume and (sha := await self._keep(folder)):
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
            return TrialParted(await self._keep(folder), max(cpu_seconds, outcome.cpu_seconds))
        points = await asyncio.to_thread(_file_hash, workdir / "points.jsonl")
        return TrialSuccess(outcome, points, self.sandboxes.clock() - started)

    async def _keep(self, folder: Path) -> str:
        with _trouble_is_ours():
            return await asyncio.to_thread(checkpoints.keep, folder, self.sandboxes.disk_mb << 20)

    # --- starting, watching, judging ----------------------------------------------------------------------------------

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
                process = await self.sandboxes.launch(spec.trial, argv, workdir, readable, fds, left)
                scorer = await self._start_scorer(folder, from_worker[0], to_worker[1])
            finally:
                for descriptor in (*to_worker, *from_worker):
                    os.close(descriptor)
            self.sandboxes.pair(spec.trial, scorer)
            yield process, scorer
        finally:
            if scorer is not None:
                with contextlib.suppress(ProcessLookupError):
                    scorer.kill()
                await scorer.wait()
            if process is not None:
                await process.kill()
            self.sandboxes.forget(spec.trial)

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
            raise MachineTrouble(f"the scorer did not start: {error}") from error

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
        started = self.sandboxes.clock()
        tick = int(TICK_SECONDS * 1000)
        async for _ in awatch(curve.folder, step=50, debounce=200, rust_timeout=tick, yield_on_timeout=True):
            running = self.sandboxes.clock() - started
            cpu_seconds = used_cpu_seconds + process.peak().cpu_seconds
            for point in curve.read():
                if anomaly := watch.point(point, running, cpu_seconds):
                    return anomaly
            if anomaly := curve.anomaly or watch.tick(running, cpu_seconds):
                return anomaly
        return Anomaly("silent", "the watch over the trial's files ended")

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
        raise MachineTrouble(f"{error.filename or 'the trial folder'}: {error.strerror}") from error


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
