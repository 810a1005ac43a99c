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
        told = about[:1].upper() + about[1:]
        added = commands.add_parser(name, help=about, description=told if told.endswith("?") else f"{told}.")
        if run:
            added.add_argument("run", nargs="?", metavar="RUN", help="name or path of the run (default: the latest)")
        return added

    start = add("run", "start or resume a run's engine and attach to it")
    start.add_argument("--headless", action="store_true", help="plain progress lines instead of the app")
    start.add_argument("--experiments", type=_count, metavar="N", help="end the run after N proposals in all")
    start.add_argument("--config", metavar="FILE", help="a run.toml for a new run")
    start.add_argument("--policy", metavar="P", help="for a new run: cautious, trusting, paranoid, or a policy file")
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
    _add_deciding(add)
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
    _add_audit(add)
    _add_cognition(add)
    _add_policy(add)
    _add_stats(add)
    _add_bundle(add)
    add("rebuild", "make the database anew from the journal")
    drill = add("drill", "kill a stubborn sandboxed tree by the real path and prove it; touches no trial", run=False)
    drill.add_argument("run", nargs="?", metavar="RUN", help="drill on the disk of this run (default: a temporary one)")
    drill.add_argument("--json", action="store_true")
    add("doctor", "say what this machine offers: isolation, drill, versions", run=False).add_argument(
        "--json", action="store_true"
    )
    return made


def _add_deciding(add: Callable[..., argparse.ArgumentParser]) -> None:
    """The words by which people govern a run."""
    add("approvals", "list what waits for a person").add_argument("--json", action="store_true")
    for name in ("approve", "reject", "defer"):
        decision = add(name, f"{name} requests, by request or experiment id", run=False)
        decision.add_argument("ids", nargs="+", metavar="ID")
        decision.add_argument("--run", metavar="RUN")
        decision.add_argument("--reason", help="goes on record; a rejection's reaches the Researcher")
        if name == "approve":
            decision.add_argument("--code", metavar="HASH", help="where it is risky: the first letters of its hash")
    undo = add("undo", "take your answer to a request back, before it takes effect", run=False)
    undo.add_argument("id", metavar="ID")
    undo.add_argument("--run", metavar="RUN")
    for name, about in (
        ("hold", "start nothing new for one experiment; the others go on"),
        ("release", "let a held experiment go on"),
        ("cancel", "end one experiment; the others go on"),
    ):
        one = add(name, about, run=False)
        one.add_argument("experiment", metavar="EXPERIMENT")
        one.add_argument("run", nargs="?", metavar="RUN", help="name or path of the run (default: the latest)")
        if name != "release":
            one.add_argument("--reason", help="goes on record")
    vote = add("vote", "ask the listed supervisors: shall the run pause, or an experiment end?", run=False)
    vote.add_argument("what", metavar="pause|EXPERIMENT")
    vote.add_argument("run", nargs="?", metavar="RUN", help="name or path of the run (default: the latest)")
    vote.add_argument("--reason", help="is shown to those who vote")
    level = add("autonomy", "say or change how much a run may do by itself: A0 propose only … A4 free", run=False)
    level.add_argument("level", nargs="?", metavar="LEVEL", help="A0, A1, A2 (as the policy says), A3, A4")
    level.add_argument("run", nargs="?", metavar="RUN", help="name or path of the run (default: the latest)")
    level.add_argument("--reason", help="goes on record")
    asked = add("ask", "ask the Researcher about an experiment, and wait for the answer", run=False)
    asked.add_argument("experiment", metavar="EXPERIMENT")
    asked.add_argument("question", nargs="+", metavar="WORD")
    asked.add_argument("--run", metavar="RUN")


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


def _add_policy(add: Callable[..., argparse.ArgumentParser]) -> None:
    """The words on which programs may train without asking."""
    policy = add("policy", "show, list, try or set the policy that decides which programs may train", run=False)
    whats = policy.add_subparsers(dest="what", metavar="show|list|check|set", required=True)
    shown = whats.add_parser("show", help="print the policy in force, or a built-in one")
    shown.add_argument("run", nargs="?", metavar="RUN|NAME", help="a run (default: the latest) or a built-in policy")
    whats.add_parser("list", help="name the built-in policies")
    checked = whats.add_parser("check", help="say which rule takes each of the last proposals; needs no engine")
    checked.add_argument("policy", nargs="?", metavar="FILE|NAME", help="and what this policy would have done")
    checked.add_argument("run", nargs="?", metavar="RUN", help="name or path of the run (default: the latest)")
    checked.add_argument("--last", type=_count, default=20, metavar="N", help="so many proposals (default: 20)")
    checked.add_argument("--why", action="store_true", help="say of every rule why it matches or does not")
    checked.add_argument("--json", action="store_true")
    put = whats.add_parser("set", help="put a policy in force in a running engine; an invalid one changes nothing")
    put.add_argument("policy", metavar="FILE|NAME", help="a file, or a built-in policy")
    put.add_argument("run", nargs="?", metavar="RUN", help="name or path of the run (default: the latest)")
    put.add_argument("--reason", help="goes on record")


def _add_audit(add: Callable[..., argparse.ArgumentParser]) -> None:
    """The words on the record and whether it is whole."""
    audit = add("audit", "print every event in human words, or check the whole record")
    kinds = "decision, launch, kill, promotion, policy, or a kind such as trial.started"
    audit.add_argument("--kind", metavar="KIND", help=f"only {kinds}")
    audit.add_argument("--who", metavar="NAME", help="only what this person, or engine, policy, guard did")
    audit.add_argument("--experiment", metavar="EXPERIMENT", help="only of this one")
    audit.add_argument("--since", type=duration, metavar="TIME", help="only of the last so long, such as 8h")
    audit.add_argument("--until", type=duration, metavar="TIME", help="only what is older than so long, such as 1h")
    audit.add_argument("--last", type=_count, metavar="N", help="only the last N of them")
    audit.add_argument("--verify", action="store_true", help="check chain, blobs, signatures, approvals, launches")
    audit.add_argument("--anchor", metavar="A", help="with --verify: SEQ:HASH, a file or a repository of anchors")
    audit.add_argument("--json", action="store_true")
    anchor = add("anchor", "print the record's head; kept elsewhere, it shows whether history was rewritten")
    anchor.add_argument("--git", metavar="REPO", help="commit it to asi-anchors/RUN.txt there; nothing is pushed")
    anchor.add_argument("--json", action="store_true")


def _add_stats(add: Callable[..., argparse.ArgumentParser]) -> None:
    """The word for figures over a whole run."""
    stats = add("stats", "say what people were asked and decided, and what went without asking", run=False)
    stats.add_argument("what", choices=("oversight",), metavar="oversight", help="what people and the policy decided")
    stats.add_argument("run", nargs="?", metavar="RUN", help="name or path of the run (default: the latest)")
    stats.add_argument("--json", action="store_true")


def _add_bundle(add: Callable[..., argparse.ArgumentParser]) -> None:
    """The words that begin a run anew, give one away, and open one that was given."""
    fork = add("fork", "start a new run from a point of another one, with what it knew by then; needs no engine")
    fork.add_argument("--at", required=True, metavar="EXPERIMENT", help="up to its end; last: all that is on disk")
    fork.add_argument("--name", metavar="NEW", help="of the new run, beside the other (default: RUN-fork-1, …)")
    fork.add_argument("--reason", help="goes on record")
    export = add("export", "write a run as one archive to check, open and reproduce it elsewhere; needs no engine")
    export.add_argument("-o", "--output", metavar="FILE", help="default: RUN.crate.zip")
    export.add_argument("--force", action="store_true", help="write over a file that is there")
    opened = add("import", "open an exported run, or a copy of a run directory, verified", run=False)
    opened.add_argument("path", metavar="PATH", help="the archive, the folder it was unpacked to, or a run directory")
    opened.add_argument("--name", metavar="NEW", help="of the run here (default: what it is called)")
    opened.add_argument("--despite-audit", action="store_true", help="open it though its audit finds something")


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


STEERING = {
    **dict.fromkeys(("approve", "reject", "defer"), "decide"),
    **dict.fromkeys(("hold", "release", "cancel"), "steer"),
    **{name: name for name in ("undo", "vote", "autonomy", "ask")},
}


def handler(command: str) -> Callable[[argparse.Namespace], int]:
    """The function behind a subcommand; imports only what it needs."""
    if command in ("run", "attach", "watch", "ps", "vet", "drill", "doctor"):
        from asi_tui.commands import start

        return getattr(start, command)
    if command == "cognition":
        from asi_tui.commands.cognition import cognition

        return cognition
    if command == "policy":
        from asi_tui.commands.policy import policy

        return policy
    if command == "leaderboard":
        from asi_tui.commands import board

        return board.leaderboard
    if command in ("status", "show", "transcript", "approvals", "brief", "rebuild"):
        from asi_tui.commands import look

        return getattr(look, command)
    if command in ("audit", "anchor"):
        from asi_tui.commands import audit

        return getattr(audit, command)
    if command == "stats":
        from asi_tui.commands.stats import stats

        return stats
    if command in ("replay", "screenshot", "serve"):
        from asi_tui.commands import show

        return getattr(show, command)
    if command in ("fork", "export", "import"):
        from asi_tui.commands import bundle

        return getattr(bundle, "open_again" if command == "import" else command)
    if command == "kill":
        from asi_tui.commands import emergency

        return lambda options: emergency.kill(options.run, options.reason)
    if command in STEERING:
        from asi_tui.commands import steering

        return getattr(steering, STEERING[command])
    from asi_tui.commands import control

    table = dict.fromkeys(("pause", "resume", "freeze", "park"), "simple")
    return getattr(control, table.get(command, command))
