"""`asi audit` and `asi anchor`: what happened in human words, whether the record is whole, and how to keep it so."""

from __future__ import annotations

import argparse
import collections
import difflib
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from asi_tui.blind import Me, blind
from asi_tui.commands.common import DONE, FAILED, USAGE, CommandError, find_run, login
from asi_tui.commands.look import load_state, print_json
from asi_tui.safe import clean
from engine.client.protocol import AuditLine, Verified
from engine.client.rundir import RunPaths
from store import anchors
from store import events as ev
from store.anchors import Anchor, AnchorError
from store.journal import JournalCorrupt, read

GIT_SECONDS = 60.0
FOLDER = "asi-anchors"

GROUPS: dict[str, tuple[type, ...]] = {
    "decision": (
        ev.ApprovalRequested, ev.ApprovalVoted, ev.ApprovalWithdrawn, ev.ApprovalDecided, ev.AttentionChecked,
    ),
    "launch": (ev.TrialStarted,),
    "kill": (ev.RunKilled, ev.TrialKilled, ev.LeaseLost, ev.RunRearmed),
    "policy": (ev.PolicyAdopted, ev.SignersAdopted, ev.AutonomyChanged),
    "promotion": (),
}  # fmt: skip
"""Words for kinds that belong together. A promotion is an experiment's first launch at another tier than before."""


def audit(options: argparse.Namespace) -> int:
    """Every event in human words, or with --verify a check of the whole record."""
    root = find_run(options.run)
    if options.verify:
        return _verify(root, options)
    if options.anchor:
        raise CommandError("an anchor is compared by: asi audit --verify --anchor …", USAGE)
    keeps = _wanted(options)
    try:
        found: Iterator[AuditLine] | collections.deque[AuditLine]
        found = _lines(root, keeps, bool(options.who))
        if options.last:
            found = collections.deque(found, options.last)
        if options.json:
            print_json(list(found))
            return DONE
        for line in found:
            moment = time.strftime("%F %T", time.localtime(line.time))
            print(f"{line.seq:>6}  {moment}  {clean(line.actor, 80):<18}  {line.text}")
    except JournalCorrupt as error:
        raise CommandError(str(error)) from error
    return DONE


# --- which records ---------------------------------------------------------------------------------------------------


def _wanted(options: argparse.Namespace) -> Callable[[ev.Record, str, bool], bool]:
    """Whether a record is asked for, by its experiment and whether it is a promotion. Raises `CommandError`."""
    kinds = _kinds(options.kind or "")
    now = time.time()
    begin = now - options.since if options.since is not None else 0.0
    end = now - options.until if options.until is not None else float("inf")

    def keeps(record: ev.Record, experiment: str, promotion: bool) -> bool:
        of_kind = promotion if options.kind == "promotion" else not kinds or isinstance(record.data, kinds)
        return (
            of_kind
            and begin <= record.time <= end
            and (not options.experiment or experiment == options.experiment)
            and (not options.who or options.who in _people(record))
        )

    return keeps


def _kinds(name: str) -> tuple[type, ...]:
    """The kinds that a word stands for: a group, a kind such as `trial.started`, or its first half."""
    if not name or name in GROUPS:
        return GROUPS.get(name, ())
    tags = {str(kind.__struct_config__.tag): kind for kind in ev.AnyEvent.__args__}
    found = tuple(kind for tag, kind in tags.items() if name in (tag, tag.partition(".")[0]))
    if not found:
        words = [*GROUPS, *tags]
        near = difflib.get_close_matches(name, words, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}?" if near else f"such as {', '.join(GROUPS)}, or trial.started"
        raise CommandError(f"no kind of event {name[:60]!r}; {hint}", USAGE)
    return found


def _people(record: ev.Record) -> set[str]:
    """Everybody whom a record names as its doer, with and without where they came from."""
    named = f"{record.actor}, {getattr(record.data, 'who', '')}"
    people = {name.removeprefix("person:").strip() for name in named.split(", ")}
    return people | {name.partition("@")[0] for name in people} | {record.actor}


def _lines(root: Path, keeps: Callable[[ev.Record, str, bool], bool], by_name: bool) -> Iterator[AuditLine]:
    """What is kept, in words; what others have answered where this person has yet to decide is not told.

    by_name: records are sought by who did something, so that finding one would tell who it was.
    """
    from store.audit import describe

    state, me = load_state(root), Me(login(), {})
    requests: dict[str, str] = {}
    tiers: dict[str, set[str]] = {}
    for record in read(RunPaths(root).journal):
        event = record.data
        if isinstance(event, ev.ApprovalRequested):
            requests[event.request] = event.experiment
        experiment = getattr(event, "experiment", "") or requests.get(getattr(event, "request", ""), "")
        promotion = False
        if isinstance(event, ev.TrialStarted):
            known = tiers.setdefault(experiment, set())
            promotion = bool(known) and event.tier not in known
            known.add(event.tier)
        if keeps(record, experiment, promotion):
            line = AuditLine(
                record.seq, record.time, record.actor, event.kind, experiment, describe(record), record.hash,
                record.prev,
            )  # fmt: skip
            shown = blind(state, me, line)
            if shown is line or not by_name:
                yield shown


# --- whether they are whole ------------------------------------------------------------------------------------------


def _verify(root: Path, options: argparse.Namespace) -> int:
    from store.audit import verify_run

    kept = _anchors(root, options.anchor) if options.anchor else []
    report = verify_run(root, kept)
    problems = sorted(report.problems)
    if options.json:
        rows = [(problem.seq, problem.what) for problem in problems]
        print_json(Verified(report.records, report.head, report.blobs, report.launches, rows))
        return DONE if report.ok else FAILED
    for problem in problems:
        print(clean(str(problem), 400))
    count = f"{report.records} records, {report.blobs} blobs, {report.launches} launches"
    count += f", {report.signatures} signatures" if report.signatures else ""
    count += f", {report.anchors} of {len(kept)} anchors" if kept else ""
    first = f"{len(problems)} problems; the first bad record: {report.first}" if report.first else "all good"
    print(clean(f"{count} checked: {first}", 600))
    print(f"head {report.head}")
    return DONE if report.ok else FAILED


def _anchors(root: Path, given: str) -> list[Anchor]:
    """The anchors in SEQ:HASH, in a file, or committed to a git repository. Raises `CommandError`."""
    path = Path(given).expanduser()
    try:
        if path.is_dir():
            inside = f"{FOLDER}/{root.name}.txt"
            _check_repository(path)
            text = _git(path, "show", f"HEAD:./{inside}")
            return anchors.parse_lines(text, root.name, inside)
        if path.is_file():
            with path.open("rb") as file:
                text = file.read(anchors.MAX_BYTES).decode("utf-8", "replace")
            return anchors.parse_lines(text, root.name, path.name)
        return [anchors.parse_pair(given)]
    except OSError as error:
        raise CommandError(f"{given}: {error.strerror}") from error
    except AnchorError as error:
        raise CommandError(str(error), USAGE) from error


# --- anchors ---------------------------------------------------------------------------------------------------------


def anchor(options: argparse.Namespace) -> int:
    """Print the head of the record, and with --git commit it to a repository."""
    root = find_run(options.run)
    try:
        head = anchors.head_of(root.name, RunPaths(root).journal)
    except AnchorError as error:
        raise CommandError(str(error)) from error
    told = _commit(Path(options.git).expanduser(), head) if options.git else ""
    if options.json:
        print_json(head._asdict())
        return DONE
    print(head)
    if told:
        print(told)
    return DONE


def _commit(repository: Path, head: Anchor) -> str:
    """Append an anchor to its file in a repository and commit that file alone; never pushes. Raises `CommandError`."""
    if not repository.is_dir():
        raise CommandError(f"{repository} is no directory; name a git repository", USAGE)
    _check_repository(repository)
    if any(character in head.run for character in "/\\\0\n ") or head.run.startswith((".", "-")):
        raise CommandError(f"the run's name {clean(head.run, 60)!r} cannot name a file there")
    name = f"{FOLDER}/{head.run}.txt"
    try:
        (repository / FOLDER).mkdir(exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(repository / name, flags, 0o644), "r+b") as file:
            lines = file.read(anchors.MAX_BYTES).decode("utf-8", "replace").splitlines()
            if str(head) not in lines:
                file.write(f"{head}\n".encode())
                file.flush()
                os.fsync(file.fileno())
    except OSError as error:
        raise CommandError(f"{repository / name}: {error.strerror}") from error
    _git(repository, "add", "--", name)
    if not _git(repository, "status", "--porcelain", "--", name).strip():
        return f"record {head.seq} is committed there already; nothing to commit"
    _git(repository, "commit", "--quiet", "-m", f"Anchor of {head.run} at record {head.seq}", "--", name)
    made = _git(repository, "rev-parse", "--short", "HEAD").strip()
    return f"committed to {name} ({made}); push it where others see it"


def _check_repository(path: Path) -> None:
    """Raise `CommandError` where a directory is not inside a git repository."""
    try:
        _git(path, "rev-parse", "--show-toplevel")
    except CommandError as error:
        if "not a git repository" in str(error):
            raise CommandError(f"{path} is not a git repository; first: git init", USAGE) from None
        raise


def _git(repository: Path, *words: str) -> str:
    """What git says. Raises `CommandError` with the last line of its complaint."""
    environment = {**os.environ, "LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0", "GIT_EDITOR": "true"}
    try:
        done = subprocess.run(
            ["git", "-C", str(repository), *words], stdin=subprocess.DEVNULL, capture_output=True, env=environment,
            timeout=GIT_SECONDS, check=False,
        )  # fmt: skip
    except FileNotFoundError:
        raise CommandError("git is not installed") from None
    except subprocess.TimeoutExpired:
        raise CommandError(f"git {words[0]} gave no answer within {GIT_SECONDS:.0f} s") from None
    if done.returncode:
        said = [line for line in (done.stderr or done.stdout).decode("utf-8", "replace").splitlines() if line.strip()]
        raise CommandError(f"git {words[0]}: {clean(said[0], 300) if said else 'failed'}")
    return done.stdout.decode("utf-8", "replace")
