"""The chosen row in words: its interval, what would tell it from the best, parent, tasks, costs, its story."""

from __future__ import annotations

from asi_tui import words
from asi_tui.lines import Row, beside, rule
from asi_tui.screens.leaderboard.axis import extent_words, score_words
from asi_tui.screens.leaderboard.standing import (
    LEGEND,
    MOST_SEEDS,
    Best,
    bounds,
    claim_level,
    in_noise,
    proposer,
    seeds_to_separate,
    standing,
)
from asi_tui.screens.parts import fact
from engine.client.protocol import BoardRow
from store.state import RunState

WIDE = 130
LEGEND_WIDTH = 118


def foot_rows(row: BoardRow, best: Best | None, state: RunState, width: int, room: int) -> list[Row]:
    """The rows below the table, `room` of them at most; on a wide screen the story stands beside the figures."""
    title = row.title if row.origin == "baseline" else f"{row.experiment} {row.title}"
    note = LEGEND if width >= LEGEND_WIDTH + len(title[:40]) else "in seed noise, baseline 0"
    head = rule(title[: max(10, width - len(note) - 12)], width, note)
    if width >= WIDE:
        left = (width - 3) // 2
        figures = [line for name, text in _figures(row, best, state) for line in fact(name, text, left)]
        return [head, *beside(figures, left, _story(row, state, width - left - 3))[: room - 1]]
    rows = [line for name, text in _figures(row, best, state) for line in fact(name, text, width)]
    return [head, *[*rows, *_story(row, state, width)][: room - 1]]


def _figures(row: BoardRow, best: Best | None, state: RunState) -> list[tuple[str, str]]:
    figures = [
        ("score", f"{score_words(row)}, {extent_words(row)}{f' at {row.tier}' if row.tier else ''}"),
        ("standing", standing_words(row, best)),
        ("parent", _parent_words(row, state)),
    ]
    if row.tasks:
        figures.append(("tasks", _tasks_words(row)))
    figures.append(("costs", costs_words(row)))
    figures.append(("claim", f"{claim_level(row)}, {proposer(row)}"))
    return figures


def standing_words(row: BoardRow, best: Best | None) -> str:
    """How it stands to the best proposal, and what it would take to know better."""
    if best is None:
        return "no proposal has an interval yet"
    word = standing(row, best)
    if word == "best":
        others = f"{words.plural(best.ties, 'other')} overlap{'s' if best.ties == 1 else ''} it"
        return f"★ the best proposal; {others if best.ties else 'no other overlaps it'}"
    name = f"the best, {best.experiment} ({words.signed(best.score)})"
    if word == "worse":
        return f"worse than {name}: the intervals are apart"
    if word == "better":
        return f"above {name}: the intervals are apart"
    lacking = "no interval of its own" if bounds(row) is None else "one seed only"
    said = f"~ overlaps {name}" if word == "tie" else f"? {lacking}, so not to be told from {name}"
    seeds = seeds_to_separate(row, best)
    if not seeds:
        return f"{said}; no difference to be told"
    number = f"about {seeds:,}" if seeds <= MOST_SEEDS else f"more than {MOST_SEEDS:,}"
    return f"{said}; estimate: {number} seeds each would tell them apart, if means and noise stay"


def _parent_words(row: BoardRow, state: RunState) -> str:
    if not row.parent:
        return "none: a root"
    name = f"{row.parent} {words.name_of(state, row.parent)}"
    if row.against_parent is None:
        return f"{name}; no seeds shared with it yet"
    gain = words.score(row.against_parent, row.against_parent_low, row.against_parent_high)
    said = {"better": "better", "worse": "worse", "open": "not told apart"}
    verdict = said[words.verdict(row.against_parent_low, row.against_parent_high)]
    return f"{gain} against {name}: {verdict}"


def _tasks_words(row: BoardRow) -> str:
    parts = []
    for gain in row.tasks:
        value = in_noise(gain)
        parts.append(f"{gain.task} {'noise unknown' if value is None else words.signed(value)}")
    return f"{', '.join(parts)} (in each task's own noise)"


def costs_words(row: BoardRow) -> str:
    """Sizes and costs, with units."""
    parts = [f"{words.count(row.parameters)} parameters", f"{words.count(row.state_floats)} state floats"]
    if row.training_flops:
        parts.append(f"{words.count(row.training_flops)} FLOPs")
    if row.tokens_per_second:
        parts.append(f"{words.count(row.tokens_per_second)} tokens/s")
    if row.cpu_seconds:
        parts.append(f"{words.age(row.cpu_seconds)} of CPU")
    return ", ".join(parts)


def _story(row: BoardRow, state: RunState, width: int) -> list[Row]:
    """What the state tells about it."""
    found = state.experiments.get(row.experiment)
    if found is None:
        return []
    told = [("change", found.change), ("hypothesis", found.hypothesis), ("outcome", found.summary)]
    told += [("lesson", lesson) for lesson in found.lessons]
    return [line for name, text in told if text for line in fact(name, text, width)]
