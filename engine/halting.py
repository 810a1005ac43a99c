"""Every way in which a running engine stops and goes on, whoever asks: a person, the dead man, the ledger, the latch.

The emergency stop needs none of this. It writes the latch and acts on the sandboxes itself; here the engine only
learns of it, so that its clocks stand still with its trials and nothing new is attempted.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import Callable
from pathlib import Path

from engine.client.freeze import FreezeReport
from engine.client.records import Latch, clear_latch, read_latch
from engine.client.rundir import RunPaths
from engine.runtime import Runtime
from engine.sandboxes import Sandboxes
from engine.slots import Slots
from engine.supervision import arming
from store import events as ev

LATCH_SECONDS = 0.1
"""The latch is looked for so often: one look at one name, which works where notifications of new files do not."""


RECORD_SECONDS = 15.0
"""What trials that have left the device get for putting that on record."""


class Refusal(Exception):
    """The command cannot be carried out; the message is one clear line."""


class Halting:
    """Changes the phase of a run.

    Args:
        runtime: where the change goes on record.
        sandboxes: what it acts on.
        slots: closed while nothing may start.
        launcher: makes the launcher of a drill.
    """

    def __init__(
        self, runtime: Runtime, sandboxes: Sandboxes, slots: Slots, launcher: Callable[[Path], arming.Launcher]
    ) -> None:
        self.runtime, self.sandboxes, self.slots = runtime, sandboxes, slots
        self._launcher = launcher
        self._changing = asyncio.Lock()  # one change of phase at a time, each seen through to its end
        self._drilling = False
        self._latched = False
        self._leaving = False
        self.touched = 0  # how often a person has asked for a change of phase, granted or not

    @property
    def latch(self) -> Latch | None:
        """Who pulled the emergency stop, while it is pulled."""
        return read_latch(self.runtime.paths.root)

    # --- stopping -----------------------------------------------------------------------------------------------------

    async def pause(self, reason: str, actor: str) -> str:
        """Nothing new starts; running trials finish."""
        self._touch(actor)
        async with self._changing:
            self._phase_in("pause", "running")
            self.slots.set_open(False)
            await self.runtime.commit(ev.RunPaused(reason), actor)
        return "paused: nothing new starts, running trials finish"

    async def cap(self, event: ev.BudgetExceeded) -> None:
        """Pause at a cap. First the pause, then the event: from the event on, the cap counts as waived by `resume`."""
        reason = f"the cap of {event.cap:g} {event.currency} is reached; `asi resume` goes on without it"
        with contextlib.suppress(Refusal):  # somebody was faster
            await self.pause(reason, "ledger")
        await self.runtime.commit(event)

    async def freeze(self, reason: str, actor: str) -> str:
        """Stop every trial in place; memory is kept, clocks stand still."""
        self._touch(actor)
        async with self._changing:
            self._phase_in("freeze", "running", "paused", "armed")
            return _frozen(await self._freeze(reason, actor))

    async def park(self, reason: str, actor: str) -> str:
        """Have every trial leave the device with its checkpoint; the engine stays."""
        self._touch(actor)
        async with self._changing:
            self._phase_in("park", "running", "paused", "frozen")
            self._unlatched("parked")
            self.slots.set_open(False)
            await self.runtime.commit(ev.RunParked(reason), actor)
            return await self._empty()

    async def leave(self) -> str:
        """The engine ends: park, whatever the phase, and let nothing start any more. Says how that went."""
        self._leaving = True
        async with self._changing:
            return await self._empty()

    async def _empty(self) -> str:
        """Take every sandbox off the device, with a checkpoint where there is time for it.

        Under the latch nothing may run on, not even to write a checkpoint: then everything is killed.
        """
        self.slots.set_open(False)
        if self.latch is not None:
            for name in list(self.sandboxes.alive):
                self.sandboxes.end(name, "the emergency stop")
            return "latched: every sandbox is killed"
        if self.sandboxes.frozen:
            await self.sandboxes.thaw()  # a checkpoint is written by the trial itself
        left, late = await self.sandboxes.park(self.runtime.config.sandbox.grace_seconds)
        with contextlib.suppress(TimeoutError):  # then the next engine finds them as it would after a crash
            async with asyncio.timeout(RECORD_SECONDS):
                await self.runtime.until(lambda state: not state.running_trials)
        text = f"parked: {left} sandboxes left the device; their trials go on from there at resume"
        return text + (f"; {late} took too long for a checkpoint and start over" if late else "")

    def end(self, trial: str, who: str) -> str:
        """Kill one trial."""
        known = self.sandboxes.training
        if trial not in known or not self.sandboxes.end(trial, who):
            raise Refusal(f"no running trial {trial!r}; running: {', '.join(known) or 'none'}")
        return f"{trial} is being killed; a proposal ends with it, a baseline is trained again"

    # --- going on -----------------------------------------------------------------------------------------------------

    async def resume(self, actor: str) -> str:
        """Go on after pause, freeze or park."""
        self._touch(actor)
        async with self._changing:
            self._phase_in("resume", "paused", "frozen", "parked")
            if self._leaving:
                raise Refusal("the engine is leaving; `asi run` goes on")
            if self.runtime.state.armed is None:
                raise Refusal("the run is not armed: the drill has not passed")
            self._unlatched("resumed")
            self.sandboxes.unpark()
            if self.sandboxes.frozen:
                await self.sandboxes.thaw()
            await self.runtime.commit(ev.RunResumed(), actor)
            # Whoever pulled the stop meanwhile was promised that everything stays frozen.
            if await self._frozen_by_latch():
                raise Refusal("the emergency stop was pulled while the run was to go on: everything is frozen again")
            self.slots.set_open(True)
        return "running"

    async def rearm(self, reason: str, actor: str, signed: ev.Signed | None = None) -> str:
        """Lift the latch of a run that was frozen but not killed, after a new drill; it stays frozen until `resume`."""
        latch = self.latch
        if latch is None:
            raise Refusal("the emergency stop is not latched: nothing to re-arm")
        if not reason.strip():
            raise Refusal("say why: re-arming needs a reason")
        if self._drilling:
            raise Refusal("a drill is under way already")
        self._drilling = True
        try:
            await self.look_at_latch()
            armed = await self._drill()
            await self.runtime.commit(ev.RunRearmed(reason, signed), actor)
            await self.runtime.commit(armed)
            await asyncio.to_thread(clear_latch, self.runtime.paths.root)
        finally:
            self._drilling = False
        name = self.runtime.config.name
        drill = f"the drill's {armed.processes} processes died in {armed.killed_ms:.0f} ms"
        return f"re-armed: {drill}; everything is still frozen and goes on with: asi resume {name}"

    async def _drill(self) -> ev.RunArmed:
        """Arm anew, in a run directory of its own: the latch forbids every launch in ours."""
        with tempfile.TemporaryDirectory(prefix="asi-drill-") as folder:
            ground = Path(folder)
            RunPaths(ground).create()
            try:
                return await arming.arm(ground, self.runtime.config.sandbox.minimum_level, self._launcher(ground))
            except arming.NotArmed as error:
                raise Refusal(f"not re-armed: {error}") from error

    # --- the latch ----------------------------------------------------------------------------------------------------

    async def watch_latch(self) -> None:
        """Notice the latch as soon as anybody writes it; to be cancelled."""
        while True:
            await self.look_at_latch()
            await asyncio.sleep(LATCH_SECONDS)

    async def look_at_latch(self) -> None:
        """Under the latch, see to it that everything is frozen and on record as such."""
        latch = await self.sandboxes.urgently(read_latch, self.runtime.paths.root)
        if latch is None:
            self._latched = False
        elif not self._latched:
            # Stopped before the lock is asked for: a change under way may take its time, such as a park.
            await self.sandboxes.freeze()
            async with self._changing:
                await self._frozen_by_latch()

    async def _frozen_by_latch(self) -> bool:
        """Freeze where the latch is pulled, and put it on record once; whether it is pulled."""
        latch = await self.sandboxes.urgently(read_latch, self.runtime.paths.root)
        if latch is not None and (not self._latched or not self.sandboxes.frozen):
            self._latched = True
            await self._freeze(f"emergency stop by {latch.actor}: {latch.reason}".rstrip(": "), latch.actor)
        return latch is not None

    async def _freeze(self, reason: str, actor: str) -> FreezeReport:
        self.slots.set_open(False)
        report = await self.sandboxes.freeze()
        await self.runtime.commit(ev.RunFrozen(len(report.pids), round(report.milliseconds, 1), reason), actor)
        if not report.complete:
            self.runtime.note("not every process could be seen stopped: " + "; ".join(report.errors)[:300], "error")
        return report

    def _touch(self, actor: str) -> None:
        self.touched += actor.startswith("person:")

    def _phase_in(self, what: str, *phases: str) -> None:
        phase = self.runtime.state.phase
        if phase not in phases:
            raise Refusal(f"the run is {phase}: there is nothing to {what}")

    def _unlatched(self, what: str) -> None:
        if self.latch is not None:
            name = self.runtime.config.name
            raise Refusal(f"the emergency stop is latched, nothing can be {what}; first: asi rearm {name} --reason …")


def _frozen(report: FreezeReport) -> str:
    text = f"frozen: {len(report.pids)} processes stopped in place in {report.milliseconds:.0f} ms"
    return text if report.complete else f"{text}, but NOT every one was seen stopped"
