"""Commands that show a run elsewhere or later: replay, screenshot, serve."""

from __future__ import annotations

import argparse
import os
import re
from pathlib import Path

from asi_tui.commands.common import DONE, FAILED, NOT_RUNNING, REFUSED, USAGE, CommandError, find_run, running_engine
from asi_tui.terminals import is_dumb, is_terminal
from engine.client.rundir import RunPaths, engine_pid

SMALLEST, LARGEST = 20, 500


def replay(options: argparse.Namespace) -> int:
    """Play a run in the same screens, from its journal alone."""
    root = _recorded(options.run)
    if is_dumb() or not is_terminal():
        raise CommandError(f"a replay needs a terminal; in lines, the record is: asi audit {root.name}", USAGE)
    from asi_tui.replay.opened import run_replay

    return run_replay(root, options.speed, options.at or "")


def _recorded(name: str | None) -> Path:
    root = find_run(name)
    if not RunPaths(root).journal.is_dir():
        raise CommandError(f"{root.name} has no journal: nothing is recorded", NOT_RUNNING)
    return root


def screenshot(options: argparse.Namespace) -> int:
    """Write a picture of one screen as an SVG file."""
    import asyncio

    root = _recorded(options.run)
    target = Path(options.output or f"{root.name}-{re.sub(r'[^A-Za-z0-9_.-]', '-', options.screen)}.svg")
    if target.exists() and not options.force:
        raise CommandError(f"{target} is there already; --force writes over it", REFUSED)
    from asi_tui.picture import NoPicture, live_app, replayed_app, take

    live = engine_pid(root) is not None and not options.at
    app = live_app(root, options.theme) if live else replayed_app(root, options.theme, options.at or "")
    try:
        picture = asyncio.run(take(app, options.screen.lower(), options.size))
    except NoPicture as error:
        raise CommandError(f"{root.name}: {error}", USAGE) from error
    try:
        _write(target, picture, options.force)
    except FileExistsError:
        raise CommandError(f"{target} is there already; --force writes over it", REFUSED) from None
    except OSError as error:
        raise CommandError(f"{target}: {error.strerror}", FAILED) from error
    print(f"{target}: {options.screen} of {root.name}, {'live' if live else 'from the record'}")
    return DONE


def _write(target: Path, text: str, force: bool) -> None:
    """Write a file that is not there yet, or replace one where that was asked for."""
    if force:
        from engine.client.rundir import atomic_write

        atomic_write(target, text.encode(), 0o644)
        return
    with open(target, "x", encoding="utf-8") as file:
        file.write(text)


def window(text: str) -> tuple[int, int]:
    """A size such as `160x45`; for the parser."""
    found = re.fullmatch(r"(\d{1,4})[x×](\d{1,4})", text)
    sizes = (int(found[1]), int(found[2])) if found else (0, 0)
    if not SMALLEST <= sizes[0] <= LARGEST or not 4 <= sizes[1] <= LARGEST:
        raise argparse.ArgumentTypeError(f"{text!r} is no size; columns x lines, such as 160x45")
    return sizes


def serve(options: argparse.Namespace) -> int:
    """Offer the terminal to a browser on this machine."""
    root = find_run(options.run)
    running_engine(root)
    if not 1 <= options.port <= 65_535:
        raise CommandError(f"{options.port} is no port", USAGE)
    try:
        from asi_tui.browser import serve_run
    except ImportError as error:
        if (error.name or "").split(".")[0] not in ("textual_serve", "aiohttp", "aiohttp_jinja2", "jinja2"):
            raise
        raise CommandError("this needs textual-serve: pip install 'asi[browser]'", FAILED) from error
    address = f"http://127.0.0.1:{options.port}"
    print(f"{root.name} at {address}, for browsers of this machine only; Ctrl+C ends it.")
    print("There is NO login: every user and every program of this machine that reaches the port steers the run.")
    print("The stop keys (F12, Ctrl+\\) take the ordinary way there, through server and app, not an input thread of")
    print("their own; `asi kill` in a shell is surer.", flush=True)
    try:
        serve_run(root, options.port)
    except OSError as error:
        raise CommandError(f"port {options.port}: {os.strerror(error.errno or 0)}", FAILED) from error
    return DONE
