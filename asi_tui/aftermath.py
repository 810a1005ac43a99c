"""How a terminal ends: what is said after an emergency stop, and what happens when the window itself is gone."""

from __future__ import annotations

import contextlib
import os

from asi_tui.commands.common import KILLED, printable
from asi_tui.facts import look
from asi_tui.stop import EmergencyStop


def leave_dead_terminal(emergency: EmergencyStop) -> None:
    """The terminal is gone: finish a stop that counts down, then end without touching the terminal again."""
    emergency.kill_now(15.0)
    os._exit(KILLED if emergency.pressed else 0)


def last_words(emergency: EmergencyStop) -> int:
    """What is left to say, on the plain terminal, when the stop was pressed."""
    if not emergency.pressed:
        return 0
    from engine.client.kill import print_report

    name = emergency.root.name
    if emergency.phase in ("freezing", "frozen"):
        _say(f"Emergency stop: everything is killed in {emergency.seconds_left:.0f} s.")
    emergency.wait(60.0)
    if emergency.report is not None:
        print_report(emergency.report)
    elif emergency.phase == "held":
        facts = look(emergency.root)
        if facts.latch is None:
            _say(f"The latch was lifted elsewhere; the run may be going on: asi attach {name}")
        else:
            _say(f"Everything is frozen and stays so. `asi kill {name}` ends it,")
            _say(f"`asi rearm {name} --reason …` lifts the latch after a new drill, then")
            _say(f"`asi {'run' if facts.engine is None else 'resume'} {name}` goes on.")
    else:
        _say(f"NOT PROVED ({'; '.join(emergency.problems) or 'no report'}); repeat: asi kill {name}")
    return KILLED


def _say(text: str) -> None:
    """A line on the plain terminal, which may be gone; that must not end what is under way."""
    with contextlib.suppress(OSError):
        print(printable(text), flush=True)
