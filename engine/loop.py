"""The loop: keeps several experiments in flight, fills in the baselines beside them, and ends when asked.

One task per experiment; a failure inside one is that experiment's, never the loop's.
"""

from __future__ import annotations

import asyncio
import contextlib
import random

from engine import attention, sampling, scoring
from engine.experiment import Machine
from engine.halting import Refusal
from engine.laboratory import Laboratory, baseline_id
from engine.replaying import Recording
from engine.supervision.ledger import may_open
from store import events as ev
from store.journal import JournalFailed
from store.state import RunState

COLLAPSE_SHARE = 0.5
COLLAPSE_FROM = 12


class Loop:
    """Runs the experiments of one run. `experiments`: how many proposals to run in all, 0 for no end."""

    def __init__(self, laboratory: Laboratory, experiments: int) -> None:
        self.lab = laboratory
        self.runtime = laboratory.runtime
        self.experiments = experiments
        self._running: dict[str, asyncio.Task[None]] = {}
        laboratory.cancel = self.cancel
        self._collapse_reported = False
        self._fruitless = -1  # so many requests there were when no test of attention could be made

    async def run(self) -> str:
        """Work until the asked number of experiments is closed; returns why it ended."""
        await self._open_baselines()
        rescoring = asyncio.create_task(self._rescore_forever())
        try:
            async with asyncio.TaskGroup() as group:
                for entry in list(self.runtime.state.experiments.values()):
                    if entry.open:
                        self._start(group, entry.id)
                await self._feed(group)
                for task in self._running.values():
                    task.cancel()
            return f"{self._opened()} experiments are done; {self._verdict()}"
        finally:
            rescoring.cancel()

    async def _feed(self, group: asyncio.TaskGroup) -> None:
        """Open proposals while there is room; return when all are closed and the noise floor is known."""
        config = self.runtime.config.loop
        while True:
            for entry in self.runtime.state.proposals:
                if entry.open and entry.id not in self._running:
                    self._start(group, entry.id)
            state, real, seen = self.runtime.state, self.real, self.runtime.state.seq
            busy = sum(entry.open for entry in real.proposals)
            more, waiting = self._more(), any(entry.open for entry in state.proposals)
            if not more and not waiting and not state.experiments[self.lab.baseline].open:
                return
            room = busy < config.concurrency and may_open(real, self.runtime.config.budget)
            if more and state.phase == "running" and await self._open_next(room):
                continue
            if self.runtime.state.seq == seen:  # opening waits for the disk, and something may have happened meanwhile
                await self.runtime.changed()

    @property
    def real(self) -> RunState:
        """The state without tests of attention: what is counted and drawn from."""
        return self.lab.decoys.without(self.runtime.state)

    def _more(self) -> bool:
        """Whether another proposal is wanted."""
        recording = self.lab.recording
        if recording is not None and len(self.runtime.state.proposals) >= len(recording.openings):
            return False
        return not self.experiments or self._opened() < self.experiments

    def _opened(self) -> int:
        return sum(entry.origin != "person" for entry in self.real.proposals)

    def _verdict(self) -> str:
        """Which proposals beat their own parents by more than the noise, or that none did."""
        better = [
            entry
            for entry in self.runtime.state.ranking()
            if entry.origin != "baseline" and entry.scored and (entry.scored.against_parent_low or 0.0) > 0
        ]
        if not better:
            return "none beat its own parent by more than the seed noise"
        names = ", ".join(
            f"{entry.id} (+{entry.scored.against_parent:.1f})" for entry in better[:6] if entry.scored is not None
        )
        return f"{len(better)} beat their own parents by more than the seed noise: {names}"

    def _start(self, group: asyncio.TaskGroup, experiment: str) -> None:
        self._running[experiment] = group.create_task(self._drive(experiment), name=experiment)

    async def _drive(self, experiment: str) -> None:
        """Drive one experiment; what goes wrong in it closes it and nothing else."""
        machine = Machine(self.lab, experiment)
        try:
            if attention.is_unfinished(self.lab, machine.entry):
                return await attention.conclude(self.lab, machine.entry, None)
            await machine.run()
        except JournalFailed:
            raise
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"[:400]
            self.runtime.note(f"{experiment} ended by an error of the engine: {reason}", "error")
            await machine.close("failed", f"error of the engine: {reason}")

    async def cancel(self, experiment: str, who: str, reason: str) -> None:
        """End one experiment, wherever it stands; what runs for it is killed."""
        task = self._running.get(experiment)
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        if self.runtime.state.experiments[experiment].open:
            await Machine(self.lab, experiment).close("rejected", f"cancelled by {who}: {reason}".rstrip(": "))

    async def _open_next(self, room: bool) -> bool:
        """Open the next proposal where there is room, or a test of attention; False where nothing was opened."""
        if self.lab.recording is not None:
            return room and await self._open_again(self.lab.recording)
        try:
            asked = len(self.runtime.state.requests)
            if asked != self._fruitless and self.lab.decoys.due(self.runtime.state):
                if await attention.open_test(self.lab):
                    return True
                self._fruitless = asked
            return room and await self._open_proposal()
        except OSError as error:
            reason = f"no proposal can be opened: {error}; when that is put right: asi resume"
            with contextlib.suppress(Refusal):  # something else has stopped it already
                await self.lab.halting.pause(reason, "engine")
            return False

    async def _open_proposal(self) -> bool:
        """Open a proposal of the agents, sealed where some are tests of attention; False while no parent is ready."""
        config, real = self.runtime.config, self.real
        seed = random.Random(f"{config.loop.seed}:{len(real.proposals) + 1}").getrandbits(31)
        chosen = sampling.sample(real, config.sampling, config.loop.cold_start, config.loop.random_parent_share, seed)
        if chosen is None:
            return False
        experiment, seal = f"e{len(self.runtime.state.proposals) + 1:04d}", ""
        if self.lab.decoys.active:
            seal = await asyncio.to_thread(self.lab.decoys.seal, experiment)
            if experiment in self.runtime.state.experiments:
                return True  # a person's proposal took the number meanwhile; the next round takes another
        self.runtime.emit(
            ev.ExperimentOpened(
                experiment=experiment,
                origin="control" if chosen.control and not self.lab.agents else self.lab.proposer(real),
                parent=chosen.parent,
                references=chosen.references,
                control=chosen.control,
                seed=seed,
                seal=seal,
            )
        )
        return True

    async def _open_again(self, recording: Recording) -> bool:
        """Open what was opened then, with the same parent; False while that one is not through."""
        opening = recording.openings[len(self.runtime.state.proposals)]
        opened = opening.opened
        above = self.runtime.state.experiments.get(opened.parent)
        if opened.parent and (above is None or not above.program or (above.open and not above.vetted)):
            return False
        self.runtime.emit(opened, opening.actor)
        if opening.drafted is not None:
            await self.runtime.put(await asyncio.to_thread(recording.program, opening.drafted.program))
            await self.runtime.commit(opening.drafted, opening.actor)
        return True

    async def _open_baselines(self) -> None:
        """Give every configured baseline its experiment; the reference first."""
        config, domain = self.runtime.config.trials, self.lab.domain
        names = list(config.baselines) or domain.baselines()
        for name in dict.fromkeys([config.baseline, *names]):
            experiment = baseline_id(name)
            if experiment in self.runtime.state.experiments:
                continue
            program = await self.runtime.put(domain.baseline_source(name))
            self.runtime.emit(ev.ExperimentOpened(experiment=experiment, origin="baseline"))
            self.runtime.emit(
                ev.ProposalDrafted(
                    experiment=experiment,
                    title=name,
                    motivation=domain.baseline_about(name),
                    hypothesis="",
                    program=program,
                    genome=self.lab.agent.seed_genome(name),
                )
            )

    async def _rescore_forever(self) -> None:
        """When the baseline has a new seed, every score moves: say so for each experiment that changed."""
        seen = ranked = 0
        while True:
            await self.runtime.changed()
            measured = len(self.runtime.state.finished_trials(self.lab.baseline))
            if measured != seen:
                seen = measured
                self._rescore()
            now_ranked = sum(entry.outcome == "ranked" for entry in self.runtime.state.proposals)
            if now_ranked != ranked:
                ranked = now_ranked
                self._watch_branches()

    def _rescore(self) -> None:
        for entry in list(self.runtime.state.experiments.values()):
            if entry.scored is None:
                continue
            fresh = scoring.score_experiment(self.runtime.state, entry.id, self.lab.baseline, self.lab.tier)
            if fresh is not None and fresh != entry.scored:
                self.runtime.emit(fresh)

    def _watch_branches(self) -> None:
        """Say once when one ancestor owns more than half of what was found."""
        founder, share = sampling.branch_share(self.runtime.state)
        ranked = sum(entry.ranked for entry in self.runtime.state.proposals)
        if not self._collapse_reported and ranked >= COLLAPSE_FROM and share > COLLAPSE_SHARE:
            self._collapse_reported = True
            self.runtime.note(f"branch collapse: {share:.0%} of the pool descends from {founder}", "warning")
