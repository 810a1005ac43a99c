"""`asi leaderboard`: the ranking from the journal; a condition, an order and files from the run's database."""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path
from typing import Any

import msgspec

from asi_tui.board_files import WriteError, board_table, csv_text, markdown_text, write_table
from asi_tui.collect import CollectError, View, all_rows
from asi_tui.commands.common import DONE, REFUSED, CommandError, find_run
from asi_tui.commands.look import load_state, print_json
from asi_tui.safe import clean
from engine.client.protocol import Answer, BoardRow
from engine.client.rundir import RunPaths, engine_pid
from store.state import Experiment, RunState


class Row(msgspec.Struct):
    """One row of `asi leaderboard`; scores are in units of the noise floor."""

    rank: int
    experiment: str
    title: str
    origin: str
    parent: str
    score: float
    low: float
    high: float
    seeds: int
    against_parent: float | None
    against_parent_low: float | None
    parameters: int
    state_floats: int
    cpu_seconds: float


class _Once:
    """Asks a running engine, each question on a line of its own."""

    def __init__(self, root: Path) -> None:
        self._root = root

    async def query(self, name: str, target: str = "", **fields: Any) -> Answer:
        """Ask something. Raises `NotConnected`."""
        from engine.client.connection import ask_once

        return await ask_once(self._root, name, query=True, target=target, **fields)


def leaderboard(options: argparse.Namespace) -> int:
    """Print the ranking, best first, or as it was asked for."""
    root = find_run(options.run)
    view = View(options.sort, False, options.where)
    if options.markdown or options.parquet:
        return _as_file(options, _board(root, view))
    state = load_state(root)
    entries = state.ranking()
    ranks = {entry.id: rank for rank, entry in enumerate(entries, 1)}
    if view != View():
        chosen = [row.experiment for row in _board(root, view)]
        entries = [state.experiments[name] for name in chosen if name in ranks]
    rows = [_row(ranks[entry.id], entry, state) for entry in entries]
    if options.json:
        print_json(rows)
    elif options.csv:
        sys.stdout.write(csv_text(Row.__struct_fields__, [list(msgspec.structs.astuple(row)) for row in rows]))
    elif not rows:
        print("no row satisfies the condition" if options.where else "nothing is ranked yet")
    else:
        print(f"{'':>5} {'experiment':<22} {'score':>7}  {'95 % interval':<17} {'seeds':>5} {'vs parent':>9}  title")
        for entry in entries:
            print(_line(ranks[entry.id], entry))
        print("score: mean difference to the baseline over the tasks, in units of the noise floor")
    return DONE


def _as_file(options: argparse.Namespace, rows: list[BoardRow]) -> int:
    heads, cells = board_table(rows)
    if options.markdown:
        sys.stdout.write(markdown_text(heads, cells))
    if options.parquet:
        path = Path(options.parquet)
        if path.suffix.lower() != ".parquet":
            raise CommandError("the name of a Parquet file ends in .parquet")
        try:
            write_table(path, heads, cells)
        except WriteError as error:
            raise CommandError(str(error).split("; ")[0], REFUSED) from error
        print(f"{len(cells)} rows written to {clean(str(path))}", file=sys.stderr)
    return DONE


def _board(root: Path, view: View) -> list[BoardRow]:
    """Rows from the run's database: asked of its engine, or of one made from the journal while none has it open.

    Raises:
        CommandError: the condition or the order is wrong, or nothing answers.
    """
    if engine_pid(root) is None:
        return from_journal(root, view)
    try:
        return asyncio.run(all_rows(_Once(root), view))
    except CollectError as error:
        raise CommandError(str(error), REFUSED) from error


def from_journal(root: Path, view: View) -> list[BoardRow]:
    """The run's own database stays untouched: an engine may want it at any moment."""
    from store.journal import JournalCorrupt
    from store.projection import ProjectionError, open_in_step

    paths = RunPaths(root)
    with tempfile.TemporaryDirectory(prefix="asi-board-") as folder:
        copy = Path(folder)
        (copy / "journal").symlink_to(paths.journal.resolve(), target_is_directory=True)
        (copy / "trials").symlink_to(paths.trials.resolve(), target_is_directory=True)
        try:
            projection, _ = open_in_step(copy)
            try:
                rows, _ = projection.board(10**9, view.order, where=view.where, reverse=view.reverse)
            finally:
                projection.close()
        except ValueError as error:
            raise CommandError(str(error), REFUSED) from error
        except (ProjectionError, JournalCorrupt, OSError) as error:
            raise CommandError(str(error)) from error
    return [msgspec.convert(row, BoardRow, from_attributes=True) for row in rows]


def _line(rank: int, entry: Experiment) -> str:
    scored = entry.scored
    assert scored is not None
    known = abs(scored.low) < 1e8
    bounds = f"[{scored.low:+.2f}, {scored.high:+.2f}]" if known else "unknown"
    parent = f"{scored.against_parent:+9.2f}" if scored.against_parent is not None else f"{'-':>9}"
    mark = "*" if (scored.against_parent_low or 0.0) > 0 else " "
    numbers = f"{scored.score:+7.2f}  {bounds:<17} {scored.seeds:>5} {parent}{mark}"
    return f"{rank:>5} {clean(entry.id):<22} {numbers} {clean(entry.title, 60)}"


def _row(rank: int, entry: Experiment, state: RunState) -> Row:
    scored = entry.scored
    assert scored is not None
    trials = state.finished_trials(entry.id)
    return Row(
        rank, entry.id, entry.title, entry.origin, entry.parent, scored.score, scored.low, scored.high, scored.seeds,
        scored.against_parent, scored.against_parent_low, entry.parameters, entry.state_floats,
        round(sum(trial.cpu_seconds for trial in trials), 1),
    )  # fmt: skip
