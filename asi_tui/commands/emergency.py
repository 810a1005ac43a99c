"""`asi kill`: what it imports, everybody in an emergency waits for. Standard library and `engine.client.kill` only."""

from __future__ import annotations

from asi_tui.commands.common import FAILED, USAGE, CommandError, who
from engine.client.kill import find_run, kill_run, print_report
from engine.client.rundir import UnknownRun


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
    return print_report(kill_run(root, actor=who(), reason=reason or "asi kill"))
