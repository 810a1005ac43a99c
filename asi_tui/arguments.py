"""The words of the `asi` command, for everything but the emergency stop, and the function behind each of them."""

from __future__ import annotations

import argparse
from collections.abc import Callable


def parser() -> argparse.ArgumentParser:
    """The words that `asi` understands."""
    made = argparse.ArgumentParser(
        prog="asi",
        description="Supervise an autonomous research loop that invents linear-attention architectures.",
        epilog="RUN is a name or a path; without one, the latest. "
        "Exit codes: 0 done, 1 failed, 2 usage, 3 not running, 4 refused, 5 killed.",
    )
    commands = made.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def add(name: str, about: str, run: bool = True) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=about, description=about[:1].upper() + about[1:] + ".")
        if run:
            added.add_argument("run", nargs="?", metavar="RUN", help="name or path of the run (default: the latest)")
        return added

    start = add("run", "start or resume a run's engine and attach to it")
    start.add_argument("--headless", action="store_true", help="plain progress lines instead of the app")
    start.add_argument("--experiments", type=_count, metavar="N", help="end the run after N proposals in all")
    start.add_argument("--config", metavar="FILE", help="a run.toml for a new run")
    add("attach", "attach the app to a running engine")
    add("watch", "follow a run in plain lines").add_argument("--plain", action="store_true", help="as it always is")
    add("ps", "list runs, engines and sandboxes", run=False)
    add("status", "say how a run stands").add_argument("--json", action="store_true")
    for name, about in (
        ("pause", "start nothing new; running trials finish"),
        ("resume", "go on after pause, freeze or park"),
        ("freeze", "stop every trial in place"),
        ("park", "take the trials off the device; they run again on resume"),
    ):
        add(name, about).add_argument("--reason", help="goes on record")
    add("stop", "end the engine in order; `asi run` goes on")
    add("kill", "kill everything now and show the proof; latched").add_argument("--reason", help="goes into the latch")
    add("rearm", "lift the latch after a kill (then run) or a held freeze (then resume), with a drill").add_argument(
        "--reason", required=True, help="why it is safe again; goes on record"
    )
    end = add("end", "kill one running trial", run=False)
    end.add_argument("trial", metavar="TRIAL", help="its id, such as e0004-s0")
    end.add_argument("run", nargs="?", metavar="RUN", help="name or path of the run (default: the latest)")
    end.add_argument("--reason", help="goes on record")
    add("approvals", "list what waits for a person").add_argument("--json", action="store_true")
    for name in ("approve", "reject", "defer"):
        decision = add(name, f"{name} requests, by request or experiment id", run=False)
        decision.add_argument("ids", nargs="+", metavar="ID")
        decision.add_argument("--run", metavar="RUN")
        decision.add_argument("--reason", help="goes on record; a rejection's reaches the Researcher")
    vet = add("vet", "run the whole vetting battery on program files, sandboxed", run=False)
    vet.add_argument("files", nargs="+", metavar="FILE")
    vet.add_argument("--json", action="store_true")
    propose = add("propose", "hand program files to a run as your own proposals", run=False)
    propose.add_argument("files", nargs="+", metavar="FILE", help="program files; the last word may name the run")
    propose.add_argument("--run", metavar="RUN")
    propose.add_argument("--motivation", help="why it should work")
    propose.add_argument("--title")
    board = add("leaderboard", "print the ranking")
    board.add_argument("--json", action="store_true")
    board.add_argument("--csv", action="store_true")
    for name, about in (
        ("show", "tell one experiment's story and print its program"),
        ("transcript", "print what the agents said for one experiment"),
    ):
        look = add(name, about, run=False)
        look.add_argument("experiment", metavar="EXPERIMENT")
        look.add_argument("run", nargs="?", metavar="RUN")
    audit = add("audit", "print every event in human words")
    audit.add_argument("--verify", action="store_true", help="check chain, blobs, approvals; name the first bad record")
    add("rebuild", "make the database anew from the journal")
    drill = add("drill", "kill a stubborn sandboxed tree by the real path and prove it; touches no trial", run=False)
    drill.add_argument("run", nargs="?", metavar="RUN", help="drill on the disk of this run (default: a temporary one)")
    drill.add_argument("--json", action="store_true")
    add("doctor", "say what this machine offers: isolation, drill, versions", run=False).add_argument(
        "--json", action="store_true"
    )
    return made


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return value


def handler(command: str) -> Callable[[argparse.Namespace], int]:
    """The function behind a subcommand; imports only what it needs."""
    if command in ("run", "attach", "watch", "ps", "vet", "drill", "doctor"):
        from asi_tui.commands import start

        return getattr(start, command)
    if command in ("status", "leaderboard", "show", "transcript", "approvals", "audit", "rebuild"):
        from asi_tui.commands import look

        return getattr(look, command)
    if command == "kill":
        from asi_tui.commands import emergency

        return lambda options: emergency.kill(options.run, options.reason)
    from asi_tui.commands import control

    table = {"approve": "decide", "reject": "decide", "defer": "decide"}
    table |= dict.fromkeys(("pause", "resume", "freeze", "park"), "simple")
    return getattr(control, table.get(command, command))
