"""The tables of a comparison: scores on one axis, differences of differences, sizes and costs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from asi_tui import words
from asi_tui.lines import BLANK, Row, Span, clip, fit, paragraph, row, rule
from asi_tui.plot import SIGNS
from asi_tui.screens.leaderboard.axis import axis_for, score_words
from asi_tui.screens.leaderboard.standing import (
    Difference,
    difference,
    gain_on,
    in_noise,
    task_difference,
    task_half_width,
)
from asi_tui.screens.parts import table
from engine.client.protocol import BoardRow

LABEL = 16
CELL = 13

METHOD = (
    "Estimates: a score's half width and another's are added in quadrature as if their noise were independent, a "
    "task's is 1.96·√(2/seeds) of its noise floor. Both sides share the baseline's seeds, so intervals are rather too "
    "wide. “paired” was measured on shared seeds. Nothing is corrected for looking at many."
)


class Measure(NamedTuple):
    """A line of the table of costs."""

    name: str
    of: Callable[[BoardRow], float | None]
    shown: Callable[[float], str]


MEASURES = (
    Measure("parameters", lambda r: r.parameters or None, words.count),
    Measure("state floats", lambda r: r.state_floats or None, words.count),
    Measure("training FLOPs", lambda r: r.training_flops, words.count),
    Measure("training tokens", lambda r: r.tokens, words.count),
    Measure("tokens/s", lambda r: r.tokens_per_second, words.count),
    Measure("steps/s", lambda r: r.steps_per_second, words.count),
    Measure("CPU spent", lambda r: r.cpu_seconds or None, words.age),
)


def name_of(one: BoardRow) -> str:
    """What a row is called in heads: a baseline by its title."""
    return (one.title or one.experiment) if one.origin == "baseline" else one.experiment


def score_rows(rows: Sequence[BoardRow], width: int) -> list[Row]:
    """Each row's score with its interval, on a common axis, and its curve's sign."""
    axis = axis_for(rows)
    room = max(15, min(61, width - 62))
    lines = [row((" " * 31 + axis.head(room), "dim"))]
    for number, one in enumerate(rows):
        spans: list[Span] = [
            (f" {SIGNS[number]} ", f"series.{number}"), (fit(name_of(one), 12) + " ", "strong"),
            (f"{score_words(one, cell=True)} ", ""),
            (axis.draw(one, room), "accent"), (f"  {words.plural(one.seeds, 'seed'):<9}", "dim"), (one.title, ""),
        ]  # fmt: skip
        lines.append(clip(row(*spans), width))
    return lines


def _cell(found: Difference | None) -> Span:
    if found is None:
        return ("–", "faint")
    word = words.verdict(found.low, found.high)
    text = words.score_cell(found.value, found.low, found.high)
    return (text, {"better": "good", "worse": "bad"}.get(word, ""))


def _against_baseline(one: BoardRow, task: str) -> Span:
    gain = gain_on(one, task)
    value = in_noise(gain) if gain is not None else None
    if value is None:
        return ("–", "faint")
    half = task_half_width(one.seeds)
    return _cell(Difference(value, value - half, value + half))


def task_names(rows: Sequence[BoardRow]) -> list[str]:
    """Every task that one of them was measured on."""
    return list(dict.fromkeys(gain.task for one in rows for gain in one.tasks))


def side_by_side(
    heads: Sequence[str], labels: Sequence[str], cells: Sequence[Sequence[Span | str]], width: int
) -> list[Row]:
    """A table with a column for each head; where they do not fit beside each other, in several parts."""
    most = max(1, (width - LABEL - 1) // (CELL + 2))
    out: list[Row] = []
    for first in range(0, len(heads), most):
        part = slice(first, first + most)
        columns = [("", LABEL, ""), *((head, CELL, "") for head in heads[part])]
        lines: list[list[Span | str]] = [
            [(label, "dim"), *line[part]] for label, line in zip(labels, cells, strict=True)
        ]
        out += [BLANK] if out else []
        out += [clip(line, width) for line in table(columns, lines)]
    return out


def difference_rows(rows: Sequence[BoardRow], width: int) -> list[Row]:
    """Against the baseline, then each of the others less the first: in all, and on each task."""
    tasks, first, others = task_names(rows), rows[0], rows[1:]
    absolute: list[list[Span | str]] = [[_against_baseline(one, task) for one in rows] for task in tasks]
    whole = [difference(one, first) for one in others]
    relative: list[list[Span | str]] = [[_cell(found) for found in whole]]
    relative.append([(_verdict_words(found), "dim") for found in whole])
    relative += [[_cell(task_difference(one, first, task)) for one in others] for task in tasks]
    names = [name_of(one) for one in rows]
    left = side_by_side(names, tasks, absolute, width)
    right_heads = [f"{name} −" for name in names[1:]]
    out = [BLANK, rule("tasks, against the baseline", width, "in each task's own noise"), *left]
    out += [BLANK, rule(f"less {names[0]}", width, "score in seed noise, tasks in their own")]
    out += side_by_side(right_heads, ["score", "", *tasks], relative, width)
    return [*out, *paragraph(METHOD, width, "dim")]


def _verdict_words(found: Difference) -> str:
    said = {"better": "better", "worse": "worse", "open": "open"}[words.verdict(found.low, found.high)]
    return f"paired {said}" if found.paired else said


def cost_rows(rows: Sequence[BoardRow], width: int) -> list[Row]:
    """Sizes and costs, and by what factor the others' differ from the first's."""
    cells: list[list[Span | str]] = []
    for measure in MEASURES:
        base = measure.of(rows[0])
        line: list[Span | str] = []
        for number, one in enumerate(rows):
            value = measure.of(one)
            if value is None:
                line.append(("–", "faint"))
            else:
                factor = f" ×{value / base:.2f}" if number and base else ""
                line.append(f"{measure.shown(value)}{factor}")
        cells.append(line)
    head = rule("sizes and costs", width, f"× against {name_of(rows[0])}")
    return [BLANK, head, *side_by_side([name_of(one) for one in rows], [m.name for m in MEASURES], cells, width)]
