"""Commands that only look: status, show, transcript, approvals, brief, rebuild."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import msgspec

from asi_tui.blind import Me, is_sealed
from asi_tui.commands.common import DONE, USAGE, CommandError, find_run, latched_words, login
from asi_tui.safe import clean, clean_lines
from asi_tui.words import scored, span
from engine.client.records import read_latch
from engine.client.rundir import RunPaths, engine_pid
from store import events as ev
from store.blobs import BlobError, Blobs
from store.folding import fold
from store.journal import JournalCorrupt, read
from store.state import Call, Request, RunState


def load_state(root: Path) -> RunState:
    """Fold the run's journal; what is on disk is the truth. Raises `CommandError`."""
    state = RunState()
    try:
        for record in read(RunPaths(root).journal):
            state = fold(state, record)
    except JournalCorrupt as error:
        raise CommandError(f"{root.name}: {error}; `asi audit --verify` says more") from error
    return state


def print_json(value: object) -> None:
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
        print_json(summary)
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
    blobs = Blobs(RunPaths(root).blobs)
    calls = _calls(root, options.experiment)
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


def _calls(root: Path, experiment: str) -> list[Call]:
    """Every call of an agent for an experiment; the state itself lets old ones go. Raises `CommandError`."""
    calls: dict[str, Call] = {}
    try:
        for record in read(RunPaths(root).journal):
            event = record.data
            if isinstance(event, ev.AgentCalled) and event.experiment == experiment:
                calls[event.call] = Call(
                    event.call, experiment, event.role, event.agent, event.prompt, record.time
                )
            elif isinstance(event, ev.AgentReplied) and event.call in calls:
                call = calls[event.call]
                call.reply, call.seconds, call.ok, call.error = event.reply, event.seconds, event.ok, event.error
    except JournalCorrupt as error:
        raise CommandError(f"{root.name}: {error}; `asi audit --verify` says more") from error
    return list(calls.values())


def approvals(options: argparse.Namespace) -> int:
    """List the requests that wait for a person."""
    root = find_run(options.run)
    state = load_state(root)
    if options.json:
        me = Me(login(), {})
        hidden = [msgspec.structs.replace(one, votes=[]) if is_sealed(one, me) else one for one in state.pending]
        print_json(hidden)
        return DONE
    if not state.pending:
        print("nothing waits for approval")
    for request in state.pending:
        for line in _pending(state, request):
            print(clean(line))
    return DONE


def _pending(state: RunState, request: Request) -> list[str]:
    """What waits, in a few lines. Who has voted on a program is not told: the second person decides blind."""
    left = span(max(0.0, request.expires - time.time()))
    if request.subject != "program":
        what = f"the end of {request.experiment}" if request.subject == "cancel" else "pausing the run"
        against = sum(vote.decision == "reject" for vote in request.votes)
        votes = f"{len(request.approvals)} for, {against} against; {request.people} of {request.of} have to agree"
        return [f"{request.id}  a vote on {what}: {request.question}", f"      {votes}; ends in {left}"]
    entry = state.experiments[request.experiment]
    people = f", {request.people} people" if request.people > 1 else ""
    bound = f"program {request.program[:12]}  tier {request.tier}  risk {request.risk}{people}"
    cost = f"about {entry.predicted_cpu_seconds:.0f} CPU-s a trial"
    lines = [
        f"{request.id}  {entry.id}  {clean(entry.title, 50)}  {bound}",
        f"      rule: {request.rule}; becomes a refusal in {left}; {cost}",
    ]
    if request.takes_effect:
        # Enough people have answered: there is nobody left who would have to decide without knowing.
        by = ", ".join(vote.who.removeprefix("person:") for vote in request.approvals)
        left = span(max(0.0, request.takes_effect - time.time()))
        lines.append(f"      approved by {by}; takes effect in {left}; asi undo {request.id}")
    for finding in entry.findings:
        line = f" (line {finding.line})" if finding.line else ""
        lines.append(f"      {finding.severity}: {finding.kind}: {finding.message}{line}")
    return lines


def brief(options: argparse.Namespace) -> int:
    """What needs you, what changed since you last looked, what is left of the budget, what comes next."""
    from asi_tui import briefing
    from asi_tui.seen import last_seen
    from asi_tui.sizes import size_of
    from store.config import ConfigError, RunConfig, load

    root = find_run(options.run)
    state = load_state(root)
    now, pid = time.time(), engine_pid(root)
    try:
        config = load(RunPaths(root).config)
    except ConfigError:
        config = RunConfig()
    since = now - options.since if options.since is not None else last_seen(root)
    latched = latched_words(root, pid is not None, why=True)
    facts = briefing.Situation(latched, pid is not None, size_of(root))
    found = briefing.brief(state, config, now, since, facts)
    if options.json:
        print_json(found)
    else:
        for line in briefing.told(found):
            print(line)
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
