"""The words of the `asi` command, for everything but the emergency stop, and the function behind each of them."""

from __future__ import annotations

import argparse
from collections.abc import Callable


def parser(kind: type[argparse.ArgumentParser] = argparse.ArgumentParser) -> argparse.ArgumentParser:
    """The words that `asi` understands; `kind` decides what becomes of errors and of help."""
    made = kind(
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
    start.add_argument("--replay", metavar="OTHER", help="propose again what run OTHER proposed, from its record")
    add("attach", "attach the app to a running engine")
    watch = add("watch", "follow a run in plain lines, one per event; also for screen readers")
    watch.add_argument("--plain", action="store_true", help="as it always is")
    watch.add_argument("--quiet", action="store_true", help="no lines on progress, only what happens")
    _add_shows(add)
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
    board.add_argument("--markdown", action="store_true")
    board.add_argument("--parquet", metavar="FILE", help="write a new file")
    board.add_argument("--where", default="", metavar="EXPR", help="only rows for which this DuckDB expression holds")
    board.add_argument("--sort", default="rank", metavar="COLUMN", help="such as score, parameters, cpu_seconds")
    for name, about in (
        ("show", "tell one experiment's story and print its program"),
        ("transcript", "print what the agents said for one experiment"),
    ):
        look = add(name, about, run=False)
        look.add_argument("experiment", metavar="EXPERIMENT")
        look.add_argument("run", nargs="?", metavar="RUN")
    brief = add("brief", "say what needs you, what changed, what is left of the budget, what comes next")
    brief.add_argument("--since", type=duration, metavar="TIME", help="how far back, such as 8h (default: last looked)")
    brief.add_argument("--json", action="store_true")
    audit = add("audit", "print every event in human words")
    audit.add_argument("--verify", action="store_true", help="check chain, blobs, approvals; name the first bad record")
    _add_cognition(add)
    add("rebuild", "make the database anew from the journal")
    drill = add("drill", "kill a stubborn sandboxed tree by the real path and prove it; touches no trial", run=False)
    drill.add_argument("run", nargs="?", metavar="RUN", help="drill on the disk of this run (default: a temporary one)")
    drill.add_argument("--json", action="store_true")
    add("doctor", "say what this machine offers: isolation, drill, versions", run=False).add_argument(
        "--json", action="store_true"
    )
    return made


def _add_shows(add: Callable[..., argparse.ArgumentParser]) -> None:
    """The words that show a run later or elsewhere."""
    from asi_tui.commands.show import window

    place = "a time, a share (40%), a record's number or an experiment"
    replay = add("replay", "play a recorded run in the same screens; changes nothing, needs no engine")
    replay.add_argument("--speed", type=_count, default=60, metavar="N", help="N times as fast (default: 60)")
    replay.add_argument("--at", metavar="PLACE", help=f"begin there: {place}")
    picture = add("screenshot", "write a picture of a screen as SVG, live or from the record")
    picture.add_argument("--screen", default="mission", metavar="S", help="a number, a name, brief, or an experiment")
    picture.add_argument("--size", type=window, default=(160, 45), metavar="WxH", help="columns x lines (160x45)")
    picture.add_argument("--theme", choices=("dark", "light", "plain"), default="dark")
    picture.add_argument("--at", metavar="PLACE", help=f"from the record, there: {place}")
    picture.add_argument("--output", metavar="FILE", help="default: RUN-SCREEN.svg")
    picture.add_argument("--force", action="store_true", help="write over a file that is there")
    serve = add("serve", "attach from a browser of this machine (needs the extra `browser`)")
    serve.add_argument("--port", type=_count, default=8000, metavar="PORT")


def _add_cognition(add: Callable[..., argparse.ArgumentParser]) -> None:
    """The words on the library of papers."""
    library = add("cognition", "list, show, search or add what is known from papers; needs no engine", run=False)
    whats = library.add_subparsers(dest="what", metavar="list|show|search|add", required=True)
    whats.add_parser("list", help="one line an entry").add_argument("--json", action="store_true")
    shown = whats.add_parser("show", help="print one entry")
    shown.add_argument("id", metavar="ID")
    shown.add_argument("--json", action="store_true")
    asked = whats.add_parser("search", help="find entries by symptoms, mechanisms or titles")
    asked.add_argument("words", nargs="+", metavar="WORDS")
    asked.add_argument("--json", action="store_true")
    added = whats.add_parser("add", help="check a file (TOML, or ASI-Arch's JSON) and add what it holds")
    added.add_argument("path", metavar="PATH")
    added.add_argument("run", nargs="?", metavar="RUN", help="only for this run (default: for all of yours)")


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return value


_UNITS = {"s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}


def duration(text: str) -> float:
    """Seconds in `90s`, `30m`, `8h`, `2d`."""
    number, unit = text[:-1], text[-1:]
    try:
        value = float(number) * _UNITS[unit]
    except (KeyError, ValueError):
        raise argparse.ArgumentTypeError(f"{text!r} is no time; say it like 30m, 8h or 2d") from None
    if not 0.0 < value < 1e9:
        raise argparse.ArgumentTypeError(f"{text!r} is too much or too little")
    return value


def handler(command: str) -> Callable[[argparse.Namespace], int]:
    """The function behind a subcommand; imports only what it needs."""
    if command in ("run", "attach", "watch", "ps", "vet", "drill", "doctor"):
        from asi_tui.commands import start

        return getattr(start, command)
    if command == "cognition":
        from asi_tui.commands.cognition import cognition

        return cognition
    if command == "leaderboard":
        from asi_tui.commands import board

        return board.leaderboard
    if command in ("status", "show", "transcript", "approvals", "audit", "brief", "rebuild"):
        from asi_tui.commands import look

        return getattr(look, command)
    if command in ("replay", "screenshot", "serve"):
        from asi_tui.commands import show

        return getattr(show, command)
    if command == "kill":
        from asi_tui.commands import emergency

        return lambda options: emergency.kill(options.run, options.reason)
    from asi_tui.commands import control

    table = {"approve": "decide", "reject": "decide", "defer": "decide"}
    table |= dict.fromkeys(("pause", "resume", "freeze", "park"), "simple")
    return getattr(control, table.get(command, command))
