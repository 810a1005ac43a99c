"""What subcommands share: exit codes, the one-line error, the run they mean, who is asking."""

from __future__ import annotations

import getpass
import os
import sys
from pathlib import Path

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


def who() -> str:
    """The person at this terminal: login, and where they came from over SSH."""
    try:
        login = getpass.getuser()
    except (KeyError, OSError):
        login = str(os.getuid())
    origin = os.environ.get("SSH_CONNECTION", "").split(" ")[0]
    return f"{login}@{origin}" if origin else login


def complain(message: str) -> None:
    """One line on standard error."""
    print(f"asi: {message}", file=sys.stderr)
