"""The engine process of one run: `python -m engine.daemon RUN_DIRECTORY [--experiments N] [--rearm]`.

It takes the run's lock, opens the journal, serves clients, arms (drill and attack probe), and runs the loop. Errors are
one line on standard error; exit codes as everywhere: 0 done, 1 failed, 2 usage, 4 refused, 5 killed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import fcntl
import importlib.metadata
import os
import signal
import sys
import time
from collections.abc import Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any

from engine import cache, knowledge
from engine.agents.evolver.agent import Evolver
from engine.agents.llm.secret import KeyProblem, Secret, take_key
from engine.agents.llm.team import Team, name_of
from engine.approving import demote
from engine.client.proposer import hint, settle
from engine.client.records import read_latch
from engine.client.rundir import RunPaths, engine_pid, lock_content
from engine.commands import Commands
from engine.decoys import Decoys, DecoysError
from engine.governance import Unusable, adopt_policy, adopt_signers
from engine.halting import Halting
from engine.laboratory import Laboratory
from engine.linear_attention.domain import LinearAttention
from engine.loop import Loop
from engine.memory import Memory
from engine.monitor import monitor_forever
from engine.notifying import Notifier, NotifyProblem, notifier
from engine.oversight import Oversight
from engine.rearming import MAX_ORDER, rearm
from engine.replaying import ReplayError
from engine.runtime import Runtime, boot_id
from engine.sandboxes import Sandboxes
from engine.server import Server
from engine.slots import Slots
from engine.supervision import arming
from engine.supervision.deadman import DeadMan
from engine.supervision.lease import GuardFailed, Lease
from engine.trials import TrialRunner
from store import events as ev
from store.audit import clean
from store.config import ConfigError, RunConfig, load
from store.journal import JournalError
from store.policy import Policy

LEAVE_SECONDS = 10.0
"""How long the engine waits, when it leaves, for what it has told to end."""

VERSION = importlib.metadata.version("asi")


class Refused(Exception):
    """The engine will not run; `code` is the exit code, the message one line."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


@contextlib.contextmanager
def hold_lock(paths: RunPaths) -> Iterator[None]:
    """Be the only engine of this run directory. Raises `Refused` with the pid of the other one."""
    descriptor = os.open(paths.lock, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise Refused(4, f"an engine runs {paths.root.name} already (pid {engine_pid(paths.root) or '?'})") from None
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, lock_content(), 0)
        yield
    finally:
        os.ftruncate(descriptor, 0)
        os.close(descriptor)


class Engine:
    """One engine, from its start to its end."""

    def __init__(self, root: Path, config: RunConfig, experiments: int, key: Secret) -> None:
        self.paths = RunPaths(root)
        self.config = config
        self.team = Team()
        self._key = key
        self.experiments = experiments
        self.runtime = Runtime(root, config)
        self.leaving: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._launcher = arming.launcher(root)
        self._lease = Lease(root, config.sandbox.lease_seconds, self._lease_lost, self._guard_failed)
        self._tasks: list[asyncio.Task[None]] = []

    def leave(self, reason: str) -> None:
        """Ask the engine to end in order."""
        if not self.leaving.done():
            self.leaving.set_result(reason)

    async def run(self) -> int:
        """Serve and work until asked to leave, the loop is done, or the journal fails; returns the exit code."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.leave, signal.Signals(number).name)
        await self._open_run()
        await adopt_signers(self.runtime, self.config)
        laboratory = self._laboratory(await adopt_policy(self.runtime, self.config))
        await self.team.join(laboratory, self.config.agents, self._key)
        commands = Commands(laboratory, self.leave)
        told = await self._notifier()
        server = Server(
            self.config.name, self.paths.socket, self.paths.token, lambda: self.runtime.state, commands.handle,
            self.runtime.snapshot,
        )  # fmt: skip
        self.runtime.live = server.live

        def publish(records: list[ev.Record]) -> None:
            server.publish(records)
            if told is not None:
                told.take(records, self.runtime.state)

        self.runtime.publish = publish
        if told is not None:
            self._spawn(told.run())
        await server.start()
        self._spawn(self.runtime.publish_forever())
        self._spawn(monitor_forever(self.runtime, laboratory, server))
        finished = False
        try:
            self._lease.start()
            self._spawn(self._lease.keep())
            await self._prepare(laboratory)
            self._spawn(laboratory.halting.watch_latch())
            self._spawn(self.team.watch())
            self._spawn(commands.deciding.run())
            self._spawn(Oversight(laboratory).run())
            self._spawn(knowledge.watch(laboratory))
            code, reason, finished = await self._work(laboratory)
        except (arming.NotArmed, GuardFailed) as error:
            await self.runtime.commit(ev.ArmingFailed(str(error)))
            code, reason = 1, f"not armed: {error}"
            print(f"asi: {reason}", file=sys.stderr)
        except JournalError as error:
            print(f"asi: {error}; what was acknowledged is safe: free some space, then start again", file=sys.stderr)
            code, reason = 1, str(error)
        await self._leave(reason, finished, server, commands)
        return code

    def _lease_lost(self, event: ev.LeaseLost) -> None:
        self.runtime.emit(event, "guard")
        demote(self.runtime, "the engine had no heartbeat")

    def _guard_failed(self, reason: str) -> None:
        """Without a guard nothing may run."""
        self.runtime.note(reason, "error")
        self.leave(reason)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        task.add_done_callback(self._watchman_ended)
        self._tasks.append(task)

    def _watchman_ended(self, task: asyncio.Task[None]) -> None:
        """None of these may end by itself: without one of its watches an engine must not go on."""
        if not task.cancelled() and (error := task.exception()) is not None:
            name = getattr(task.get_coro(), "__qualname__", "a watch")
            self.leave(f"{name} failed: {type(error).__name__}: {error}")

    async def _open_run(self) -> None:
        """Record the start, and close what a dead engine left open."""
        runtime = self.runtime
        if runtime.state.seq == 0 or not runtime.state.name:
            config = await runtime.put(self.paths.config.read_text())
            await runtime.commit(ev.RunCreated(self.config.name, ev.FORMAT, VERSION, config))
        if runtime.state.format > ev.FORMAT:
            raise Refused(4, f"this run was written by a newer version of asi ({runtime.state.version}); update asi")
        swept, unproved = await asyncio.to_thread(arming.sweep, self.paths.root)
        if unproved:
            raise Refused(1, f"sandboxes of an earlier engine may be alive ({'; '.join(unproved)[:300]}): asi kill")
        runtime.emit(ev.EngineStarted(os.getpid(), VERSION, boot_id(), name_of(self.config.agents)))
        for call in runtime.state.open_calls:  # what it has cost is not known: counted at its most
            runtime.emit(
                ev.AgentReplied(
                    call.id, call.experiment, call.role, "", 0.0, False, call.tokens, 0, call.cost,
                    "the end of its engine",
                )
            )  # fmt: skip
        for trial in runtime.state.running_trials:
            if trial.checkpoint:
                known = (trial.checkpoint, trial.cpu_seconds, trial.data_hash)
                runtime.emit(ev.TrialParked(trial.id, trial.experiment, "the end of its engine", *known))
            else:
                runtime.emit(ev.TrialKilled(trial.id, trial.experiment, "the end of its engine"))
        if swept:
            runtime.note(f"{swept} sandboxes of an earlier engine were still registered; all proved dead", "warning")

    async def _notifier(self) -> Notifier | None:
        def complain(text: str) -> None:
            self.runtime.note(text, "warning")

        try:
            return await asyncio.to_thread(notifier, self.config.notify, self.config.name, complain)
        except NotifyProblem as error:
            raise Refused(2, str(error)) from error

    def _laboratory(self, policy: Policy) -> Laboratory:
        config = self.config
        slots = Slots(config.trials.slots or max(1, len(os.sched_getaffinity(0))))
        slots.set_open(False)
        domain = LinearAttention()
        sandboxes = Sandboxes(self._launcher, memory_mb=config.sandbox.memory_mb, disk_mb=config.sandbox.disk_mb)
        sandboxes.lease_lost = lambda: self._lease.lost
        runner = TrialRunner(self.paths.root, domain, sandboxes, lambda message: self.runtime.live(message))
        def drill_launcher(ground: Path) -> arming.Launcher:
            return arming.Launcher(ground, self._launcher.isolation)

        memory = Memory(self.paths.vectors, self.runtime, self.team.embedding(config, self._key))
        return Laboratory(
            runtime=self.runtime,
            domain=domain,
            runner=runner,
            slots=slots,
            halting=Halting(self.runtime, sandboxes, slots, drill_launcher),
            deadman=DeadMan(config.deadman),
            agent=Evolver(),
            policy=policy,
            level="L0",
            data_hash="",
            recall=memory.recall,
            remember=memory.remember,
            decoys=Decoys(self.paths.root, config.gate.seeded_share, config.loop.seed),
        )

    async def _prepare(self, laboratory: Laboratory) -> None:
        """Arm, make the data, open the projection. Raises `arming.NotArmed`."""
        armed = await arming.arm(self.paths.root, self.config.sandbox.minimum_level, self._launcher)
        laboratory.level = armed.level
        await self.runtime.commit(armed)
        try:
            note = await asyncio.to_thread(laboratory.domain.prepare, cache.cache_home())
        except (OSError, RuntimeError, ValueError) as error:
            raise arming.NotArmed(f"the training data could not be made: {error}") from error
        self.runtime.note(note)
        laboratory.data_hash = laboratory.domain.data_hash(self.config.trials.tier)
        await self.runtime.open_projection()

    async def _work(self, laboratory: Laboratory) -> tuple[int, str, bool]:
        """Run the loop until it is done or the engine is asked to leave: (exit code, reason, finished)."""
        if self.runtime.state.phase == "armed":
            await self.runtime.commit(ev.RunResumed())
            laboratory.slots.set_open(True)
        research = asyncio.ensure_future(Loop(laboratory, self.experiments).run())
        ends: set[asyncio.Future[str]] = {research, self.leaving, self.runtime.failed}
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        if self.runtime.failed.done():
            research.cancel()
            await self._seen_off([research])
            raise JournalError(self.runtime.failed.result())
        if research.done() and not self.leaving.done():
            error = research.exception()
            if error is None:
                return 0, research.result(), True
            reason = f"the loop failed: {type(error).__name__}: {error}"
            print(f"asi: {reason}", file=sys.stderr)
            return 1, reason, False
        parked = await laboratory.halting.leave()
        research.cancel()
        await self._seen_off([research])
        return 0, f"{self.leaving.result()}; {parked}", False

    async def _seen_off(self, tasks: Sequence[asyncio.Future[Any]]) -> None:
        """Wait until cancelled tasks have ended; what does not end goes into the log, and holds up nothing."""
        ended, left = await asyncio.wait(tasks, timeout=LEAVE_SECONDS) if tasks else (set(), set())
        await asyncio.gather(*ended, return_exceptions=True)
        if left:
            print(f"asi: {len(left)} tasks did not end when the engine left; where they stand:", file=sys.stderr)
            for task in asyncio.all_tasks():
                task.print_stack(limit=4, file=sys.stderr)

    async def _leave(self, reason: str, finished: bool, server: Server, commands: Commands) -> None:
        """Close everything in order; the last event says why."""
        with contextlib.suppress(JournalError):
            self.runtime.emit(ev.RunStopped(reason[:300], finished))
            await self.runtime.commit(ev.EngineStopped(reason[:300]))
            await self.runtime.flush()
        for task in self._tasks:
            task.cancel()
        await self._seen_off(self._tasks)
        await self._lease.leave()
        await asyncio.sleep(0.05)
        await server.close()
        await commands.answering.close()
        await self.team.close()
        commands.queries.close()
        await self.runtime.close()


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m engine.daemon")
    parser.add_argument("root", type=Path)
    parser.add_argument("--experiments", type=int)
    parser.add_argument("--rearm", action="store_true", help="lift the latch; the order comes on standard input")
    options = parser.parse_args(arguments)
    paths = RunPaths(options.root.resolve())
    try:
        config = settle(load(paths.config), os.environ)
        _check_baselines(config)
        if line := hint(config, os.environ):
            print(line, file=sys.stderr)
        asks = config.agents.kind in ("models", "mixed") or config.cognition.embedding == "server"
        key = take_key(config.agents.key_file if asks else "")
        if options.rearm and engine_pid(paths.root) is not None:
            raise Refused(4, f"{config.name} is still alive (perhaps held frozen); first: asi kill {config.name}")
        with hold_lock(paths):
            if options.rearm:
                return asyncio.run(rearm(paths.root, config, sys.stdin.buffer.read(MAX_ORDER)))
            latch = read_latch(paths.root)
            if latch is not None:
                when = time.strftime("%F %T", time.localtime(latch.time))
                who = clean(latch.actor, 60)
                raise Refused(5, f"killed by {who} at {when}; lift it with: asi rearm {config.name} --reason …")
            experiments = config.loop.experiments if options.experiments is None else options.experiments
            return asyncio.run(_run(paths.root, config, experiments, key))
    except Refused as error:
        print(f"asi: {error}", file=sys.stderr)
        return error.code
    except (ConfigError, Unusable, KeyProblem, ReplayError, DecoysError) as error:
        print(f"asi: {error}", file=sys.stderr)
        return 2
    except (JournalError, OSError) as error:
        print(f"asi: {error}", file=sys.stderr)
        return 1


def _check_baselines(config: RunConfig) -> None:
    """Only the domain knows which baselines there are. Raises `ConfigError`."""
    known = LinearAttention().baselines()
    for name in (config.trials.baseline, *config.trials.baselines):
        if name not in known:
            raise ConfigError(f"run.toml: there is no baseline {name!r}; known here: {', '.join(known)}")


async def _run(root: Path, config: RunConfig, experiments: int, key: Secret) -> int:
    return await Engine(root, config, experiments, key).run()


if __name__ == "__main__":
    sys.exit(main())
