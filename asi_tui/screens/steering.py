"""Steering one experiment while the rest goes on: hold, release, cancel, and votes where several people are listed."""

from __future__ import annotations

from asi_tui import words
from asi_tui.screens.base import Watch
from asi_tui.screens.keys import Key, Question


def voters(screen: Watch) -> int:
    """How many people are listed who may decide; 0 where whoever comes may."""
    return len(screen.asi.config.gate.supervisors or screen.model.state.people)


def steering_keys(screen: Watch, experiment: str) -> list[Key]:
    """What can be done to an experiment that is still on its way."""
    found = screen.model.state.experiments.get(experiment)
    if found is None or not found.open or not screen.model.commands:
        return []
    title = f"{found.id} {words.title(found)}"[:60]

    def hold() -> None:
        screen.ask(f"Hold {found.id}? Why (Enter: no reason):",
                   lambda why: screen.asi.order("hold", target=found.id, reason=why))  # fmt: skip

    def cancel() -> None:
        def end(why: str) -> None:
            if why:
                screen.asi.order("cancel", target=found.id, reason=why)
            else:
                screen.say("not cancelled: it needs a reason")

        text = f"Cancel {title}: its trials end, the rest goes on. Why?"
        screen.put(Question(text, end, f"Cancel {found.id}. Why?"))

    keys = [
        Key(("H",), "H", "release", "let this experiment go on", lambda: screen.asi.order("release", target=found.id))
        if found.held
        else Key(("H",), "H", "hold", "start nothing new for this experiment; the others go on", hold),
    ]
    if found.origin == "baseline":
        return keys
    keys.append(Key(("C",), "C", "cancel", "end this experiment and its trials (asks for the reason)", cancel))
    if voters(screen) > 1:
        keys.append(Key(("V",), "V", "vote", "let the supervisors vote on cancelling it",
                        lambda: _vote(screen, found.id, f"cancelling {title}", f"cancelling {found.id}")))  # fmt: skip
    return keys


def vote_key(screen: Watch) -> list[Key]:
    """A vote on pausing the run, where several people are listed."""
    if voters(screen) < 2 or not screen.model.commands or screen.model.state.phase not in ("running", "armed"):
        return []
    about = "let the supervisors vote on pausing the run"
    return [Key(("V",), "V", "vote", about, lambda: _vote(screen, "pause", "pausing the run", "a pause"), False)]


def _vote(screen: Watch, target: str, what: str, short: str) -> None:
    def call(why: str) -> None:
        if why:
            screen.asi.order("vote", target=target, reason=why)
        else:
            screen.say("no vote was asked for: it needs a reason")

    screen.put(Question(f"Ask for a vote on {what}. Why?", call, f"Vote on {short}. Why?"))
