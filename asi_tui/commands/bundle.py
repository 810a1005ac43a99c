"""`asi fork`, `asi export`, `asi import`: a run begun anew from one of its points, given away, and opened elsewhere."""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from asi_tui.commands.common import DONE, FAILED, REFUSED, USAGE, CommandError, find_run, who
from asi_tui.safe import clean
from asi_tui.terminals import is_terminal
from engine.client.records import read_latch
from engine.client.rundir import engine_pid, runs_home

if TYPE_CHECKING:
    from store.events import RunForked
    from store.extent import Extent

QUIET_SECONDS = 1.0
REDRAW_SECONDS, LINE_SECONDS = 0.2, 15.0


class Progress:
    """How far a long copy is, on standard error: one line redrawn at a terminal, now and then a line elsewhere."""

    def __init__(self, what: str) -> None:
        self._what, self._live = what, sys.stderr.isatty()
        self._next = time.monotonic() + (QUIET_SECONDS if self._live else LINE_SECONDS)
        self._shown = False

    def tell(self, done: int, total: int) -> None:
        """Take in how many bytes of how many are done."""
        now = time.monotonic()
        if now < self._next:
            return
        from store.staging import size_words

        self._next = now + (REDRAW_SECONDS if self._live else LINE_SECONDS)
        share = 100 * done // max(1, total)
        line = f"{self._what}: {share} % of {size_words(total)}"
        print(f"\r{line:<60}" if self._live else line, end="" if self._live else "\n", file=sys.stderr, flush=True)
        self._shown = self._live

    def say(self, what: str) -> None:
        """Name a step of which it is not known how long it takes."""
        if self._live:
            print(f"\r{what:<60}", end="", file=sys.stderr, flush=True)
            self._shown = True

    def end(self) -> None:
        """Clear the line."""
        if self._shown:
            print(f"\r{'':<60}\r", end="", file=sys.stderr, flush=True)


@contextlib.contextmanager
def _told(what: str) -> Iterator[Progress]:
    """Progress of some work, whose failures become one line."""
    from store.bundle import BundleError
    from store.extent import ExtentError
    from store.forking import ForkError
    from store.staging import StagingError

    progress = Progress(what)
    try:
        yield progress
    except (BundleError, ForkError, StagingError) as error:
        raise CommandError(str(error), REFUSED) from error
    except ExtentError as error:
        raise CommandError(str(error), FAILED) from error
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        raise CommandError(f"{where}{error.strerror or error}; nothing was left behind", FAILED) from error
    finally:
        progress.end()


def fork(options: argparse.Namespace) -> int:
    """Start a new run from the point at which an experiment of another one was closed."""
    from store.forking import LAST, check_name, fork_run, free_name
    from store.signatures import said

    root = find_run(options.run)
    with _told("forking") as progress:
        name = options.name or free_name(root)
        check_name(name)
        made = fork_run(root, name, options.at, who(), said(options.reason or ""), _signed, progress.tell)
    where = f"the last record on disk ({made.event.seq})" if options.at == LAST else f"the end of {options.at}"
    print(f"{name}: forked from {root.name} at {where}, hash {made.event.head[:16]}…")
    if made.event.signed is not None:
        print(f"  signed by {clean(made.event.who)} with {clean(made.event.signed.key)}")
    if made.expired:
        print(f"  ended with it: {_listed(made.expired, 'pending request')}; {name} asks anew")
    if made.running:
        print(f"  under way by then: {_listed(made.running, 'trial')}; begun again in {name}")
    if read_latch(root) is not None:
        print(f"  {root.name} stays latched by its kill; that latch does not hold {name}")
    print(f"  {made.run}")
    print(f"  go on from there: asi run {name}")
    return DONE


def _listed(names: list[str], what: str) -> str:
    shown = ", ".join(clean(name, 60) for name in names[:8]) + (", …" if len(names) > 8 else "")
    return f"{len(names)} {what}{'s' if len(names) != 1 else ''} ({shown})"


def _signed(event: RunForked, extent: Extent) -> RunForked:
    """The event with the signature that the run asks for, checked as its engine would. Raises `CommandError`."""
    import msgspec

    from asi_tui.signing import order_of, signed_for, statement
    from store.blobs import BlobError, Blobs
    from store.signatures import SignatureError, genesis_of, receive

    state = extent.state
    fields = {"target": event.at, "program": event.head, "reason": event.reason}
    try:
        signed = signed_for(extent.run, "fork", fields, event.who, state=state, interactive=is_terminal())
        if signed is None:
            return event
        wanted = statement(state, order_of("fork", fields), event.who)
        wanted = msgspec.structs.replace(wanted, genesis=genesis_of(extent.run / "journal"))
        signers = Blobs(extent.run / "blobs").text(state.signers)
        person = receive(signed, wanted, signers, (), time.time())
    except (SignatureError, BlobError) as error:
        raise CommandError(f"not forked: {error}", REFUSED) from error
    return msgspec.structs.replace(event, who=person.who, signed=person.signed)


def export(options: argparse.Namespace) -> int:
    """Write a run as one archive: everything that is needed to check, open and reproduce it."""
    from asi_tui.bundling import about, environment, leaderboard
    from asi_tui.runbook import describe_crate, name_of, run_book
    from store.bundle import CRATE, RUNBOOK, SUFFIX, Writer
    from store.extent import survey
    from store.staging import size_words

    root = find_run(options.run)
    with _told("exporting") as progress:
        extent = survey(root)
        path = Path(options.output) if options.output else Path(f"{name_of(extent)}{SUFFIX}")
        if path.is_dir():
            path = path / f"{name_of(extent)}{SUFFIX}"
        with Writer(path, options.force) as writer:
            progress.say("making the leaderboard")
            board, machine = leaderboard(extent), environment()
            writer.add_run(extent, progress.tell)
            for name, content in about(extent, machine, board):
                writer.add(name, content)
            writer.add(RUNBOOK, run_book(extent, machine, board, writer.files, writer.problems))
            writer.add(CRATE, describe_crate(extent, machine, writer.files, board))
    print(f"{clean(str(path))}: {len(writer.files) + 1} files, {size_words(path.stat().st_size)}")
    print(f"  records 1 to {extent.seq}, hash {extent.head}")
    print(f"  {len(board[1])} ranked experiments; the run-book is {RUNBOOK} in it")
    if engine_pid(root) is not None:
        print("  the run goes on; what it has recorded since is not in it")
    for problem in writer.problems[:5]:
        print(f"asi: not as the record says: {clean(problem)}", file=sys.stderr)
    if writer.problems:
        print(f"asi: {len(writer.problems)} problems; the run-book names them", file=sys.stderr)
    return FAILED if writer.problems else DONE


def open_again(options: argparse.Namespace) -> int:
    """Open a bundle, an unpacked one, or a copy of a run directory as a run of this machine, verified."""
    from asi_tui.bundling import compare_leaderboards
    from store.forking import check_name
    from store.unpacking import open_bundle

    path = Path(options.path).expanduser()
    if not path.exists():
        raise CommandError(f"{path} does not exist", USAGE)
    rows: list[int | None] = []
    with _told("importing") as progress:
        name = options.name or _name_in(path)
        check_name(name)
        opened = open_bundle(
            path, runs_home() / name, lambda run: rows.append(compare_leaderboards(run)), options.despite_audit,
            progress.tell,
        )  # fmt: skip
    report = opened.report
    seal = f"{opened.files} files match the manifest" if opened.sealed else f"{opened.files} files, without a manifest"
    print(f"{name}: {seal}; {report.records} records, hash {report.head}")
    if report.ok:
        print(f"  chain, {report.blobs} blobs, curves and the approvals of {report.launches} launches are in order")
    else:
        print(f"  the audit found {len(report.problems)} problems, the first: {clean(str(report.first))}")
    if rows[0] is not None:
        print(f"  the leaderboard made from the journal is the one that was published: {rows[0]} rows")
    elif opened.sealed:
        print("  it has no published leaderboard to compare with")
    print(f"  {opened.run}")
    print(f"  look: asi leaderboard {name}; before asi run {name}, read its run.toml and asi policy show {name}")
    return DONE


def _name_in(path: Path) -> str:
    """What a bundle's own configuration calls the run."""
    from store.config import ConfigError, parse
    from store.unpacking import peek

    try:
        return parse(peek(path, "run.toml").decode(), "run.toml").name
    except (ConfigError, UnicodeDecodeError) as error:
        raise CommandError(f"{path.name}: {error}", REFUSED) from error
