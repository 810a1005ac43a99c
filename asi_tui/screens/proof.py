"""What a kill did and what proves it, as rows. Evidence comes from the kernel; whatever is unknown counts as alive."""

from __future__ import annotations

import time

from asi_tui import words
from asi_tui.lines import BLANK, Row, fit, paragraph, row, rule
from asi_tui.stop import NO_THREAD, PROOF_SECONDS, EmergencyStop
from engine.client.kill import KillReport
from engine.client.kill import Row as Death

NARROW = 60

LEAST = 3
"""Lines that the deaths get before the next steps are cut to the first."""


def proved(stop: EmergencyStop) -> bool:
    """Every death is confirmed, and nothing was found alive since."""
    return stop.report is not None and stop.report.proved and not stop.alive


def verdict_rows(stop: EmergencyStop, width: int) -> list[Row]:
    """The answer first: is everything dead, since when, and how often that was looked at."""
    report = stop.report
    rows = [rule("killed", width, f"pressed {words.clock(stop.pressed_at)}")]
    if report is None:
        return [*rows, *paragraph("There is no report: treat everything as alive.", width, "bad")]
    if proved(stop):
        rows.append(row((" EVERYTHING IS DEAD: proved ", "good"), (f"in {report.total_ms:.0f} ms", "dim")))
    else:
        rows += paragraph("NOT everything is proved dead: unknown counts as alive.", width, "bad")
    if stop.alive:
        rows += paragraph(f"ALIVE NOW: pids {' '.join(map(str, sorted(stop.alive)[:40]))}", width, "bad")
    times = words.plural(min(stop.proofs, PROOF_SECONDS), "time")
    ago = words.age(time.time() - stop.proved_at)
    if not stop.repeats:
        return [*rows, *paragraph(f"{NO_THREAD}: nobody looks again; asi kill {stop.root.name} does", width, "warn")]
    again = f"looked again {times}, last {ago} ago" if stop.proofs else f"looking again for {PROOF_SECONDS} s"
    return [*rows, row((f" {again}", "dim"))]


def death_rows(report: KillReport | None, problems: list[str], width: int, room: int) -> list[Row]:
    """What died. What is not proved comes first and always in full; proved rows share a line where `room` is short."""
    opened: list[Row] = [line for problem in problems for line in paragraph(f"PROBLEM {problem}", width, "bad")]
    if report is None:
        return opened
    for one in report.rows:
        if not one.proved:
            opened.append(_death(one, width))
            opened += paragraph(one.proof, width, "bad", "   ")
    opened += [line for problem in report.unproved for line in paragraph(f"OPEN {problem}", width, "bad")]
    opened += [line for note in report.notes for line in paragraph(f"note: {note}", width, "warn")]
    certain = [one for one in report.rows if one.proved]
    if not report.rows:
        return [*opened, row(" nothing of this run was alive")]
    head = row((_columns("what", "processes" if width >= NARROW else "n", "ms", width), "dim"),
               (" proof" if width >= NARROW else "", "dim"))  # fmt: skip
    left = max(1, room - len(opened) - 1)
    shown = certain if len(certain) <= left else certain[: left - 1]
    rows = [head, *opened, *(_death(one, width) for one in shown)]
    folded = certain[len(shown) :]
    if folded:
        slowest = max(one.killed_ms for one in folded)
        total = sum(len(one.pids) for one in folded)
        name = f"… and {len(folded)} more" if shown else f"{len(folded)} of them"
        text = _columns(name, str(total), f"{slowest:.0f}", width)
        rows.append(row(text, (" all proved" + (", the slowest so" if width >= NARROW else ""), "good")))
    return rows


def next_rows(name: str, certain: bool, width: int) -> list[Row]:
    """What a person can do after a kill, the most urgent first."""
    steps = [
        (f"asi rearm {name} --reason …", "a new drill, then the latch is lifted"),
        (f"asi run {name}", "goes on where it was"),
        (f"asi audit {name}", "what ran; nothing recorded was lost"),
    ]
    if not certain:
        steps.insert(0, (f"asi kill {name}", "again, as the run's owner or as root"))
    wide = max(len(command) for command, _ in steps) + 3
    if width < wide + 30:
        return [rule("next", width), *(row((f" {command}", "strong")) for command, _ in steps)]
    return [
        rule("next", width),
        *(row((f" {command:<{wide}}", "strong"), (what, "dim")) for command, what in steps),
    ]


def killed_rows(stop: EmergencyStop, width: int, height: int, top: int) -> tuple[list[Row], int]:
    """The picture after a kill, and how many lines of its middle part are out of view.

    The verdict and the next step always stay; the deaths between them are what scrolls.
    """
    above, below = verdict_rows(stop, width), next_rows(stop.root.name, proved(stop), width)
    if height - len(above) - len(below) < LEAST:
        below = below[1:2]
    spare = height - len(above) - len(below)
    gap = [BLANK] if spare >= 8 else []
    room = max(1, spare - 2 * len(gap))
    middle = death_rows(stop.report, stop.problems, width, room)
    hidden = max(0, len(middle) - room)
    first = min(top, hidden)
    return [*above, *gap, *middle[first : first + room], *gap, *below], hidden


def _columns(what: str, count: str, milliseconds: str, width: int) -> str:
    name = max(12, min(34, width // 3)) if width >= NARROW else max(8, width - 24)
    counted = 10 if width >= NARROW else 4
    return f" {fit(what, name)}{fit(count, counted, 'right')}{fit(milliseconds, 7, 'right')} "


def _death(one: Death, width: int) -> Row:
    text = _columns(one.what, str(len(one.pids)), f"{one.killed_ms:.0f}", width)
    if not one.proved:
        return row((text, "strong"), (" NOT PROVED", "bad"))
    return row(text, (" dead", "good"), (f", {one.proof}" if width >= NARROW else "", "dim"))
