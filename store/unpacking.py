"""Opening a bundle: every file is checked against the manifest while it is copied, and the run is audited before it is
there at all.

A bundle comes from somebody else. Names outside of the layout, names that climb, links, duplicates, and archives that
would unpack to far more than they are, are refused before anything is written.
"""

from __future__ import annotations

import contextlib
import os
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol, cast

from store.audit import AuditReport, clean, verify_run
from store.bundle import (
    ABOUT,
    CRATE,
    LATEST,
    MANIFEST,
    MAX_FILES,
    MAX_MANIFEST,
    RUNBOOK,
    BundleError,
    is_folder,
    largest,
    parse_manifest,
)
from store.extent import ORIGIN, survey
from store.forking import FOLDERS, check_name, fill, renamed
from store.staging import Tell, create, open_below, pour, require_space, staged

MAX_RATIO = 200
"""An archive may unpack to so many times its size."""
FREE_BYTES = 256 * 1024 * 1024
"""Below this, what an archive unpacks to is no danger, whatever its ratio."""

DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, UnicodeDecodeError)

Check = Callable[[Path], None]
"""Looks at a run that is about to be there; raises `BundleError` against it."""


class Opened(NamedTuple):
    """A run that was opened: where, its audit, the number of files, and whether a manifest vouched for them."""

    run: Path
    report: AuditReport
    files: int
    sealed: bool


class _Source(Protocol):
    """Where files come from."""

    def sizes(self) -> dict[str, int]:
        """Every file with its size. Raises `BundleError` for what may not be there."""

    def open(self, name: str) -> BinaryIO:
        """One file."""


class _Archive:
    """A zip file."""

    def __init__(self, path: Path, file: zipfile.ZipFile) -> None:
        self._path, self._zip = path, file

    def sizes(self) -> dict[str, int]:
        found: dict[str, int] = {}
        entries = self._zip.infolist()
        if len(entries) > MAX_FILES:
            raise BundleError(f"{self._path.name} holds {len(entries)} files; at most {MAX_FILES} are opened")
        for entry in entries:
            mode = entry.external_attr >> 16
            if entry.flag_bits & 1:
                raise BundleError(f"{_shown(entry.filename)} is encrypted; a bundle is not")
            if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise BundleError(f"{_shown(entry.filename)} is a link or no plain file; that belongs into no bundle")
            if not is_folder(entry.filename):
                _admit(entry.filename, entry.file_size, found)
        total, packed = sum(found.values()), self._path.stat().st_size
        if total > FREE_BYTES and total > MAX_RATIO * packed:
            raise BundleError(f"{self._path.name} would unpack to {total // max(1, packed)} times its size; refused")
        return found

    def open(self, name: str) -> BinaryIO:
        return cast(BinaryIO, self._zip.open(name))


class _Folder:
    """An unpacked bundle."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def sizes(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for folder, folders, files in os.walk(self._path):
            for name in folders + files:
                path = Path(folder, name)
                inside = path.relative_to(self._path).as_posix()
                status = path.lstat()
                if stat.S_ISREG(status.st_mode):
                    _admit(inside, status.st_size, found)
                elif not stat.S_ISDIR(status.st_mode):
                    raise BundleError(f"{_shown(inside)} is a link or no plain file; that belongs into no bundle")
            if len(found) > MAX_FILES:
                raise BundleError(f"{self._path.name} holds more than {MAX_FILES} files")
        return found

    def open(self, name: str) -> BinaryIO:
        return open_below(self._path, name)


def _shown(name: str) -> str:
    return repr(clean(name, 120))


def _admit(name: str, size: int, found: dict[str, int]) -> None:
    most = largest(name)
    if most is None:
        raise BundleError(f"{_shown(name)} belongs into no bundle; nothing was opened")
    if size > most:
        raise BundleError(f"{_shown(name)} has {size} bytes, at most {most} are opened")
    if name in found:
        raise BundleError(f"{_shown(name)} is there twice; nothing was opened")
    found[name] = size


def open_bundle(
    path: Path,
    target: Path,
    check: Check = lambda run: None,
    despite: bool = False,
    tell: Tell = lambda done, total: None,
) -> Opened:
    """Make the run directory `target` from a bundle, an unpacked one, or a copy of a run directory.

    check: a last look before it is there. despite: open it although its audit finds something; what the manifest
    refutes is refused all the same.

    Raises:
        BundleError, ForkError, ExtentError, StagingError: it was not opened; nothing of it is left.
        OSError: something cannot be read or written; nothing of it is left.
    """
    check_name(target.name)
    with _source(path) as source:
        # Without a manifest it is the copy of a run directory, which only its own hashes can vouch for.
        extent = survey(path) if source is None else None
        with staged(target) as made:
            if source is not None:
                count = _unpack(source, made, tell)
            else:
                assert extent is not None
                fill(extent, made, tell, share=False)
                with open_below(path, "run.toml") as file, create(made / "run.toml") as copy:
                    pour(file, copy, largest("run.toml") or 0)
                count = sum(len(files) for _, _, files in os.walk(made))
            text = renamed(made, target.name, elsewhere=True)
            (made / "run.toml").unlink()
            with create(made / "run.toml") as copy:
                copy.write(text.encode())
            report = verify_run(made)
            if report.first is not None and not despite:
                more = f" and {len(report.problems) - 1} more" if len(report.problems) > 1 else ""
                raise BundleError(
                    f"the audit of {path.name} found: {report.first}{more}; to look at it all the same: --despite-audit"
                )
            check(made)
    return Opened(target, report, count, source is not None)


def peek(path: Path, name: str) -> bytes:
    """One file of a bundle, unchecked, or of a copy of a run directory.

    Raises:
        BundleError: it is not there, or the bundle cannot be read.
        OSError: it cannot be read.
    """
    most = largest(name) or 0
    with _source(path) as source:
        try:
            with open_below(path, name) if source is None else source.open(name) as file:
                return file.read(most)
        except (KeyError, FileNotFoundError):
            raise BundleError(f"{path.name} has no {name}; a run cannot be opened without it") from None


@contextlib.contextmanager
def _source(path: Path) -> Iterator[_Source | None]:
    """Where the files of a bundle come from; None for the copy of a run directory."""
    if path.is_dir():
        if (path / MANIFEST).is_file():
            yield _Folder(path)
        elif (path / "journal").is_dir():
            yield None
        else:
            raise BundleError(f"{path} is neither a bundle ({MANIFEST}) nor a run directory (journal/)")
        return
    try:
        with zipfile.ZipFile(path) as archive:
            yield _Archive(path, archive)
    except DAMAGED as error:
        raise BundleError(f"{path.name} is damaged, or no bundle: {clean(str(error))}") from None


def _unpack(source: _Source, made: Path, tell: Tell) -> int:
    """Copy every file that the manifest names, checking each; returns how many there are."""
    sizes = source.sizes()
    if MANIFEST not in sizes:
        raise BundleError(f"this is no bundle: it has no {MANIFEST}")
    with source.open(MANIFEST) as file:
        manifest = parse_manifest(_whole(file, MAX_MANIFEST))
    for name in sizes:
        if name != MANIFEST and name not in manifest:
            raise BundleError(f"{_shown(name)} is not in the manifest; it was put there later")
    for name in manifest:
        if name not in sizes:
            raise BundleError(f"{_shown(name)} is in the manifest and not in the bundle; it was taken away")
    total, done = sum(sizes.values()), 0
    require_space(made, total)
    for folder in FOLDERS:
        (made / folder).mkdir(mode=0o700)
    first = any(name.startswith(ORIGIN) for name in manifest)
    for name, sha in sorted(manifest.items()):
        place = _place(name, first)
        try:
            with source.open(name) as file, create(made / place) if place else open(os.devnull, "wb") as copy:
                got = pour(file, copy, sizes[name] + 1)
        except DAMAGED as error:
            raise BundleError(f"{_shown(name)} cannot be unpacked: {clean(str(error))}") from None
        if got.sha256 != sha:
            raise BundleError(f"{_shown(name)} is not what the manifest says: it was changed or damaged")
        done += got.size
        tell(done, max(done, total))
    return len(manifest)


def _place(name: str, first: bool) -> str:
    """Where a file of a bundle belongs in the run; empty for what is not kept.

    first: what the first exporter said is in the bundle already.
    """
    if name.startswith(ABOUT) or name in (RUNBOOK, CRATE):
        return (LATEST if first else ORIGIN) + name.removeprefix(ABOUT)
    return "" if name.startswith(LATEST) else name


def _whole(file: BinaryIO, most: int) -> bytes:
    content = file.read(most + 1)
    if len(content) > most:
        raise BundleError(f"{MANIFEST} is larger than {most} bytes")
    return content
