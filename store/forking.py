"""A new run that begins where another one was: the same journal up to there, byte for byte, and one record more."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec

from store import events as ev
from store.blobs import BlobError, Blobs
from store.chain import verify
from store.config import ConfigError, RunConfig, dump, load
from store.extent import CALLS, LAST, MAX_EXTRA, Extent, curve_files, extra_files, survey
from store.journal import Journal, JournalError
from store.staging import StagingError, Tell, create, open_below, pour, require_space, staged

ATTENTION = "attention.json"
"""Beside the journal: what opens the seals of experiments, some of which are tests of the supervisors' attention."""
MAX_ATTENTION = 64 * 1024 * 1024
FOLDERS = ("journal", "blobs", "trials", "procs")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")


class ForkError(Exception):
    """There is no new run; one line says why."""


class _Seals(msgspec.Struct):
    """As much of that file as has to be understood."""

    version: int
    experiments: dict[str, msgspec.Raw]


class Forked(NamedTuple):
    """What came of it: the event that says so, the pending requests that ended with it, and the trials cut short."""

    run: Path
    event: ev.RunForked
    expired: list[str]
    running: list[str]


Sign = Callable[[ev.RunForked, Extent], ev.RunForked]
"""Returns the event with the signature that the run asks for, and with the name that its signers have for the key."""


def check_name(name: str) -> None:
    """Raise `ForkError` for what cannot be the name of a run."""
    if _NAME.fullmatch(name) is None:
        raise ForkError(
            f"{name[:80]!r} cannot be a run's name: 1 to 64 letters, digits, dots, dashes or underscores, "
            "and no dot or dash at the beginning"
        )


def free_name(source: Path) -> str:
    """The first of `RUN-fork-1`, `RUN-fork-2`, … that is free beside the run."""
    number = 1
    while os.path.lexists(source.with_name(f"{source.name}-fork-{number}")):
        number += 1
    return f"{source.name}-fork-{number}"


def fork_run(
    source: Path,
    name: str,
    at: str,
    who: str,
    reason: str = "",
    sign: Sign = lambda event, extent: event,
    tell: Tell = lambda done, total: None,
) -> Forked:
    """Make the run `name` beside `source`, from its records up to the end of experiment `at` (or `LAST`).

    The new run has its own copy of everything but the blobs, which are shared by hard links where the disk can do that.
    Checkpoints of parked trials are not taken along: those trials begin again.

    Raises:
        ForkError, ExtentError, StagingError: it was not made; nothing of it is left.
        OSError: something cannot be read or written; nothing of it is left.
    """
    check_name(name)
    target = source.with_name(name)
    extent = survey(source, at)
    config = renamed(source, name)
    with staged(target) as made:
        fill(extent, made, tell)
        with create(made / "run.toml") as file:
            file.write(config.encode())
        if extent.state.policy:
            _policy_then(extent, made)
        event = ev.RunForked(name, extent.state.name or source.name, extent.seq, extent.head, at, who, reason=reason)
        event = sign(event, extent)
        try:
            _append(made, event, f"person:{event.who}")
        except JournalError as error:
            raise ForkError(str(error)) from error
    state = extent.state
    return Forked(target, event, [one.id for one in state.pending], [one.id for one in state.running_trials])


def renamed(run: Path, name: str, elsewhere: bool = False) -> str:
    """The text of a run's configuration under another name.

    elsewhere: it comes from another machine, whose files with keys and addresses mean nothing here.

    Raises:
        ForkError: it cannot be used.
    """
    try:
        config = load(run / "run.toml")
        if elsewhere:
            agents = msgspec.structs.replace(config.agents, key_file="")
            notify = msgspec.structs.replace(config.notify, urls_file="")
            config = msgspec.structs.replace(config, agents=agents, notify=notify)
        fields = msgspec.structs.asdict(config) | {"name": name}
        return dump(msgspec.convert(fields, RunConfig))
    except (ConfigError, msgspec.ValidationError) as error:
        raise ForkError(f"{run.name}: {error}") from error


def fill(extent: Extent, made: Path, tell: Tell, share: bool = True) -> None:
    """Put an extent's journal, blobs, curves, calls, seals, policy and papers into an empty directory.

    share: blobs may be hard links to those of the run, since nobody ever writes into one.

    Raises:
        ForkError: something is not what the journal says.
        StagingError: the disk is too full.
        OSError: something cannot be read or written.
    """
    for folder in FOLDERS:
        (made / folder).mkdir(mode=0o700)
    total = _needed(extent, made, share)
    require_space(made, total)
    done = 0

    def progress(size: int) -> None:
        nonlocal done
        done += size
        tell(done, max(done, total))

    for name, size in extent.segments:
        with open_below(extent.run, f"journal/{name}") as file, create(made / "journal" / name) as copy:
            pour(file, copy, size, progress)
    copied = verify(made / "journal")
    if not copied.ok or (copied.records, copied.head) != (extent.seq, extent.head):
        raise ForkError(f"{extent.run.name}: the journal changed while it was copied; `asi audit --verify` says more")
    for sha in extent.blobs:
        _take_blob(extent.run, made, sha, share)
    for trial, points in extent.curves.items():
        _copy_curve(extent.run, made, trial, points, progress)
    for name in extra_files(extent.run):
        with open_below(extent.run, name) as file, create(made / name) as copy:
            pour(file, copy, MAX_EXTRA, progress)
    if extent.calls:
        with create(made / CALLS) as copy:
            copy.writelines(extent.calls)
    _take_seals(extent, made)


def _needed(extent: Extent, made: Path, share: bool) -> int:
    """Bytes that the copy will take; blobs count where they cannot be linked."""
    needed = sum(size for _, size in extent.segments)
    files = [name for trial in extent.curves for name in curve_files(trial)]
    if not share or os.stat(extent.run).st_dev != os.stat(made).st_dev:
        files += [f"blobs/{sha}" for sha in extent.blobs]
    for name in files:
        path = extent.run / name
        needed += path.lstat().st_size if path.exists() else 0
    return needed


def _take_blob(run: Path, made: Path, sha: str, share: bool) -> None:
    try:
        content = Blobs(run / "blobs").get(sha)
    except BlobError as error:
        raise ForkError(f"{run.name}: {error}; `asi audit {run.name} --verify` says more") from error
    if share:
        try:
            return os.link(run / "blobs" / sha, made / "blobs" / sha, follow_symlinks=False)
        except OSError:
            pass  # another disk, or one without links
    with create(made / "blobs" / sha) as copy:
        copy.write(content)


def _copy_curve(run: Path, made: Path, trial: str, points: str, progress: Callable[[int], None]) -> None:
    """The points must be those whose hash the journal holds; a curve that was cleaned away stays away."""
    for name, sha in zip(curve_files(trial), (points, ""), strict=True):
        try:
            file = open_below(run, name)
        except FileNotFoundError:
            continue
        with file, create(made / name) as copy:
            got = pour(file, copy, os.fstat(file.fileno()).st_size, progress)
        if sha and got.sha256 != sha:
            raise ForkError(
                f"{run.name}: {name} is not what was scored; `asi audit {run.name} --verify` says more"
            )


def _take_seals(extent: Extent, made: Path) -> None:
    """Those of the experiments that are known by then: one that is sealed and cannot be opened may never run."""
    try:
        with open_below(extent.run, ATTENTION) as file:
            content = file.read(MAX_ATTENTION + 1)
        seals = msgspec.json.decode(content, type=_Seals)
    except FileNotFoundError:
        return
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise ForkError(f"{extent.run.name}: {ATTENTION} is damaged") from None
    seals.experiments = {name: seal for name, seal in seals.experiments.items() if name in extent.state.experiments}
    with create(made / ATTENTION) as copy:
        copy.write(msgspec.json.encode(seals))


def _policy_then(extent: Extent, made: Path) -> None:
    """The policy that was in force at that point, not what has become of it since."""
    content = Blobs(extent.run / "blobs").get(extent.state.policy)
    (made / "policy.toml").unlink(missing_ok=True)
    with create(made / "policy.toml") as file:
        file.write(content)


def _append(made: Path, event: ev.RunForked, actor: str) -> None:
    with Journal.open(made / "journal") as journal:
        journal.wait(journal.append(event, actor).seq)


__all__ = ["LAST", "ForkError", "Forked", "StagingError", "check_name", "fill", "fork_run", "free_name", "renamed"]
