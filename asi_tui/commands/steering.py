"""Commands by which people govern a run: decisions and votes, one experiment, autonomy, questions to the Researcher."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from asi_tui.commands.common import DONE, FAILED, REFUSED, USAGE, CommandError, find_run, who
from asi_tui.commands.control import tell
from asi_tui.commands.look import load_state
from asi_tui.safe import clean_lines
from engine.client.rundir import RunPaths
from store.blobs import BlobError, Blobs
from store.state import Call, Request, RunState

ANSWER_SECONDS = 600.0
CODE_LENGTH = 4


def decide(options: argparse.Namespace) -> int:
    """approve, reject, defer: each of the named requests; the others are tried where one is refused."""
    root = find_run(options.run)
    if options.command == "reject" and not options.reason:
        raise CommandError("a rejection needs a reason, it reaches the Researcher: asi reject ID --reason '…'", USAGE)
    state, refused = load_state(root), ""
    for target in dict.fromkeys(options.ids):
        try:
            program = _bound(state, target, options)
            print(tell(root, options.command, who=who(), target=target, program=program, reason=options.reason or ""))
        except CommandError as error:
            if len(options.ids) == 1 or error.code != REFUSED:
                raise
            refused = str(error)
            print(f"{target}: {refused}")
    if refused:
        raise CommandError("not every one was decided; the lines above say why", REFUSED)
    return DONE


def _bound(state: RunState, target: str, options: argparse.Namespace) -> str:
    """The hash of the program that is decided on: what was pending when this was asked, and nothing else.

    Raises:
        CommandError: it is risky, and its code was not given, or is another one.
    """
    request = _request(state, target)
    if request is None or not request.program:
        return ""
    if options.command == "approve" and _is_risky(state, request):
        code = request.program[:CODE_LENGTH]
        if not options.code:
            raise CommandError(
                f"{request.id} is of risk {request.risk} or has findings of high severity; after reading `asi show "
                f"{request.experiment}`: asi approve {request.id} --code {code}", REFUSED,
            )  # fmt: skip
        if len(options.code) < CODE_LENGTH or not request.program.startswith(options.code.lower()):
            raise CommandError(f"{options.code!r} is not the beginning of {request.id}'s hash, {code}…", REFUSED)
    return request.program


def _request(state: RunState, target: str) -> Request | None:
    return state.requests.get(target) or next((one for one in state.pending if one.experiment == target), None)


def _is_risky(state: RunState, request: Request) -> bool:
    findings = state.experiments[request.experiment].findings
    return request.risk in ("R2", "R3") or any(finding.severity == "high" for finding in findings)


def undo(options: argparse.Namespace) -> int:
    """Take one's own answer to a request back, before it takes effect."""
    root = find_run(options.run)
    request = _request(load_state(root), options.id)
    print(tell(root, "undo", who=who(), target=request.id if request else options.id))
    return DONE


def steer(options: argparse.Namespace) -> int:
    """hold, release, cancel: one experiment, while the rest goes on."""
    root = find_run(options.run)
    reason = getattr(options, "reason", None) or ""
    print(tell(root, options.command, who=who(), target=options.experiment, reason=reason))
    return DONE


def vote(options: argparse.Namespace) -> int:
    """Open a vote of the listed supervisors, on pausing the run or on ending an experiment."""
    print(tell(find_run(options.run), "vote", who=who(), target=options.what, reason=options.reason or ""))
    return DONE


def autonomy(options: argparse.Namespace) -> int:
    """Say, or change, how much a run may do by itself."""
    level = (options.level or "").upper()
    run = options.run
    if level and level not in ("A0", "A1", "A2", "A3", "A4"):
        if run is not None:
            raise CommandError(f"no autonomy level {options.level!r}; levels: A0, A1, A2, A3, A4", USAGE)
        level, run = "", options.level
    root = find_run(run)
    if not level:
        print(load_state(root).autonomy)
    else:
        print(tell(root, "autonomy", who=who(), target=level, reason=options.reason or ""))
    return DONE


def ask(options: argparse.Namespace) -> int:
    """Ask the Researcher about an experiment and wait for the answer."""
    root = find_run(options.run)
    question = " ".join(options.question)
    begin = time.time()
    print(tell(root, "ask", who=who(), target=options.experiment, reason=question))
    call = _answered(root, options.experiment, begin)
    if not call.ok:
        raise CommandError(f"no answer: {call.error}", FAILED)
    try:
        text = Blobs(RunPaths(root).blobs).text(call.reply)
    except BlobError as error:
        raise CommandError(str(error)) from error
    print("\n".join(clean_lines(_plain(text))))
    return DONE


def _plain(text: str) -> str:
    """The words of an answer, which the record keeps with what surrounds them."""
    import msgspec

    class Words(msgspec.Struct):
        text: str

    try:
        return msgspec.json.decode(text, type=Words).text
    except msgspec.MsgspecError:
        return text


def _answered(root: Path, experiment: str, since: float) -> Call:
    """Wait for the Researcher's answer to what was asked. Raises `CommandError`."""
    until = time.monotonic() + ANSWER_SECONDS
    while time.monotonic() < until:
        time.sleep(0.5)
        calls = [c for c in load_state(root).calls.values() if c.experiment == experiment and c.started >= since - 1]
        done = [call for call in calls if call.role == "researcher" and (call.reply or not call.ok)]
        if done:
            return done[-1]
    raise CommandError(f"no answer within {ANSWER_SECONDS:.0f} s; later: asi transcript {experiment}")
