"""`asi kill`: what it imports, everybody in an emergency waits for. Standard library and `engine.client.kill` only."""

from __future__ import annotations

import contextlib
import sys
import time
from pathlib import Path

from asi_tui.commands.common import FAILED, USAGE, CommandError, complain, who
from engine.client.aside import Aside
from engine.client.kill import find_run, kill_run, print_report
from engine.client.rundir import RunPaths, UnknownRun

AGENT_SECONDS = 5.0
"""So long a key may take that asks nobody; the run's record is read within it too."""
PASSPHRASE_SECONDS = 60.0
MAX_REASON, MAX_ACTOR = 500, 200
"""So many characters of a kill's reason and actor go on record."""


def plain_words(words: list[str]) -> tuple[str | None, str] | None:
    """RUN and the reason from `[RUN] [--reason R]`; None for anything else, which is left to the slow parser."""
    run: str | None = None
    reason = ""
    rest = iter(words)
    for word in rest:
        if word == "--reason":
            given = next(rest, "-")
            if given.startswith("-"):
                return None
            reason = given
        elif word.startswith("--reason="):
            reason = word.removeprefix("--reason=")
        elif word.startswith("-") or run is not None:
            return None
        else:
            run = word
    return run, reason


def kill(run: str | None, reason: str | None = "") -> int:
    """Kill everything of the run now and show the proof; needs nobody's cooperation. Raises `CommandError`."""
    try:
        root = find_run(run)
    except UnknownRun as error:
        raise CommandError(str(error), USAGE) from error
    except OSError as error:
        raise CommandError(f"NOT PROVED: {error}; repeat this as the run's owner or as root", FAILED) from error
    begin = time.time()
    code = print_report(kill_run(root, actor=who(), reason=reason or "asi kill"))
    try:
        _tell_of_it(root)
        _sign(root, begin)
    except KeyboardInterrupt:
        complain("the kill is not signed; it counts all the same")
    return code


def _sign(root: Path, begin: float) -> None:
    """Sign the kill for the record, where the run asks for signatures: by now everything is dead, so that may wait."""
    asked, _ = Aside(lambda: _named(root, "gate", "allowed_signers")).wait(1.0)
    if not asked:
        return
    problem = _signed_aside(root, begin, False, AGENT_SECONDS)
    if "locked" in problem and sys.stdin is not None and sys.stdin.isatty():
        print("to sign the kill for the record (Ctrl+C leaves it unsigned):", file=sys.stderr)
        problem = _signed_aside(root, begin, True, PASSPHRASE_SECONDS)
    if problem:
        complain(f"the kill is not signed, and counts all the same: {problem}")


def _named(root: Path, table: str, key: str) -> bool:
    """Whether the run's configuration names a file under this key."""
    import tomllib

    with open(RunPaths(root).config, "rb") as file:
        found = tomllib.loads(file.read(1 << 20).decode()).get(table)
    return isinstance(found, dict) and bool(found.get(key))


def _tell_of_it(root: Path) -> None:
    """Have a process of its own send the message that the dead engine cannot send any more; nothing waits for it."""
    asked, _ = Aside(lambda: _named(root, "notify", "urls_file")).wait(1.0)
    if asked:
        import subprocess  # by now everything is dead: this may take its time

        argv = [sys.executable, "-m", "engine.notifying", str(root)]
        quiet = subprocess.DEVNULL
        with contextlib.suppress(OSError):
            subprocess.Popen(argv, stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True)


def _signed_aside(root: Path, begin: float, interactive: bool, seconds: float) -> str:
    """Leave a signature beside the latch; returns why there is none, empty where there is, or none is needed."""
    problem, hangs = Aside(lambda: _leave_signature(root, begin, interactive, seconds)).wait(seconds + 2.0)
    return hangs if problem is None else problem


def _leave_signature(root: Path, begin: float, interactive: bool, seconds: float) -> str:
    from asi_tui.signing import signed_for
    from engine.client.kill_signature import write_kill_signature
    from engine.client.records import read_latch
    from store.signatures import SignatureError

    latch = read_latch(root)
    if latch is None or latch.time < begin:  # somebody else's, who has signed it or not
        return ""
    fields = {"reason": latch.reason[:MAX_REASON]}
    try:
        signed = signed_for(root, "kill", fields, latch.actor[:MAX_ACTOR], interactive=interactive, timeout=seconds)
    except SignatureError as error:
        return str(error)
    return write_kill_signature(root, signed.statement, signed.signature) if signed is not None else ""
