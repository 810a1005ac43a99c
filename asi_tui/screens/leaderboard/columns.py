"""The leaderboard's columns: what each shows, by what the engine sorts it, which of them fit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from asi_tui import words
from asi_tui.lines import Span
from asi_tui.screens.leaderboard.axis import Axis, score_words
from asi_tui.screens.leaderboard.standing import Best, bounds, claim_level, gain_on, in_noise, proposer, sign
from engine.client.protocol import BoardRow

LEAST_RANK, LEAST_TITLE, MOST_TITLE = 3, 20, 60
ROOMY, ROOMY_TITLE, ROOMY_AXIS = 116, 34, 25
"""In so many cells title and axis have more before another column comes."""
LEAST_AXIS, MOST_AXIS = 15, 61
TASK = "task:"
LONGEST_NAME = 40
"""As long as a name in the preferences may be."""


class Shown(NamedTuple):
    """What cells are drawn with besides their row: the best proposal, the common axis and its width."""

    best: Best | None
    axis: Axis
    axis_width: int


class Column(NamedTuple):
    """A column: its name (in preferences too), head, width, alignment, what its cells show, its place in line.

    order: by which column of the engine's view it is sorted, empty where it cannot be.
    priority: those with the highest number go first when space is short; 0 never goes.
    """

    name: str
    head: str
    width: int
    align: str
    order: str
    priority: int
    about: str
    text: Callable[[BoardRow, Shown], Span]


def _count(value: float | None) -> Span:
    return (words.count(value) if value else "–", "" if value else "faint")


def _against_parent(row: BoardRow, _: Shown) -> Span:
    if row.against_parent is None:
        return ("–", "faint")
    word = words.verdict(row.against_parent_low, row.against_parent_high)
    text = words.score_cell(row.against_parent, row.against_parent_low, row.against_parent_high)
    return (text, {"better": "good", "worse": "bad"}.get(word, ""))


def _verdict(row: BoardRow, _: Shown) -> Span:
    word = words.verdict(*(bounds(row) or (None, None)))
    return (word, {"better": "good", "worse": "bad"}.get(word, "dim"))


def _score(row: BoardRow, shown: Shown) -> Span:
    return (score_words(row, cell=True), "strong" if sign(row, shown.best) in "★~↑" else "")


def _id(row: BoardRow, _: Shown) -> Span:
    return ("base" if row.origin == "baseline" else row.experiment, "dim")


def _seeds(row: BoardRow, _: Shown) -> Span:
    return (str(row.seeds or "–"), "warn" if row.seeds == 1 else "")


COLUMNS = (
    Column("rank", "#", LEAST_RANK, "right", "rank", 0, "place by score",
           lambda r, _: (str(r.rank or ""), "dim")),
    Column("id", "id", 6, "", "experiment", 0, "experiment", _id),
    Column("score", "score", 12, "", "score", 0, "difference to the baseline, in its seed noise", _score),
    Column("interval", "", LEAST_AXIS, "", "", 2, "95 % interval on a common axis",
           lambda r, s: (s.axis.draw(r, s.axis_width), "accent")),
    Column("seeds", "seeds", 5, "right", "seeds", 1, "seeds shared with the baseline", _seeds),
    Column("against baseline", "vs base", 7, "", "low", 9, "what the interval says", _verdict),
    Column("against parent", "vs parent", 12, "", "against_parent", 3, "gain against the parent", _against_parent),
    Column("parameters", "params", 6, "right", "parameters", 4, "parameters of the model",
           lambda r, _: _count(r.parameters)),
    Column("state", "state", 6, "right", "state_floats", 4, "floats of recurrent state",
           lambda r, _: _count(r.state_floats)),
    Column("flops", "FLOPs", 6, "right", "training_flops", 7, "FLOPs of one training run",
           lambda r, _: _count(r.training_flops)),
    Column("speed", "tok/s", 6, "right", "tokens_per_second", 6, "tokens trained in a second",
           lambda r, _: _count(r.tokens_per_second)),
    Column("cpu", "cpu", 9, "right", "cpu_seconds", 8, "CPU time spent on its trials",
           lambda r, _: (words.age(r.cpu_seconds) if r.cpu_seconds else "–", "" if r.cpu_seconds else "faint")),
    Column("proposer", "from", 11, "", "origin", 8, "who proposed it, ctl: control", lambda r, _: (proposer(r), "dim")),
    Column("parent", "parent", 6, "", "parent", 10, "of whom it is a child",
           lambda r, _: (r.parent or "–", "dim" if r.parent else "faint")),
    Column("level", "level", 9, "", "", 11, "what is claimed", lambda r, _: (claim_level(r), "dim")),
    Column("tier", "tier", 6, "", "tier", 12, "size at which it was trained", lambda r, _: (r.tier, "dim")),
    Column("title", "title", LEAST_TITLE, "", "title", 0, "what it is called",
           lambda r, s: (r.title or r.experiment, "dim" if r.origin == "baseline" else "")),
)  # fmt: skip

ALWAYS = frozenset({"id", "score"})
"""What no choice takes away."""


def task_column(task: str) -> Column:
    """The column of one task's difference, in units of that task's noise."""

    def text(row: BoardRow, _: Shown) -> Span:
        gain = gain_on(row, task)
        value = in_noise(gain) if gain is not None else None
        return ("–", "faint") if value is None else (words.signed(value), "")

    width = max(6, min(10, len(task)))
    return Column(
        (TASK + task)[:LONGEST_NAME], task, width, "right", "", 5, f"difference on {task}, in its noise", text
    )


def all_columns(tasks: Sequence[str], total: int = 0) -> list[Column]:
    """Every column, those of tasks after the score's; ranks have room for `total`."""
    place = next(i for i, column in enumerate(COLUMNS) if column.name == "parameters")
    rank = COLUMNS[0]._replace(width=max(LEAST_RANK, len(str(total))))
    return [rank, *COLUMNS[1:place], *(task_column(task) for task in tasks), *COLUMNS[place:]]


class Layout(NamedTuple):
    """The columns that are shown, with their widths, and how many chosen ones have no room."""

    columns: list[Column]
    dropped: int
    axis_width: int


def layout(columns: Sequence[Column], chosen: Sequence[str], room: int) -> Layout:
    """The columns that fit into `room` cells, spare cells given to the axis and the title."""
    wanted = [column for column in columns if not chosen or column.name in chosen or column.name in ALWAYS]
    kept = sorted(wanted, key=lambda column: column.priority)
    if chosen and "title" not in chosen:
        kept = [column for column in kept if column.name != "title"]
    if room >= ROOMY:
        widen = {"title": ROOMY_TITLE, "interval": ROOMY_AXIS}
        kept = [column._replace(width=widen.get(column.name, column.width)) for column in kept]
    while len(kept) > 2 and sum(column.width + 2 for column in kept) > room:
        kept.pop()
    names = {column.name for column in kept}
    spare = room - sum(column.width + 2 for column in kept)
    axis = title = 0
    if "interval" in names:
        axis = min(MOST_AXIS - ROOMY_AXIS, spare // 2 if "title" in names else spare)
        axis -= axis % 2
    if "title" in names:
        title = min(MOST_TITLE - ROOMY_TITLE, spare - axis)
    if "interval" in names:
        axis += min(MOST_AXIS - ROOMY_AXIS - axis, spare - axis - title)
    grown = {"interval": axis, "title": title}
    widths = {column.name: column.width + grown.get(column.name, 0) for column in kept}
    shown = [column._replace(width=widths[column.name]) for column in wanted if column.name in widths]
    return Layout(shown, len(wanted) - len(kept), widths.get("interval", 0))
