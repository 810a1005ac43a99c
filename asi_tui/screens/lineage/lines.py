"""How one line of the tree is drawn: its indent, its sign, its score, and what it gained against its parent."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from rich.cells import cell_len

from asi_tui import words
from asi_tui.ancestry import NOTHING, Node
from asi_tui.folding import Line
from asi_tui.lines import Row, Span, Tag, fit, pad, row, tagged, width_of
from asi_tui.model import Model
from asi_tui.screens.parts import VERDICT_TONES
from asi_tui.screens.progress import progress
from store.events import ExperimentScored
from store.state import Experiment, Trial

FOLD = "fold:"
"""What the mark of a line that can be folded leads to, with the line's key."""

SCORE = 12
WORD = 6
GENERATION = 3
ARROWS = {"better": "↑", "worse": "↓", "open": "·"}
SHORTEST_TITLE = 8
INDENT_SHARE = 3
"""At most one part in so many of the tree's width is indent."""

DEAD_WORDS = {"failed": "failed", "duplicate": "duplicate", "rejected": "rejected"}


class Seen(NamedTuple):
    """What lines are compared with while they are drawn: the best experiment, and who waits for a person."""

    model: Model
    best: Node | None
    asking: set[str]


class Columns(NamedTuple):
    """What fits beside the tree: cells for the tree, whether generations and verdicts have columns, and the edge."""

    tree: int
    generation: bool
    edge: int


def columns_for(width: int) -> Columns:
    """The columns for a width: the tree takes what the others leave."""
    scores = 2 + SCORE + 1 + WORD
    generation = width >= 76
    edge = 14 if width >= 68 else 7
    return Columns(width - 1 - scores - 2 - edge - (2 + GENERATION if generation else 0), generation, edge)


def head_row(columns: Columns) -> Row:
    """The names of the columns."""
    generation = "  " + fit("gen", GENERATION, "right") if columns.generation else ""
    edge = "vs parent" if columns.edge > 9 else "parent"
    signs = ("   ★ best  ~ ties  ! asks  … at work  × ended", "   ★ best  ~ ties with it")
    names = next((form for form in signs if len(form) + 10 <= columns.tree), "")
    text = f" {fit('experiment' + names, columns.tree)}{generation}  {fit(' score', SCORE)} {fit('', WORD)}  {edge}"
    return row((text, "dim"))


def tree_row(line: Line, seen: Seen, columns: Columns) -> Row:
    """One line of the tree, leading to its experiment; its fold mark leads to folding."""
    if line.kind != "node":
        return _group_row(line, columns)
    node = line.node
    found = node.experiment
    indent = _indent(line, columns.tree // INDENT_SHARE)
    mark = ("▾ " if line.unfolded else "▸ ") if node.children else "  "
    sign = _sign(node, seen)
    head: Row = ((" ", ""), (indent, "rule"), (mark, Tag("accent", FOLD + line.key)), sign,
                 *row((f"{words.short_id(found)} ", "dim")))  # fmt: skip
    room = columns.tree + 1 - width_of(head)
    below = _below(node, room - SHORTEST_TITLE) if node.children and not line.unfolded else ""
    room -= cell_len(below)
    title = words.origin_mark(found) + words.title(found)
    style = "strong" if sign[0] == "★ " else "dim" if node.dead or found.origin == "baseline" else ""
    text = row((fit(title, max(0, room)), style)) if below else row((title, style))
    tree = pad((*head, *text, (below, "dim")) if below else (*head, *text), columns.tree + 1)
    cells = [*_generation(node, columns), *_score_spans(node, seen, columns), *_edge_spans(node, columns)]
    return tuple(
        (text, style if isinstance(style, Tag) else Tag(style, node.id)) for text, style in (*tree, *cells) if text
    )


def _group_row(line: Line, columns: Columns) -> Row:
    indent = _indent(line, columns.tree // INDENT_SHARE)
    mark = "▾ " if line.unfolded else "▸ "
    text, style = group_text(line), "faint" if line.kind == "dead" else "dim"
    return tagged(row((" ", ""), (indent, "rule"), (mark, "accent"), ("  " + text, style)), FOLD + line.key)


def group_text(line: Line) -> str:
    """What a line says that several children share."""
    if line.kind == "quiet":
        best = max((node.best for node in line.members), default=NOTHING)
        note = f", best {words.signed(best)}" if best != NOTHING else ""
        return f"{len(line.members):,} more{note}"
    counted = Counter(DEAD_WORDS.get(node.experiment.outcome, "closed") for node in line.members)
    parts = [(word, counted[word]) for word in ("failed", "rejected", "duplicate", "closed") if counted[word]]
    plurals = {"duplicate": "duplicates"}
    return ", ".join(f"{number:,} {plurals.get(word, word) if number > 1 else word}" for word, number in parts)


def _below(node: Node, room: int) -> str:
    """How many are folded away below a node, and the best of them, as far as there is room."""
    best = f"{words.signed(node.best)}" if node.best != NOTHING and node.best > node.score else ""
    longest = f" ({node.size:,} below, best {best})" if best else f" ({node.size:,} below)"
    forms = (longest, f" ({node.size:,}, best {best})" if best else f" ({node.size:,})", f" ({node.size:,})")
    return next((form for form in forms if len(form) <= room), forms[-1])


def _indent(line: Line, room: int) -> str:
    """The branches above a line; of a deep line's only the last levels, behind a mark."""
    if not line.depth:
        return ""
    levels = max(1, room // 2 - 1)
    own = "└─" if line.last else "├─"
    above = line.depth - 1
    kept = min(above, levels)
    rails = "".join("│ " if line.rails >> level & 1 else "  " for level in range(kept - 1, -1, -1))
    return ("⋯ " if kept < above else "") + rails + own


def state_text(found: Experiment, seen: Seen) -> Span:
    """Where an experiment stands, in words."""
    if found.step == "closed":
        style = {"ranked": "", "failed": "warn", "rejected": "warn"}.get(found.outcome, "dim")
        return (found.outcome, style)
    if found.id in seen.asking:
        return ("asks for you", "warn")
    running = running_trial(found, seen.model)
    if running is not None:
        return (f"training {progress(seen.model, running)}", "accent")
    return ("waits for a slot" if found.step == "train" else words.STEPS[found.step], "accent")


def running_trial(found: Experiment, model: Model) -> Trial | None:
    """The trial of an experiment that runs now."""
    trials = (model.state.trials.get(name) for name in reversed(found.trials))
    return next((trial for trial in trials if trial is not None and trial.status == "running"), None)


def _sign(node: Node, seen: Seen) -> Span:
    """A sign for what a line is: asking, at work, the best, or not to be told from the best."""
    found = node.experiment
    if found.id in seen.asking:
        return ("! ", "warn")
    if found.step != "closed":
        return ("… ", "accent")
    if node is seen.best:
        return ("★ ", "good")
    if node.dead:
        return ("× ", "faint")
    top = seen.best.experiment.scored if seen.best is not None else None
    if top is not None and found.scored is not None and node.founder is not None and overlaps(found.scored, top):
        return ("~ ", "dim")
    return ("  ", "")


def overlaps(one: ExperimentScored, best: ExperimentScored) -> bool:
    """Whether an interval reaches into that of the best: the order of the two is not known."""
    return words.known(one.low, one.high) and words.known(best.low, best.high) and one.high >= best.low


def _generation(node: Node, columns: Columns) -> list[Span]:
    return [("  " + fit(f"{node.generation}", GENERATION, "right"), "faint")] if columns.generation else []


def _score_spans(node: Node, seen: Seen, columns: Columns) -> list[Span]:
    event = node.experiment.scored
    if event is None or node.score == NOTHING:
        text, style = state_text(node.experiment, seen)
        room = SCORE + 1 + WORD + 2 + columns.edge
        return [("  " + fit(text if cell_len(text) <= room else text.removeprefix("training "), room), style)]
    verdict = words.verdict(event.low, event.high)
    tone = VERDICT_TONES.get(verdict, "")
    if node.founder is None:
        verdict, tone = "", "dim"
    return [("  " + fit(words.score_cell(event.score, event.low, event.high), SCORE), tone),
            (" " + fit(verdict, WORD), tone or "dim")]  # fmt: skip


def _edge_spans(node: Node, columns: Columns) -> list[Span]:
    if node.score == NOTHING:
        return []
    gain = gain_span(node.experiment, columns.edge > 9)
    return [("  ", ""), (fit(gain[0], columns.edge), gain[1])] if gain[0] else []


def gain_span(found: Experiment, with_margin: bool) -> Span:
    """What an experiment gained against its parent: an arrow that says whether it is known, and the difference."""
    event = found.scored
    if event is None or event.against_parent is None:
        return ("", "")
    verdict = words.verdict(event.against_parent_low, event.against_parent_high)
    tone = VERDICT_TONES.get(verdict, "dim")
    if not with_margin:
        return (f"{ARROWS[verdict]}{words.signed(event.against_parent):>6}", tone)
    cell = words.score_cell(event.against_parent, event.against_parent_low, event.against_parent_high)
    return (f"{ARROWS[verdict]} {cell}", tone)
