"""What a kill says: its rows, its verdict, and the table for any terminal. Standard library only."""

from __future__ import annotations

import os
import sys
from typing import NamedTuple

WIDTH = 80
MOST_ROWS = 12  # proved sandboxes that get a line of their own
MOST_PROBLEMS = 12


class Row(NamedTuple):
    """One thing that was killed: its pids, milliseconds from its signal to its end, what proves it."""

    what: str
    pids: list[int]
    killed_ms: float
    proof: str
    proved: bool


class KillReport(NamedTuple):
    """What a kill did. `proved` is true only when the kernel confirmed every death.

    unproved: what else could not be confirmed, and what to do about it, one line each.
    total_ms: the whole kill; `death_ms`: from the first signal to the last death, 0 when nothing was alive.
    namespaces: inode and init's start time of each sandbox's pid namespace; with `marks`, what to look for again.
    notes: what went wrong without leaving a death unproved, such as a latch that the disk did not take.
    """

    run: str
    latched: bool
    rows: list[Row]
    unproved: list[str]
    total_ms: float
    namespaces: frozenset[tuple[int, int]]
    marks: frozenset[str]
    death_ms: float = 0.0
    notes: tuple[str, ...] = ()

    @property
    def proved(self) -> bool:
        """Whether every row is proved and nothing is left open."""
        return not self.unproved and all(row.proved for row in self.rows)


def format_report(report: KillReport) -> str:
    """The report as a plain table of 80 columns, the verdict last; many proved sandboxes share a line."""
    lines = [f"kill {report.run}"]
    proved = [row for row in report.rows if row.proved]
    if report.rows:
        lines.append(f"  {'what':<28}{'processes':>9}{'ms':>9}  proof")
    else:
        lines.append("  nothing of this run was alive")
    shown = proved if len(proved) <= MOST_ROWS + 1 else proved[:MOST_ROWS]
    lines += [_line(row) for row in shown]
    folded = proved[len(shown) :]
    if folded:
        slowest = max(row.killed_ms for row in folded)
        count = sum(len(row.pids) for row in folded)
        lines.append(f"  {f'… and {len(folded)} more':<28}{count:>9}{slowest:>9.1f}  all proved (the slowest)")
    for row in report.rows:
        if not row.proved:
            lines += [f"  {clip(row.what, 28):<28}{len(row.pids):>9}{row.killed_ms:>9.1f}  NOT PROVED"]
            lines += wrapped("      ", row.proof)
    open_lines = list(report.unproved)
    more = len(open_lines) - MOST_PROBLEMS
    if more > 1:
        open_lines[MOST_PROBLEMS:] = [f"… and {more} more of this kind"]
    for problem in open_lines:
        lines += wrapped("  OPEN", problem)
    for note in report.notes:
        lines += wrapped("  note", note)
    if report.death_ms:
        lines.append(f"  {report.death_ms:.1f} ms from the first signal to the last death")
    lines.append(f"  {report.total_ms:.1f} ms in all; latched: {'yes' if report.latched else 'NO'}")
    lines += _verdict(report)
    return "\n".join("".join(c if c.isprintable() else "\ufffd" for c in line) for line in lines)


def _verdict(report: KillReport) -> list[str]:
    if report.proved:
        return ["  everything is dead: proved"]
    patterns = " ".join(f"-e {mark}" for mark in sorted(report.marks))
    return [
        "  NOT everything could be proved dead; count it as alive.",
        "  Repeat this as the user who started the run or as root; then look with:",
        f"  grep -lsz {patterns} /proc/[0-9]*/environ",
    ]


def _line(row: Row) -> str:
    return f"  {clip(row.what, 28):<28}{len(row.pids):>9}{row.killed_ms:>9.1f}  {row.proof}"


def clip(text: str, width: int) -> str:
    """The text, cut with an ellipsis where it is longer than `width`."""
    return text if len(text) <= width else text[: width - 1] + "…"


def wrapped(label: str, text: str) -> list[str]:
    """A label and a text in lines of at most 80 columns, broken between words where that is possible."""
    lines, current = [], label
    for word in text.split(" "):
        if len(current) + 1 + len(word) > WIDTH and current.strip():
            lines.append(current)
            current = "      "
        current += (" " if current.strip() else "") + word
    return [*lines, current]


def print_report(report: KillReport) -> int:
    """Print the table and return the exit code: 0 when every death is proved, 1 when not.

    An output that takes no text (a full disk, a closed pipe, a narrow character set) does not change the code.
    """
    text = format_report(report) + "\n"
    try:
        if sys.stdout is None:  # started with its output closed
            raise ValueError("no output")
        sys.stdout.flush()
        left = text.encode(sys.stdout.encoding or "utf-8", "replace")
        descriptor = sys.stdout.fileno()
        while left:
            left = left[os.write(descriptor, left) :]
    except (OSError, ValueError):
        _print_plainly(text)
    return 0 if report.proved else 1


def _print_plainly(text: str) -> None:
    """The output has no descriptor, or takes nothing: say it on what is left."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.write(text)
            stream.flush()
        except (AttributeError, OSError, ValueError):
            continue
        return
