"""Commands that start an engine or attach to one: run, attach, watch, ps, and the helpers that run beside it."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

from asi_tui.commands.common import (
    DONE,
    FAILED,
    KILLED,
    REFUSED,
    USAGE,
    CommandError,
    find_run,
    latched_words,
    running_engine,
)
from asi_tui.terminals import is_dumb, is_terminal
from engine.client.rundir import RunPaths, engine_pid, list_runs, runs_home

FIRST_RUN = "first"

HEADLESS_SECONDS, WATCH_SECONDS = 15.0, 60.0
"""Silence after which a line says how far the trials are: in a log, and where a person listens."""


def run(options: argparse.Namespace) -> int:
    """Start or resume the engine of a run, and attach."""
    from engine.client.launch import EngineFailed, start_engine

    if not options.headless:
        _refuse_dumb(f"asi run --headless{f' {options.run}' if options.run else ''}")
    root = _run_directory(options)
    pid = engine_pid(root)
    latched = latched_words(root, pid is not None, why=True)
    if latched:
        raise CommandError(f"{root.name}: {latched}", KILLED)
    if pid is None:
        try:
            start_engine(root, experiments=options.experiments)
        except EngineFailed as error:
            raise CommandError(str(error).removeprefix("asi: ")) from error
        except OSError as error:
            raise CommandError(f"{root}: {error.strerror}") from error
    elif options.experiments is not None:
        raise CommandError(
            f"{root.name} runs already (pid {pid}); its number of experiments was set when it started", REFUSED
        )
    return _attach(root, plain=options.headless, until_end=True)


def attach(options: argparse.Namespace) -> int:
    """Attach the terminal to a running engine."""
    root = find_run(options.run)
    running_engine(root)
    _refuse_dumb(f"asi watch --plain {root.name}")
    return _attach(root, plain=False, until_end=True)


def watch(options: argparse.Namespace) -> int:
    """Follow a run in plain lines, one per event; made for pipes and screen readers."""
    root = find_run(options.run)
    running_engine(root)
    return _attach(root, plain=True, until_end=True, progress=0.0 if options.quiet else WATCH_SECONDS)


def _refuse_dumb(instead: str) -> None:
    """Where a person sits at a terminal that cannot show the app, nothing is started: say what can be done there."""
    if is_terminal() and is_dumb():
        term = os.environ.get("TERM", "")
        raise CommandError(f"TERM={term or '(not set)'} cannot show the app; a line per event: {instead}", USAGE)


def _attach(root: Path, plain: bool, until_end: bool, progress: float = HEADLESS_SECONDS) -> int:
    if plain or not is_terminal():
        from asi_tui.plain import follow

        return follow(root, until_end=until_end, progress=progress)
    from asi_tui.app import run_app

    return run_app(root)


def _run_directory(options: argparse.Namespace) -> Path:
    """The run to start: an existing one, or a new directory with its configuration frozen into it."""
    from engine.client.proposer import settle
    from store.config import ConfigError, RunConfig, dump, load

    if options.replay is not None:
        return _replay_directory(options)
    if options.run is None and options.config is None:
        runs = list_runs()
        root = runs[0] if runs else runs_home() / FIRST_RUN
    else:
        named = options.run or (Path(options.config).stem if options.config else FIRST_RUN)
        looks_like_path = os.sep in named
        root = Path(named).expanduser().resolve() if looks_like_path else runs_home() / named
    paths = RunPaths(root)
    try:
        if paths.config.exists():
            if options.config is not None:
                known = f"{root.name} has its configuration already ({paths.config})"
                raise CommandError(f"{known}; start a new run", REFUSED)
            if options.policy is not None:
                raise CommandError(f"{root.name} has a policy in force; to change it: asi policy set", REFUSED)
            load(paths.config)
            return root
        config = settle(load(Path(options.config)) if options.config else RunConfig(), os.environ)
        import msgspec

        text = dump(msgspec.convert({**msgspec.structs.asdict(config), "name": root.name}, RunConfig))
        policy = _policy(options.policy) if options.policy is not None else ""
        paths.create()
        from engine.client.rundir import atomic_write

        if policy:
            atomic_write(root / "policy.toml", policy.encode())
        atomic_write(paths.config, text.encode())
        return root
    except ConfigError as error:
        raise CommandError(str(error), USAGE) from error
    except (msgspec_error(), ValueError) as error:
        allowed = "letters, digits, _ . - only"
        raise CommandError(f"{root.name!r} cannot be a run's name: {allowed} ({error})", USAGE) from error
    except OSError as error:
        raise CommandError(f"{root}: {error.strerror}; choose another place with XDG_DATA_HOME or a path") from error


def _policy(name: str) -> str:
    """The text of a built-in policy, or of a file, checked. Raises `CommandError`."""
    from store.policy import BUILT_IN_NAMES, PolicyError, built_in, parse_policy, warning

    try:
        text = built_in(name) if name in BUILT_IN_NAMES else Path(name).read_text(encoding="utf-8")
        odd = warning(parse_policy(text, Path(name).name))
    except PolicyError as error:
        raise CommandError(str(error), USAGE) from error
    except (OSError, UnicodeDecodeError) as error:
        known = f"and not one of {', '.join(BUILT_IN_NAMES)}"
        raise CommandError(f"{name}: no policy file that can be read, {known} ({error})", USAGE) from error
    if odd:
        print(f"warning: {odd}", file=sys.stderr)
    return text


def _replay_directory(options: argparse.Namespace) -> Path:
    """A new run that asks the recorded answers of another one instead of a model."""
    from engine.client.proposer import prepare_replay
    from store.config import ConfigError

    other = find_run(options.replay)
    named = options.run or f"{other.name}-replay"
    root = Path(named).expanduser().resolve() if os.sep in named else runs_home() / named
    if options.config is not None:
        raise CommandError("a replay has the configuration of the run that it replays", USAGE)
    try:
        prepare_replay(other, root)
    except ConfigError as error:
        raise CommandError(str(error), USAGE) from error
    except OSError as error:
        raise CommandError(f"{error.filename or root}: {error.strerror}", FAILED) from error
    return root


def msgspec_error() -> type[Exception]:
    """msgspec's validation error, imported late."""
    import msgspec

    return msgspec.ValidationError


def ps(options: argparse.Namespace) -> int:
    """List the runs of this user and the sandboxes that may be alive."""
    from engine.client.records import read_records

    runs = list_runs()
    if not runs:
        print("no runs yet; `asi run` starts one")
        return DONE
    width = max(len(root.name) for root in runs)
    for root in runs:
        pid = engine_pid(root)
        sandboxes, _ = read_records(root)
        state = f"running  pid {pid}" if pid else "not running"
        latched = latched_words(root, pid is not None)
        if latched:
            state = f"{f'pid {pid}  ' if pid else ''}{latched}"
        alive = f"  {len(sandboxes)} sandbox{'es' if len(sandboxes) > 1 else ''}" if sandboxes else ""
        print(f"{root.name:<{width}}  {state}{alive}  {root}")
    return DONE


def module(name: str, *arguments: str) -> int:
    """Run one of the engine's own programs in a process of its own; returns its exit code."""
    try:
        return subprocess.call([sys.executable, "-m", name, *arguments])
    except KeyboardInterrupt:
        return FAILED


def vet(options: argparse.Namespace) -> int:
    """Run the whole vetting battery on program files, sandboxed, without a run."""
    return module("engine.vet_files", *(["--json"] if options.json else []), *options.files)


def drill(options: argparse.Namespace) -> int:
    """Kill a stubborn sandboxed tree by the real path and say how that went."""
    place = ["--beside", str(find_run(options.run))] if options.run else []
    return module("engine.doctor", "--drill", *place, *(["--json"] if options.json else []))


def doctor(options: argparse.Namespace) -> int:
    """Say what this machine offers: isolation attack by attack, the drill, versions."""
    return module("engine.doctor", *(["--json"] if options.json else []))
