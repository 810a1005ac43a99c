"""What stands beside or below the tree: the chosen experiment, the way to it, and how branches share the pool."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len

from asi_tui import words
from asi_tui.ancestry import COLLAPSE_FROM, COLLAPSE_SHARE, NOTHING, POOL, Ancestry, Node, Share, Shares
from asi_tui.folding import Line
from asi_tui.lines import BLANK, Row, Span, Tag, bar, clip, fit, paragraph, row, rule, tagged
from asi_tui.screens.lineage.lines import Seen, gain_span, group_text, state_text
from asi_tui.screens.parts import VERDICT_TONES, fact

BRANCHES = 6
"""So many branches have a bar; the others share one."""


def panel(tree: Ancestry, line: Line, seen: Seen, width: int, height: int) -> list[Row]:
    """The column beside the tree."""
    node = line.node
    branches = [BLANK, *share_rows(tree.shares(), width)]
    way = [BLANK, rule("from the root to here", width, words.plural(node.generation, "step")),
           *path_rows(node, width, 4)]  # fmt: skip
    room = height - len(branches) - len(way)
    rows = _chosen(line, seen, width)
    if len(rows) > room >= 6:
        rows = [*rows[: room - 1], row((" … Enter shows all of it", "faint"))]
    return [*rows, *way, *branches]


def _chosen(line: Line, seen: Seen, width: int) -> list[Row]:
    node = line.node
    found = node.experiment
    if line.kind != "node":
        rows = [rule(f"children of {words.short_id(found)}", width)]
        return [*rows, *paragraph(f"{group_text(line)}. Enter unfolds and folds them.", width, "dim")]
    state, tone = state_text(found, seen)
    why = found.reason or found.failure
    rows = [rule(found.id, width), *paragraph(words.title(found), width, "strong")]
    rows += _styled_fact("state", [(state, tone), (f": {why}" if why and not found.scored else "", "")], width)
    rows += _score_facts(node, width)
    came = {"baseline": "a baseline", "person": "written by a person"}.get(found.origin, f"by the {found.origin}")
    came = "a control: its parent was drawn at random" if found.control else came
    rows += fact("came from", f"{came}, generation {node.generation}", width)
    if node.parent is not None:
        rows += fact("parent", f"{node.parent.id} {words.title(node.parent.experiment)}", width)
    if found.references:
        rows += fact("references", ", ".join(found.references[:8]), width)
    if node.size:
        best = f", the best of all that {words.signed(node.best)}" if node.best != NOTHING else ""
        children = f"{len(node.children):,} of them its children" if node.size != len(node.children) else "all children"
        rows += fact("descendants", f"{node.size:,}, {children}{best}", width)
    told = (("change", found.change), ("hypothesis", found.hypothesis), ("lesson", "; ".join(found.lessons)))
    for name, text in told:
        rows += fact(name, text, width) if text else []
    return rows


def _styled_fact(name: str, spans: Sequence[Span], width: int) -> list[Row]:
    return [clip(row((f" {name:<12} ", "dim"), *spans), width)]


def _score_facts(node: Node, width: int) -> list[Row]:
    event = node.experiment.scored
    if event is None:
        return []
    verdict = words.verdict(event.low, event.high)
    seeds = f", {words.plural(event.seeds, 'seed')}"
    what = "the reference is 0" if node.founder is None else f"{verdict} than the baseline"
    what = "not told apart from the baseline" if verdict == "open" and node.founder is not None else what
    rows = _styled_fact("score", [(words.scored(event), VERDICT_TONES.get(verdict, "strong")),
                                  (f"  {what}{seeds}", "dim")], width)  # fmt: skip
    if event.against_parent is not None:
        low, high = event.against_parent_low, event.against_parent_high
        verdict = words.verdict(low, high)
        known = {"better": "better than its parent", "worse": "worse than its parent"}
        gain = (words.score(event.against_parent, low, high), VERDICT_TONES.get(verdict, ""))
        rows += _styled_fact("vs parent", [gain, (f"  {known.get(verdict, 'may be chance')}", "dim")], width)
    return rows


# --- the way from the root -------------------------------------------------------------------------------------------


def path_rows(node: Node, width: int, most: int) -> list[Row]:
    """The way from the root to a node with what each step gained; steps in the middle go where there is no room."""
    steps = [_step(one) for one in node.path()]
    room = (width - 2) * most - 16 * most
    kept: list[Row] = []
    used = _width(steps[0])
    for step in reversed(steps[1:]):
        used += 3 + _width(step)
        if used > room and kept:
            break
        kept.insert(0, step)
    missing = len(steps) - 1 - len(kept)
    middle = [row((f"… {missing:,} more …", "faint"))] if missing else []
    return _flow([steps[0], *middle, *kept], width)


def _step(node: Node) -> Row:
    gain, tone = gain_span(node.experiment, False)
    name: Row = row((words.short_id(node.experiment), "accent"), (f" {gain.replace(' ', '')}" if gain else "", tone))
    if node.parent is not None and not gain:
        name = (*name, (" ?", "faint"))
    return tagged(name, node.id)


def _width(step: Row) -> int:
    return sum(cell_len(text) for text, _ in step)


def _flow(steps: Sequence[Row], width: int) -> list[Row]:
    """Steps one after another with arrows, in as many rows as they need."""
    rows: list[Row] = []
    current: list[Span] = [(" ", "")]
    used = 1
    for index, step in enumerate(steps):
        arrow = 3 if index else 0
        if used + arrow + _width(step) > width - 1 and index:
            rows.append(tuple(current))
            current, used = [("   ", "")], 3
        if index:
            current.append((" → " if used > 3 else "→ ", "faint"))
            used += 3
        current += step
        used += _width(step)
    return [*rows, tuple(current)]


# --- branches --------------------------------------------------------------------------------------------------------


def share_rows(shares: Shares, width: int) -> list[Row]:
    """How the pool divides among branches, as bars, and whether one owns too much."""
    rows = [rule("branches", width, f"share of the {shares.pool} best" if shares.pool else "")]
    if not shares.scored:
        return [*rows, row((" nothing is scored yet", "dim"))]
    proposals = shares.pool - shares.baselines_in_pool
    shown = [share for share in shares.branches if share.in_pool][:BRANCHES]
    length = max(8, min(30, width - 42))
    for share in shown:
        rows.append(_share_row(share, shares.pool, length, width))
    others = proposals - sum(share.in_pool for share in shown)
    for number, name in ((others, "other branches"), (shares.baselines_in_pool, "baselines")):
        if number:
            part = number / shares.pool
            rows.append(clip(row((f" {fit(name, 24)} ", "dim"), (bar(part, length), "faint"),
                                 (f" {part:4.0%} {number:>4}", "dim")), width))  # fmt: skip
    return [*rows, *paragraph(*_verdict(shares, width))]


def _share_row(share: Share, pool: int, length: int, width: int) -> Row:
    found = share.founder.experiment
    part = share.in_pool / max(1, pool)
    tone = "warn" if part > COLLAPSE_SHARE else "accent"
    line = row((" ", ""), (fit(f"{found.id} {words.title(found)}", 24), ""), (" ", ""), (bar(part, length), tone),
               (f" {part:4.0%}", "strong"), (f" {share.in_pool:>4}", "dim"))  # fmt: skip
    return tuple((text, Tag(style, found.id)) for text, style in clip(line, width))


def _verdict(shares: Shares, width: int) -> tuple[str, int, str]:
    largest = shares.largest
    assert largest is not None
    part = largest.scored / shares.scored
    name = largest.founder.id
    what = f"{part:.0%} of all {shares.scored:,} scored proposals descend from {name}"
    if shares.collapsed:
        return (f"COLLAPSE: {what}, more than half: the search lives off one idea.", width, "warn")
    if shares.scored < COLLAPSE_FROM:
        return (f"{what}. From {COLLAPSE_FROM} scored proposals on, more than half is a collapse.", width, "dim")
    return (f"{what}. No collapse: that begins at more than half.", width, "dim")


def share_line(shares: Shares, width: int) -> Row:
    """The largest branches in one line, where there is no room for bars."""
    if not shares.scored:
        return row((" branches: nothing is scored yet", "dim"))
    if shares.collapsed:
        largest = shares.largest
        assert largest is not None
        part = f"{largest.scored / shares.scored:.0%} of all {shares.scored:,} scored"
        return clip(row((f" COLLAPSE: {part} descend from {largest.founder.id}; alarm above 50%", "warn")), width)
    shown = [share for share in shares.branches if share.in_pool][:3]
    spans: list[Span] = [(f" of the {min(POOL, shares.pool)} best: ", "dim")]
    for index, share in enumerate(shown):
        spans += [(", " if index else "", "dim"), (f"{share.in_pool / shares.pool:.0%}", "strong"),
                  (f" from {share.founder.id}", "")]  # fmt: skip
    left = shares.pool - sum(share.in_pool for share in shown)
    return clip(row(*spans, (f", {left / shares.pool:.0%} others" if left else "", "dim")), width)
