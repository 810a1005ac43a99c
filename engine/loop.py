"""The loop: keeps several experiments in flight, fills in the baselines beside them, and ends when asked.

One task per experiment; a failure inside one is that experiment's, never the loop's.
"""

from __future__ import annotations

import asyncio
import random

from engine import sampling, scoring
from engine.experiment import Machine
from engine.laboratory import Laboratory, baseline_id
from engine.replaying import Recording
from engine.supervision.ledger import may_open
from store import events as ev
from store.journal import JournalFailed

COLLAPSE_SHARE = 0.5
COLLAPSE_FROM = 12


class Loop:
    """Runs the experiments of one run. `experiments`: how many proposals to run in all, 0 for no end."""

    def __init__(self, laboratory: Laboratory, experiments: int) -> None:
        self.lab = laboratory
        self.runtime = laboratory.runtime
        self.experiments = experiments
        self._running: dict[str, asyncio.Task[None]] = {}
        self._collapse_reported = False

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
            busy = sum(entry.open for entry in self.runtime.state.proposals)
            more = self._more()
            if not more and not busy and not self.runtime.state.experiments[self.lab.baseline].open:
                return
            room = busy < config.concurrency and may_open(self.runtime.state, self.runtime.config.budget)
            if more and room and self.runtime.state.phase == "running" and await self._open_next():
                continue
            await self.runtime.changed()

    def _more(self) -> bool:
        """Whether another proposal is wanted."""
        recording = self.lab.recording
        if recording is not None and len(self.runtime.state.proposals) >= len(recording.openings):
            return False
        return not self.experiments or self._opened() < self.experiments

    def _opened(self) -> int:
        return sum(entry.origin != "person" for entry in self.runtime.state.proposals)

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
            await machine.run()
        except JournalFailed:
            raise
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"[:400]
            self.runtime.note(f"{experiment} ended by an error of the engine: {reason}", "error")
            await machine.close("failed", f"error of the engine: {reason}")

    async def _open_next(self) -> bool:
        """Open the next proposal; False while no parent is ready."""
        if self.lab.recording is not None:
            return await self._open_again(self.lab.recording)
        config = self.runtime.config
        number = len(self.runtime.state.proposals) + 1
        seed = random.Random(f"{config.loop.seed}:{number}").getrandbits(31)
        chosen = sampling.sample(
            self.runtime.state, config.sampling, config.loop.cold_start, config.loop.random_parent_share, seed
        )
        if chosen is None:
            return False
        self.runtime.emit(
            ev.ExperimentOpened(
                experiment=f"e{number:04d}",
                origin="control" if chosen.control and not self.lab.agents else self.lab.proposer(self.runtime.state),
                parent=chosen.parent,
                references=chosen.references,
                control=chosen.control,
                seed=seed,
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
