"""What subcommands share: exit codes, the one-line error, the run they mean, who is asking."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from engine.client.records import read_latch
from engine.client.rundir import UnknownRun, engine_pid, resolve

DONE, FAILED, USAGE, NOT_RUNNING, REFUSED, KILLED = 0, 1, 2, 3, 4, 5


class CommandError(Exception):
    """One clear line for the user, and the exit code."""

    def __init__(self, message: str, code: int = FAILED) -> None:
        super().__init__(message)
        self.code = code


def find_run(name: str | None) -> Path:
    """The run directory that is meant. Raises `CommandError`."""
    try:
        return resolve(name)
    except UnknownRun as error:
        raise CommandError(str(error), USAGE) from error


def running_engine(root: Path) -> int:
    """The pid of the run's engine. Raises `CommandError` when there is none."""
    pid = engine_pid(root)
    if pid is None:
        raise CommandError(f"{root.name} is not running; start it with: asi run {root.name}", NOT_RUNNING)
    return pid


def login() -> str:
    """The login name of the person at this terminal."""
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        if os.environ.get(name):
            return os.environ[name]
    import pwd  # only where the environment says nothing: `asi kill` must start fast

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def who() -> str:
    """The person at this terminal: login, and where they came from over SSH."""
    origin = os.environ.get("SSH_CONNECTION", "").split(" ")[0]
    return f"{login()}@{origin}" if origin else login()


def terminal() -> str:
    """Where this person sits: the terminal, and the address an SSH connection came from."""
    try:
        name = os.ttyname(0).removeprefix("/dev/")
    except OSError:
        name = "no terminal"
    origin = os.environ.get("SSH_CONNECTION", "").split(" ")[0]
    return f"{name} from {origin}" if origin else name


def printable(text: str) -> str:
    """One line without any character that could act on a terminal; for commands that must not import `asi_tui.safe`."""
    return "".join(character if character.isprintable() else "\ufffd" for character in text)


def latched_words(root: Path, alive: bool, why: bool = False) -> str:
    """What the latch of a run means for its owner, with the reason where `why` asks; empty where there is none."""
    latch = read_latch(root)
    if latch is None:
        return ""
    by = f"latched by {printable(latch.actor)}"
    if why and latch.reason:
        by += f" ({printable(latch.reason)})"
    if alive:
        return f"frozen, {by}; asi rearm {root.name} --reason …, then asi resume {root.name}; or asi kill {root.name}"
    return f"killed, {by}; asi rearm {root.name} --reason …, then asi run {root.name}"


def complain(message: str) -> None:
    """One line on standard error; what it quotes (a log, an engine's answer, a file) cannot act on the terminal."""
    print(f"asi: {printable(message)}", file=sys.stderr)
