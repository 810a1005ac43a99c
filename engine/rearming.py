"""The way back after a kill: the latch is lifted by a person, after a new drill, while no engine runs."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import msgspec

from engine.client.kill_signature import read_kill_signature
from engine.client.protocol import Command
from engine.client.records import Latch, clear_latch, read_kills, read_latch
from engine.client.rundir import RunPaths
from engine.halting import Refusal
from engine.persons import Persons
from engine.runtime import Runtime
from engine.supervision import arming
from store import events as ev
from store.blobs import BlobError
from store.config import RunConfig
from store.signatures import SignatureError, Statement, genesis_of, of_kill, said

MAX_ORDER = 1 << 20


async def rearm(root: Path, config: RunConfig, order: bytes) -> int:
    """Lift the latch after a new drill has passed; records the kill and the re-arming.

    order: a `rearm` command as a client would send it to an engine, with its reason, its person and their signature.
    """
    latch = read_latch(root)
    if latch is None:
        print("asi: the run is not killed; nothing to re-arm", file=sys.stderr)
        return 0
    runtime = Runtime(root, config)
    try:
        command = msgspec.json.decode(order, type=Command)
        if not said(command.reason):
            raise Refusal("say why: re-arming needs a reason")
        if runtime.state.phase != "killed":  # a drill that failed before has said so already
            runtime.emit(_killed(runtime, latch))
        person = await Persons(runtime).identify(command)
        with tempfile.TemporaryDirectory(prefix="asi-drill-") as ground:
            # The latch forbids every launch in the run's own directory, so the drill has one of its own.
            RunPaths(ground).create()
            armed = await arming.arm(Path(ground), config.sandbox.minimum_level)
        await runtime.commit(ev.RunRearmed(said(command.reason), person.signed), person.actor)
        await runtime.commit(armed)
        clear_latch(root)
    except (Refusal, msgspec.MsgspecError) as error:
        print(f"asi: not re-armed: {error}", file=sys.stderr)
        return 4
    except arming.NotArmed as error:
        print(f"asi: not re-armed: {error}", file=sys.stderr)
        return 1
    finally:
        await runtime.close()
    print(f"re-armed: the drill's {armed.processes} processes died in {armed.killed_ms:.0f} ms, sandbox {armed.level}")
    return 0


def _killed(runtime: Runtime, latch: Latch) -> ev.RunKilled:
    """What the latch and the report of the kill say, with the signature that was left beside them."""
    root, state = runtime.paths.root, runtime.state
    kept = [kill for kill in read_kills(root) if kill.time >= latch.time]
    count = max((kill.processes for kill in kept), default=0)
    proved = kept[-1].proved if kept else arming.none_alive(root)
    actor, reason, signed = latch.actor[:200], latch.reason[:500], None
    try:
        signers = runtime.blobs.text(state.signers) if state.signers else ""
        wanted = Statement(state.name, genesis_of(runtime.paths.journal), "kill", reason=said(reason), who=actor)
        signed = of_kill(read_kill_signature(root), wanted, signers, latch.time)
    except (SignatureError, BlobError):
        pass  # a kill counts without a signature
    return ev.RunKilled(actor, latch.time, reason, count, proved, signed)
