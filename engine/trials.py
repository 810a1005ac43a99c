"""Run one vetting or one training process in its sandbox, under watch, and bring back what can be trusted of it.

Slots are CPU cores: every sandbox takes one. Two lanes share them: proposals, and the baselines beside them, which get
every third slot while proposals wait too.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import hashlib
import os
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TypeVar

import msgspec
from watchfiles import awatch

from engine.client.protocol import CurvePoint, LiveCurve
from engine.client.rundir import RunPaths
from engine.domain import Domain, Point, ScorePoint, TrialResult, TrialSpec, VetReport, VetSpec
from engine.supervision.sandbox import Exit, Latched, Launcher, LaunchFailed, SandboxProcess, SandboxSpec
from engine.watch import Anomaly, Watch

MAX_LINE = 4_096
MAX_POINTS_BYTES = 16 * 1024 * 1024
MAX_REPORT = 1 << 20
VET_CPU_SECONDS = 180
TICK_SECONDS = 0.5
BASELINE_SHARE = 3

Publish = Callable[[LiveCurve], None]
Line = TypeVar("Line", Point, ScorePoint)


class TrialFailure(msgspec.Struct, frozen=True):
    """A trial without a score. `killed`: ended from outside, not by its own fault."""

    reason: str
    evidence: str = ""
    cheat: bool = False
    killed: bool = False
    anomaly: bool = False
    cpu_seconds: float = 0.0


class TrialSuccess(msgspec.Struct, frozen=True):
    """A trial with sealed scores. Hashes are of points.jsonl and of the result."""

    result: TrialResult
    points_hash: str
    wall_seconds: float


class Slots:
    """Places for sandboxes. `hold()` waits for one; lanes are served in order of arrival."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.used = 0
        self._granted = 0
        self._lanes: tuple[collections.deque[asyncio.Future[None]], ...] = (collections.deque(), collections.deque())
        self.open = True

    @contextlib.asynccontextmanager
    async def hold(self, baseline: bool = False, urgent: bool = False) -> AsyncIterator[None]:
        """Wait for a slot and keep it while the block runs. `urgent` goes to the head of its lane."""
        ticket: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        lane = self._lanes[1 if baseline else 0]
        lane.appendleft(ticket) if urgent else lane.append(ticket)
        self._grant()
        try:
            await ticket
        except asyncio.CancelledError:
            if ticket.done() and not ticket.cancelled():
                self._release()
            else:
                lane.remove(ticket)
            raise
        try:
            yield
        finally:
            self._release()

    def set_open(self, value: bool) -> None:
        """Close to hold everything that waits (pause), open to let it go on."""
        self.open = value
        self._grant()

    def _release(self) -> None:
        self.used -= 1
        self._grant()

    def _grant(self) -> None:
        while self.open and self.used < self.total:
            proposals, baselines = self._lanes
            turn = baselines if self._granted % BASELINE_SHARE == 0 else proposals
            lane = turn or proposals or baselines
            if not lane:
                return
            ticket = lane.popleft()
            if not ticket.done():
                self._granted += 1
                self.used += 1
                ticket.set_result(None)


class TrialRunner:
    """Starts sandboxes for one run and knows which are alive."""

    def __init__(
        self, root: Path, domain: Domain, launcher: Launcher, *, memory_mb: int, disk_mb: int, publish: Publish
    ) -> None:
        self._paths, self._domain, self._launcher = RunPaths(root), domain, launcher
        self._memory_mb, self._disk_mb, self._publish = memory_mb, disk_mb, publish
        self.alive: dict[str, SandboxProcess] = {}
        self.frozen = False
        self._ended: dict[str, str] = {}
        self._killing: set[asyncio.Future[Exit]] = set()

    async def vet(self, name: str, source: str, spec: VetSpec) -> VetReport:
        """Run the vetting battery on a program. Raises `VettingFailed` when no report came back."""
        folder = self._paths.trials / name
        workdir = _fresh_workdir(folder)
        (workdir / "program.py").write_text(source, encoding="utf-8")
        (workdir / "spec.json").write_bytes(msgspec.json.encode(spec))
        read_end, write_end = os.pipe()
        try:
            argv = [*self._domain.vet_argv(workdir), "--report-fd", str(write_end)]
            process = await self._launch(name, argv, workdir, [], [write_end], VET_CPU_SECONDS)
        except LaunchFailed as error:
            os.close(read_end)
            raise VettingFailed(str(error)) from error
        except BaseException:
            os.close(read_end)
            raise
        finally:
            os.close(write_end)
        ended = Exit(None, None)
        try:
            raw = await _read_bounded(read_end, MAX_REPORT)
            ended = await process.wait()
        finally:
            await process.kill()
            self.alive.pop(name, None)
        line = raw.strip().rsplit(b"\n", 1)[-1]
        try:
            return msgspec.json.decode(line, type=VetReport)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            why = ended.reason or f"its log ends: {_tail(folder / 'stdout.log')}"
            raise VettingFailed(f"vetting gave no report; {why}") from None

    async def train(self, spec: TrialSpec, experiment: str, source: str) -> TrialSuccess | TrialFailure:
        """Run one trial to its end: worker in the sandbox, trusted scorer outside, watch over both."""
        folder = self._paths.trials / spec.trial
        workdir = _fresh_workdir(folder)
        (workdir / "program.py").write_text(source, encoding="utf-8")
        await asyncio.to_thread(self._domain.write_specs, spec, folder)
        started = time.monotonic()
        to_worker, from_worker = os.pipe(), os.pipe()
        process: SandboxProcess | None = None
        scorer: asyncio.subprocess.Process | None = None
        try:
            argv = self._domain.worker_argv(workdir, to_worker[0], from_worker[1])
            readable = self._domain.readable(spec)
            pass_fds = [to_worker[0], from_worker[1]]
            process = await self._launch(spec.trial, argv, workdir, readable, pass_fds, spec.max_cpu_seconds)
            scorer = await asyncio.create_subprocess_exec(
                *self._domain.scorer_argv(folder, from_worker[0], to_worker[1]),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                pass_fds=[from_worker[0], to_worker[1]],
            )
        except (OSError, LaunchFailed) as error:
            return TrialFailure("the sandbox did not start", str(error), killed=isinstance(error, Latched))
        finally:
            for descriptor in (*to_worker, *from_worker):
                os.close(descriptor)
            if process is not None and scorer is None:
                await process.kill()
                self.alive.pop(spec.trial, None)
        try:
            return await self._follow(spec, experiment, folder, process, scorer, started)
        finally:
            with contextlib.suppress(ProcessLookupError):
                scorer.kill()
            await scorer.wait()
            await process.kill()
            self.alive.pop(spec.trial, None)

    def end(self, name: str, who: str) -> bool:
        """Kill one sandbox; its owner is told that it was ended by `who`. False when it is not alive."""
        process = self.alive.get(name)
        if process is None:
            return False
        self._ended[name] = who
        self._killing.add(asyncio.ensure_future(process.kill(f"ended by {who}")))
        return True

    async def freeze(self) -> int:
        """Stop every sandbox in place; returns how many processes were stopped."""
        self.frozen = True
        reports = await asyncio.gather(*(process.freeze() for process in self.alive.values()))
        return sum(len(report.pids) for report in reports)

    async def thaw(self) -> None:
        """Let every frozen sandbox go on."""
        await asyncio.gather(*(process.thaw() for process in self.alive.values()))
        self.frozen = False

    async def _launch(
        self, name: str, argv: list[str], workdir: Path, readable: list[Path], fds: list[int], cpu_seconds: float
    ) -> SandboxProcess:
        process = await self._launcher.start(
            SandboxSpec(
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
        )
        self.alive[name] = process
        return process

    async def _follow(
        self,
        spec: TrialSpec,
        experiment: str,
        folder: Path,
        process: SandboxProcess,
        scorer: asyncio.subprocess.Process,
        started: float,
    ) -> TrialSuccess | TrialFailure:
        assert scorer.stdout is not None
        curve = _Curve(spec, experiment, folder, self._domain, self._publish)
        answer = asyncio.ensure_future(scorer.stdout.read())
        watching = asyncio.ensure_future(self._watch(spec, process, curve))
        try:
            await asyncio.wait({answer, watching}, return_when=asyncio.FIRST_COMPLETED)
            cpu_seconds = process.peak().cpu_seconds
            if watching.done() and not answer.done():
                anomaly = watching.result()
                return TrialFailure(
                    anomaly.what, anomaly.evidence, cheat=anomaly.what == "leak", anomaly=True, cpu_seconds=cpu_seconds
                )
            raw = answer.result()
        finally:
            for task in (answer, watching):
                task.cancel()
            await asyncio.gather(answer, watching, return_exceptions=True)
        curve.read()
        ended = await process.kill()
        return self._conclude(spec, raw, curve, folder, ended, time.monotonic() - started, cpu_seconds)

    def _conclude(
        self,
        spec: TrialSpec,
        raw: bytes,
        curve: _Curve,
        folder: Path,
        ended: Exit,
        wall_seconds: float,
        cpu_seconds: float,
    ) -> TrialSuccess | TrialFailure:
        """What the scorer's answer means; a missing or dishonest number is a failure."""
        if who := self._ended.pop(spec.trial, ""):
            return TrialFailure(f"ended by {who}", killed=True, cpu_seconds=cpu_seconds)
        if ended.reason:
            return TrialFailure("limit", ended.reason, anomaly=True, cpu_seconds=cpu_seconds)
        try:
            result = msgspec.json.decode(raw.strip().rsplit(b"\n", 1)[-1], type=TrialResult)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            return TrialFailure("the scorer gave no result", str(error), cpu_seconds=cpu_seconds)
        cpu_seconds = max(cpu_seconds, result.cpu_seconds)
        if curve.anomaly is not None:
            return TrialFailure(curve.anomaly.what, curve.anomaly.evidence, anomaly=True, cpu_seconds=cpu_seconds)
        if result.failure:
            return TrialFailure("training failed", result.failure, cpu_seconds=cpu_seconds)
        for task in result.tasks:
            if not task.honest:
                return TrialFailure("cheat", f"{task.task}: {task.evidence}", cheat=True, cpu_seconds=cpu_seconds)
        missing = sorted(set(spec.tasks) - {task.task for task in result.tasks})
        if missing:
            return TrialFailure("missing numbers", f"no score for {', '.join(missing)}", cpu_seconds=cpu_seconds)
        return TrialSuccess(result, _file_hash(folder / "work" / "points.jsonl"), wall_seconds)

    async def _watch(self, spec: TrialSpec, process: SandboxProcess, curve: _Curve) -> Anomaly:
        """Tail the trial's files until something is wrong; returns the anomaly. Cancelled when the trial ends well."""
        watch = Watch(spec.max_cpu_seconds, self._domain.lowest_honest_loss)
        running = 0.0
        last = time.monotonic()
        tick = int(TICK_SECONDS * 1000)
        async for _ in awatch(curve.folder, step=50, debounce=200, rust_timeout=tick, yield_on_timeout=True):
            now = time.monotonic()
            if not self.frozen:
                running += now - last
            last = now
            cpu_seconds = process.peak().cpu_seconds
            for point in curve.read():
                if anomaly := watch.point(point, running, cpu_seconds):
                    curve.anomaly = anomaly
                    return anomaly
            if anomaly := watch.tick(running, cpu_seconds):
                return anomaly
        return Anomaly("silent", "the watch over the trial's files ended")


class VettingFailed(Exception):
    """The vetting process gave no report; the message says why."""


class _Curve:
    """Tails points.jsonl (hostile) and scores.jsonl (trusted) of one trial and publishes what is new."""

    def __init__(self, spec: TrialSpec, experiment: str, folder: Path, domain: Domain, publish: Publish) -> None:
        self.folder = folder
        self.anomaly: Anomaly | None = None
        self._spec, self._experiment, self._publish = spec, experiment, publish
        self._points = _Tail(folder / "work" / "points.jsonl")
        self._scores = _Tail(folder / "scores.jsonl")
        self._steps = {task.name: task.steps for task in domain.tasks(spec.tier)}
        self._total = sum(self._steps[task] for task in spec.tasks)
        self._started = time.monotonic()

    def read(self) -> list[Point]:
        """New training points, published on the way together with new sealed scores."""
        points = [p for line in self._points.lines() if (p := _decode(line, Point)) and p.task in self._steps]
        scores = [s for line in self._scores.lines() if (s := _decode(line, ScorePoint)) and s.task in self._steps]
        if points or scores:
            task = points[-1].task if points else scores[-1].task
            step = points[-1].step if points else scores[-1].step
            before = sum(self._steps[name] for name in self._spec.tasks[: self._spec.tasks.index(task)])
            done = min(1.0, (before + max(0, step)) / max(1, self._total))
            elapsed = time.monotonic() - self._started
            self._publish(
                LiveCurve(
                    trial=self._spec.trial,
                    experiment=self._experiment,
                    task=task,
                    step=step,
                    steps=self._steps[task],
                    done=done,
                    losses=[CurvePoint(p.task, p.step, p.loss) for p in points if p.loss is not None],
                    scores=[CurvePoint(s.task, s.step, s.value) for s in scores],
                    steps_per_second=(before + step) / elapsed if elapsed > 0 else 0.0,
                    seconds_left=elapsed * (1 - done) / done if done > 0 else 0.0,
                )
            )
        return points


class _Tail:
    """Whole new lines of a growing file that somebody else, perhaps hostile, writes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def lines(self) -> list[bytes]:
        """Lines completed since the last call; a file that is no plain file, or too large, gives none."""
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            return []
        with os.fdopen(descriptor, "rb") as stream:
            if self._offset > MAX_POINTS_BYTES:
                return []
            stream.seek(self._offset)
            block = stream.read(1 << 20)
        end = block.rfind(b"\n") + 1
        self._offset += end
        return [line for line in block[:end].splitlines() if len(line) <= MAX_LINE]


def _decode(line: bytes, kind: type[Line]) -> Line | None:
    try:
        return msgspec.json.decode(line, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def _fresh_workdir(folder: Path) -> Path:
    workdir = folder / "work"
    workdir.mkdir(parents=True, mode=0o700, exist_ok=True)
    return workdir


async def _read_bounded(descriptor: int, limit: int) -> bytes:
    """Read a pipe to its end, at most `limit` bytes."""
    reader = asyncio.StreamReader(limit=limit)
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(descriptor, "rb", 0)
    )
    try:
        received = bytearray()
        while len(received) < limit and (part := await reader.read(limit - len(received))):
            received += part
        return bytes(received)
    finally:
        transport.close()


def _tail(path: Path, size: int = 400) -> str:
    try:
        with path.open("rb") as stream:
            stream.seek(max(0, path.stat().st_size - size))
            return " ".join(stream.read(size).decode("utf-8", "replace").split()) or "(empty)"
    except OSError:
        return "(none)"


def _file_hash(path: Path) -> str:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return ""
    with os.fdopen(descriptor, "rb") as stream:
        return hashlib.sha256(stream.read(MAX_POINTS_BYTES)).hexdigest()
