"""Commands that only look: status, leaderboard, show, transcript, approvals, audit, rebuild."""

from __future__ import annotations

import argparse
import csv
import json
import sys
import time
from pathlib import Path

import msgspec

from asi_tui.commands.common import DONE, FAILED, USAGE, CommandError, find_run, latched_words
from asi_tui.safe import clean, clean_lines
from asi_tui.words import scored, span
from engine.client.records import read_latch
from engine.client.rundir import RunPaths, engine_pid
from store.blobs import BlobError, Blobs
from store.journal import JournalCorrupt, read
from store.state import Experiment, RunState, fold


def load_state(root: Path) -> RunState:
    """Fold the run's journal; what is on disk is the truth. Raises `CommandError`."""
    state = RunState()
    try:
        for record in read(RunPaths(root).journal):
            state = fold(state, record)
    except JournalCorrupt as error:
        raise CommandError(f"{root.name}: {error}; `asi audit --verify` says more") from error
    return state


def _print_json(value: object) -> None:
    """JSON in ASCII: a program reads every character back, and a terminal acts on none."""
    print(json.dumps(msgspec.json.decode(msgspec.json.encode(value))))


def status(options: argparse.Namespace) -> int:
    """Say in a few lines how a run stands."""
    root = find_run(options.run)
    state = load_state(root)
    pid = engine_pid(root)
    latch = read_latch(root)
    best = next((e for e in state.ranking() if e.origin != "baseline"), None)
    closed = [e for e in state.proposals if not e.open]
    if options.json:
        summary = Status(
            state.name or root.name, state.phase, pid, state.seq, len(state.proposals), len(closed),
            sum(e.ranked for e in closed), len(state.pending), best.id if best else None,
            best.scored.score if best and best.scored else None,
            state.armed.level if state.armed else None, state.cpu_seconds,
            latch.actor if latch else None, latch.reason if latch else None,
        )  # fmt: skip
        _print_json(summary)
        return DONE
    engine = f"engine pid {pid}" if pid else "no engine"
    phase = latched_words(root, pid is not None) or _phase(state, pid is not None)
    print(f"{root.name}: {phase} ({engine}), {state.seq} records")
    armed = state.armed
    level = "not armed"
    if armed is not None:
        level = f"sandbox {armed.level}, last drill {armed.processes} dead in {armed.killed_ms:.0f} ms"
    print(f"  {len(state.proposals)} proposals, {len(closed)} closed, {len(state.pending)} wait for approval, {level}")
    print(f"  {span(state.cpu_seconds)} of CPU in trials")
    if best is not None and best.scored is not None:
        print(f"  best: {clean(best.id)} {clean(best.title, 80)}: {scored(best.scored)}")
    return DONE


def _phase(state: RunState, alive: bool) -> str:
    """The phase, and why where that is recorded."""
    reason = f", {clean(state.phase_reason, 120)}" if state.phase_reason else ""
    return f"{state.phase}{reason}" if alive else "not running"


class Status(msgspec.Struct):
    """What `asi status --json` prints."""

    run: str
    phase: str
    engine_pid: int | None
    records: int
    proposals: int
    closed: int
    ranked: int
    pending: int
    best: str | None
    best_score: float | None
    sandbox_level: str | None
    cpu_seconds: float
    latched_by: str | None = None
    latched_because: str | None = None


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


def leaderboard(options: argparse.Namespace) -> int:
    """Print the ranking, best first."""
    root = find_run(options.run)
    state = load_state(root)
    rows = [_row(number, entry, state) for number, entry in enumerate(state.ranking(), 1)]
    if options.json:
        _print_json(rows)
    elif options.csv:
        writer = csv.writer(sys.stdout)
        writer.writerow(Row.__struct_fields__)
        for row in rows:
            writer.writerow(clean(cell) if isinstance(cell, str) else cell for cell in msgspec.structs.astuple(row))
    elif not rows:
        print("nothing is ranked yet")
    else:
        print(f"{'':>3} {'experiment':<22} {'score':>7}  {'95 % interval':<17} {'seeds':>5} {'vs parent':>9}  title")
        for entry in state.ranking():
            print(_line(len([r for r in rows if r.score > _score(entry)]) + 1, entry))
        print("score: mean difference to the baseline over the tasks, in units of the noise floor")
    return DONE


def _score(entry: Experiment) -> float:
    return entry.scored.score if entry.scored else 0.0


def _line(rank: int, entry: Experiment) -> str:
    scored = entry.scored
    assert scored is not None
    known = abs(scored.low) < 1e8
    bounds = f"[{scored.low:+.2f}, {scored.high:+.2f}]" if known else "unknown"
    parent = f"{scored.against_parent:+9.2f}" if scored.against_parent is not None else f"{'-':>9}"
    mark = "*" if (scored.against_parent_low or 0.0) > 0 else " "
    numbers = f"{scored.score:+7.2f}  {bounds:<17} {scored.seeds:>5} {parent}{mark}"
    return f"{rank:>3} {clean(entry.id):<22} {numbers} {clean(entry.title, 60)}"


def _row(rank: int, entry: Experiment, state: RunState) -> Row:
    scored = entry.scored
    assert scored is not None
    trials = state.finished_trials(entry.id)
    return Row(
        rank, entry.id, entry.title, entry.origin, entry.parent, scored.score, scored.low, scored.high, scored.seeds,
        scored.against_parent, scored.against_parent_low, entry.parameters, entry.state_floats,
        round(sum(trial.cpu_seconds for trial in trials), 1),
    )  # fmt: skip


def show(options: argparse.Namespace) -> int:
    """One experiment's whole story, from sample to lesson."""
    from asi_tui.story import tell_story

    root = find_run(options.run)
    state = load_state(root)
    entry = state.experiments.get(options.experiment)
    if entry is None:
        raise CommandError(f"no experiment {options.experiment!r} in {root.name}; `asi leaderboard` lists them", USAGE)
    for line in tell_story(state, entry):
        print(line)
    if entry.program:
        try:
            source = Blobs(RunPaths(root).blobs).text(entry.program)
            print("", *clean_lines(source), sep="\n")
        except BlobError as error:
            raise CommandError(str(error)) from error
    return DONE


def transcript(options: argparse.Namespace) -> int:
    """What the agents were asked and answered for one experiment."""
    root = find_run(options.run)
    state = load_state(root)
    blobs = Blobs(RunPaths(root).blobs)
    calls = [call for call in state.calls.values() if call.experiment == options.experiment]
    if not calls:
        raise CommandError(f"no agent has worked on {options.experiment!r} in {root.name}", USAGE)
    for call in calls:
        moment = time.strftime("%T", time.localtime(call.started))
        print(clean(f"--- {call.role} ({call.agent})  {moment}  {call.seconds:.1f} s"))
        try:
            print(*(clean_lines(blobs.text(call.reply)) if call.reply else ["(no reply yet)"]), sep="\n")
        except BlobError as error:
            raise CommandError(str(error)) from error
    return DONE


def approvals(options: argparse.Namespace) -> int:
    """List the requests that wait for a person."""
    root = find_run(options.run)
    state = load_state(root)
    if options.json:
        _print_json(state.pending)
        return DONE
    if not state.pending:
        print("nothing waits for approval")
    for request in state.pending:
        entry = state.experiments[request.experiment]
        left = span(max(0.0, request.expires - time.time()))
        what = f"program {request.program[:12]}  tier {request.tier}"
        print(clean(f"{request.id}  {entry.id}  {clean(entry.title, 50)}  {what}"))
        about = f"about {entry.predicted_cpu_seconds:.0f} CPU-s"
        print(clean(f"      rule: {request.rule}; becomes a refusal in {left}; {about}"))
        for finding in entry.findings:
            line = f" (line {finding.line})" if finding.line else ""
            print(clean(f"      {finding.severity}: {finding.kind}: {finding.message}{line}"))
    return DONE


def audit(options: argparse.Namespace) -> int:
    """Every event in human words, or with --verify a check of the whole record."""
    from store.audit import describe, verify_run

    root = find_run(options.run)
    if options.verify:
        report = verify_run(root)
        for problem in sorted(report.problems):
            print(clean(str(problem)))
        print(
            f"{report.records} records, {report.blobs} blobs, {report.launches} launches checked: "
            + (f"{len(report.problems)} problems; the first bad record: {report.first}" if report.first else "all good")
        )
        print(f"head {report.head}")
        return DONE if report.ok else FAILED
    try:
        for record in read(RunPaths(root).journal):
            moment = time.strftime("%F %T", time.localtime(record.time))
            print(f"{record.seq:>6}  {moment}  {clean(record.actor, 80):<18}  {describe(record)}")
    except JournalCorrupt as error:
        raise CommandError(str(error)) from error
    return DONE


def rebuild(options: argparse.Namespace) -> int:
    """Make the database anew from the journal."""
    from store.projection import ProjectionError
    from store.projection import rebuild as rebuild_projection

    root = find_run(options.run)
    pid = engine_pid(root)
    if pid is not None:
        raise CommandError(f"the engine (pid {pid}) has the database open; `asi stop {root.name}` first", 4)
    try:
        report = rebuild_projection(root)
    except (ProjectionError, JournalCorrupt, OSError) as error:
        raise CommandError(str(error)) from error
    print(
        f"rebuilt from {report.records} records in {report.seconds:.2f} s: {report.experiments} experiments, "
        f"{report.trials} trials, {report.points} points"
    )
    return DONE
