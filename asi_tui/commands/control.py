"""Commands that change what a run does: pause, resume, freeze, park, stop, end, rearm, decisions, proposals."""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asi_tui.commands.common import (
    DONE,
    NOT_RUNNING,
    REFUSED,
    USAGE,
    CommandError,
    find_run,
    printable,
    running_engine,
    who,
)
from engine.client.rundir import engine_pid

if TYPE_CHECKING:
    from store.events import Signed

STOP_SECONDS = 60.0


def tell(root: Path, name: str, **fields: str) -> str:
    """Send a command to the engine, signed where the run asks for that, and return what it says, inert.

    Raises:
        CommandError: there is no engine, no signature, or it refuses.
    """
    from engine.client.connection import NotConnected, ask_once

    running_engine(root)
    given: dict[str, Any] = {**fields, "signed": _signed(root, name, fields)}
    try:
        answer = asyncio.run(ask_once(root, name, **given))
    except NotConnected as error:
        raise CommandError(f"{root.name}: {error}", NOT_RUNNING) from error
    if not answer.ok:
        raise CommandError(answer.error, REFUSED)
    return printable(answer.text)


def _signed(root: Path, name: str, fields: dict[str, str]) -> Signed | None:
    """The person's signature of an order, None where the run asks for none. Raises `CommandError`."""
    from asi_tui.signing import signed_for
    from store.signatures import SignatureError

    try:
        return signed_for(root, name, fields, fields.get("who", ""), interactive=sys.stdin.isatty())
    except SignatureError as error:
        raise CommandError(str(error), REFUSED) from error


def simple(options: argparse.Namespace) -> int:
    """pause, resume, freeze, park."""
    root = find_run(options.run)
    print(tell(root, options.command, who=who(), reason=options.reason or ""))
    return DONE


def stop(options: argparse.Namespace) -> int:
    """End the engine in order and wait until it is gone."""
    import time

    root = find_run(options.run)
    print(tell(root, "stop", who=who()))
    patience = STOP_SECONDS + _grace(root)
    deadline = time.monotonic() + patience
    while engine_pid(root) is not None:
        if time.monotonic() > deadline:
            raise CommandError(f"the engine did not leave within {patience:.0f} s; `asi kill {root.name}` ends it")
        time.sleep(0.05)
    print(f"stopped; go on with: asi run {root.name}")
    return DONE


def _grace(root: Path) -> float:
    """What the run gives its trials for their checkpoints, in seconds."""
    from engine.client.rundir import RunPaths
    from store.config import ConfigError, RunConfig, load

    try:
        return load(RunPaths(root).config).sandbox.grace_seconds
    except ConfigError:
        return RunConfig().sandbox.grace_seconds


def end(options: argparse.Namespace) -> int:
    """Kill one trial."""
    root = find_run(options.run)
    print(tell(root, "end", who=who(), target=options.trial, reason=options.reason or ""))
    return DONE


def rearm(options: argparse.Namespace) -> int:
    """Lift the latch, once a new drill has passed: the engine does it where one is alive, held frozen."""
    root = find_run(options.run)
    if not options.reason.strip():
        raise CommandError("say why: asi rearm --reason '…'", USAGE)
    if engine_pid(root) is None:
        return _rearm_at_rest(root, options.reason)
    print(tell(root, "rearm", who=who(), reason=options.reason))
    return DONE


def _rearm_at_rest(root: Path, reason: str) -> int:
    """Without an engine, a process of the engine's lifts the latch; it is given the order as an engine would be."""
    import msgspec

    from engine.client.protocol import Command

    order = Command(0, "rearm", who(), reason=reason, signed=_signed(root, "rearm", {"who": who(), "reason": reason}))
    argv = [sys.executable, "-m", "engine.daemon", str(root), "--rearm"]
    return subprocess.run(argv, input=msgspec.json.encode(order), check=False).returncode


def propose(options: argparse.Namespace) -> int:
    """Hand program files to a run as a person's proposals; the last argument may name the run."""
    names = list(options.files)
    run = options.run
    if run is None and len(names) > 1 and not names[-1].endswith(".py"):
        run = names.pop()
    sources = [(name, _read_program(name)) for name in names]
    root = find_run(run)
    for name, source in sources:
        title = options.title or Path(name).stem.replace("_", " ")
        answer = tell(root, "propose", who=who(), program=source, title=title, reason=options.motivation or "")
        print(f"{answer}  {name}")
    return DONE


def _read_program(name: str) -> str:
    try:
        return Path(name).read_bytes()[: 1 << 20].decode()
    except OSError as error:
        raise CommandError(f"{name}: {error.strerror}", USAGE) from error
    except UnicodeDecodeError:
        raise CommandError(f"{name}: not a text file", USAGE) from None
