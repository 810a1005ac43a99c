"""Training as part of an experiment: which seed next, one trial from its start on record to its end on record."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Literal

import msgspec

from engine import cache, checkpoints, racing
from engine.approving import demote, still_holds
from engine.client.protocol import LiveStep, LiveText
from engine.domain import TrialSpec
from engine.halting import Refusal
from engine.laboratory import Laboratory
from engine.sandboxes import Ended, MachineTrouble
from engine.supervision.ledger import lacking
from engine.trials import TrialFailure, TrialParted, TrialSuccess
from store import events as ev
from store.state import Experiment, Trial

Outcome = Literal["ranked", "duplicate", "rejected", "failed"]
SECONDS_BEYOND_PREDICTION = 6.0
LEAST_TRIAL_SECONDS = 240.0


class Standing:
    """One experiment as it stands, and what every one of its steps needs."""

    def __init__(self, laboratory: Laboratory, experiment: str) -> None:
        self.lab = laboratory
        self.runtime = laboratory.runtime
        self.id = experiment

    @property
    def entry(self) -> Experiment:
        """The experiment as it stands."""
        return self.runtime.state.experiments[self.id]

    def doing(self, text: str) -> None:
        """Tell watchers what happens right now."""
        self.runtime.live(LiveStep(self.id, text, time.time()))

    def say(self, role: str) -> Callable[[str], None]:
        """A function that streams an agent's text to the transcripts; safe to call from any thread."""
        loop = asyncio.get_running_loop()

        def speak(text: str) -> None:
            loop.call_soon_threadsafe(self.runtime.live, LiveText(self.id, role, text[:20_000]))

        return speak

    async def close(self, outcome: Outcome, reason: str = "") -> None:
        """End the experiment."""
        await self.runtime.commit(ev.ExperimentClosed(self.id, outcome, reason[:500]))

    async def wait_out(self, ended: Ended) -> None:
        """A sandbox was ended from outside, or by the machine's fault: the step runs again once the run may work."""
        await self.lab.halting.look_at_latch()
        if isinstance(ended, MachineTrouble) and self.runtime.state.phase == "running":
            with contextlib.suppress(Refusal):  # another experiment met the same trouble first
                await self.lab.halting.pause(f"{ended}; when that is put right: asi resume", "engine")


class Training(Standing):
    """The training steps of an experiment."""

    def wanted_seed(self) -> int | None:
        """The next seed to train, or None when there are enough."""
        done = {trial.seed for trial in self.finished()}
        wanted = racing.wanted_seeds(self.runtime.state, self.entry, self.runtime.config.trials, self.lab.baseline)
        return next((seed for seed in range(wanted) if seed not in done), None)

    def finished(self) -> list[Trial]:
        """Trials of the present program with scores."""
        return [
            t
            for t in self.runtime.state.finished_trials(self.id, self.entry.program)
            if t.tier == self.lab.tier and t.data_hash == self.lab.data_hash
        ]

    def approved(self) -> bool:
        """Whether the present program may be launched at this moment; a test of attention never may."""
        known = self.lab.decoys.standing(self.entry) == "real"
        return known and still_holds(self.entry, self.lab.tier, time.time())

    def barred(self) -> bool:
        """Whether nothing may be launched for it, approved or not: at A0 the run only proposes."""
        return self.runtime.state.autonomy == "A0" and self.entry.origin != "baseline"

    async def train_seed(self, seed: int, parked: Trial | None) -> None:
        """Train one seed, from the cache where the same trial has run on this machine."""
        entry, tier = self.entry, self.lab.tier
        baseline = entry.origin == "baseline"
        key = cache.key(entry.program, tier, seed, self.lab.data_hash)
        if baseline and (known := await asyncio.to_thread(cache.load, key)):
            trial = f"{self.id}-s{seed}"
            # The whole result is a blob of the run that trained it.
            here = msgspec.structs.replace(known, experiment=self.id, trial=trial, cached=True, result="")
            self.runtime.emit(here)
            return
        self.doing(f"waits for a slot to train seed {seed}")
        async with self.lab.slots.hold(baseline=baseline, urgent=self.id == self.lab.baseline):
            if self.runtime.state.phase != "running" or self.entry.held or self.barred() or not self.approved():
                return  # things have changed while it waited; what they are now is looked at anew
            lack = lacking(self.runtime.state, self.runtime.config.budget, entry.predicted_cpu_seconds)
            if lack is not None:
                return await self.lab.halting.cap(lack)
            self.doing(f"training seed {seed}")
            await self.run_trial(entry, seed, key, parked)

    def parked(self) -> Trial | None:
        """A trial of the present program that can go on from its checkpoint."""
        done = {trial.seed for trial in self.finished()}
        known = (self.runtime.state.trials[name] for name in self.entry.trials)
        bound = (self.entry.program, self.lab.tier, self.lab.data_hash)
        return next(
            (
                trial for trial in known
                if trial.status == "parked" and trial.checkpoint
                and (trial.program, trial.tier, trial.data_hash) == bound
                and trial.seed not in done
            ),
            None,
        )  # fmt: skip

    async def run_trial(self, entry: Experiment, seed: int, key: str, parked: Trial | None) -> None:
        """One trial, from its start on record to its end on record; a parked one goes on where it was."""
        known = [self.runtime.state.trials[name] for name in entry.trials]
        attempt = sum(trial.seed == seed for trial in known)
        trial = f"{self.id}-s{seed}" + (f"-{attempt + 1}" if attempt else "")
        if parked is not None:
            folder = self.runtime.paths.trials / parked.id
            if await asyncio.to_thread(checkpoints.is_kept, folder, parked.checkpoint):
                trial = parked.id
            else:
                self.runtime.note(f"the checkpoint of {parked.id} is gone or was changed; it starts over", "warning")
                parked = None
        tasks = [task.name for task in self.lab.domain.tasks(self.lab.tier)]
        allowed = max(LEAST_TRIAL_SECONDS, SECONDS_BEYOND_PREDICTION * entry.predicted_cpu_seconds)
        used = parked.cpu_seconds if parked else 0.0
        spec = TrialSpec(trial, entry.program, self.lab.tier, seed, tasks, allowed, resume=parked is not None)
        # The bytes that run are read by the approved hash, and verified by the blob store on the way.
        source = await self.runtime.text(entry.approved_program)
        await self.runtime.commit(
            ev.TrialStarted(
                trial, self.id, entry.approved_program, self.lab.tier, seed, self.lab.level, resumed=spec.resume
            )
        )
        try:
            outcome = await self.lab.runner.train(spec, self.id, source, used)
        except asyncio.CancelledError:
            self.runtime.emit(ev.TrialKilled(trial, self.id, "the engine", used))
            raise
        except Ended as ended:
            return await self.record_end(spec, ended)
        except Exception as error:
            self.runtime.emit(ev.TrialKilled(trial, self.id, f"an error of the engine: {error}"[:300], used))
            raise
        if isinstance(outcome, TrialSuccess):
            await self.record_success(spec, outcome, key)
        elif isinstance(outcome, TrialParted):
            seconds = round(outcome.cpu_seconds, 2)
            await self.runtime.commit(
                ev.TrialParked(trial, self.id, "engine", outcome.checkpoint, seconds, self.lab.data_hash)
            )
        else:
            await self.record_failure(spec, outcome)

    async def record_end(self, spec: TrialSpec, ended: Ended) -> None:
        """A trial was ended from outside: it is trained again, unless a person ended a proposal's."""
        await self.runtime.commit(ev.TrialKilled(spec.trial, self.id, ended.who[:300], round(ended.cpu_seconds, 2)))
        if ended.who.startswith("person:") and self.entry.origin != "baseline":
            return await self.close("rejected", f"its trial {spec.trial} was ended by {ended.who}")
        await self.wait_out(ended)

    async def record_success(self, spec: TrialSpec, ended: TrialSuccess, key: str) -> None:
        """Write a finished trial down and remember it for this machine."""
        result = ended.result
        event = ev.TrialFinished(
            trial=spec.trial,
            experiment=self.id,
            program=spec.program,
            tier=spec.tier,
            seed=spec.seed,
            tasks=[ev.TaskScore(task.task, task.score, task.final, task.metric) for task in result.tasks],
            parameters=result.parameters,
            training_flops=result.training_flops,
            tokens=result.tokens,
            state_floats=result.state_floats,
            cpu_seconds=round(result.cpu_seconds, 2),
            wall_seconds=round(ended.wall_seconds, 2),
            data_hash=self.lab.data_hash,
            points_hash=ended.points_hash,
            result=await self.runtime.put(msgspec.json.encode(result).decode()),
        )
        await self.runtime.commit(event)
        if self.entry.origin == "baseline":
            try:
                await asyncio.to_thread(cache.save, key, event)
            except OSError as error:
                self.runtime.note(f"the cache of baseline trials cannot be written: {error}", "warning")

    async def record_failure(self, spec: TrialSpec, ended: TrialFailure) -> None:
        """Write down why a trial has no score."""
        seconds = round(ended.cpu_seconds, 2)
        if ended.anomaly or ended.cheat:
            self.runtime.emit(ev.TrialAnomaly(spec.trial, self.id, ended.reason, ended.evidence[:1_000]))
        if ended.cheat:
            demote(self.runtime, f"{spec.trial} was caught cheating")
        await self.runtime.commit(
            ev.TrialFailed(spec.trial, self.id, ended.reason, ended.evidence[:1_000], ended.cheat, seconds)
        )
