"""`asi stats`: figures over a whole run, from its record."""

from __future__ import annotations

import argparse

from asi_tui.commands.common import DONE, CommandError, find_run
from asi_tui.commands.look import print_json
from asi_tui.safe import clean
from asi_tui.words import person, plural, span
from engine.client.rundir import RunPaths
from store.journal import JournalCorrupt, read
from store.oversight import Oversight, Share, oversight


def stats(options: argparse.Namespace) -> int:
    """What people were asked and decided, and what went without asking."""
    root = find_run(options.run)
    try:
        found = oversight(read(RunPaths(root).journal))
    except JournalCorrupt as error:
        raise CommandError(f"{root.name}: {error}; `asi audit --verify` says more") from error
    if options.json:
        print_json(found)
    else:
        for line in told(found):
            print(clean(line))
    return DONE


def told(found: Oversight) -> list[str]:
    """The figures in plain lines."""
    lines = [
        f"asked about programs: {found.asked}; decided by people: {found.decided}, "
        f"{_share(found.approved, found.decided)} approved; expired: {found.expired}; waiting: {found.pending}",
        f"median time to a decision: {_time(found.waited)}",
        f"taken back: {found.withdrawn}; questions to the Researcher: {found.questions}; votes: {found.votes}",
        f"tests of attention: {found.caught} caught, {found.missed} missed",
    ]
    lines += _table("approved by finding", found.by_finding)
    lines += _table("approved by rule", found.by_rule)
    lines += ["", "without asking, by the policy"]
    lines += [f"  allowed by {one.name}: {one.decided}" for one in found.allowed]
    lines += [f"  denied by {one.name}: {one.decided}" for one in found.denied]
    lines += [] if found.allowed or found.denied else ["  nothing"]
    lines += ["", "people"]
    for one in found.people:
        card = f", {_time(one.seconds)} on the card" if one.seconds is not None else ""
        lines.append(
            f"  {person(one.who)}: {plural(one.answers, 'answer')}, {_share(one.approved, one.answers)} approved, "
            f"median {_time(one.waited)} after the question{card}, {one.fast} under 5 s"
        )
    return lines + ([] if found.people else ["  nobody has decided anything"])


def _table(title: str, shares: list[Share]) -> list[str]:
    if not shares:
        return []
    rows = [f"  {one.name}: {one.approved} of {one.decided} ({_share(one.approved, one.decided)})" for one in shares]
    return ["", title, *rows]


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.0%}" if whole else "none"


def _time(seconds: float | None) -> str:
    return span(seconds) if seconds is not None else "not measured"
