"""The bundle of a run: one zip archive that holds the run directory's lasting files, an account of how they came about,
and a manifest with the sha256 of every file in it, in the form that `sha256sum -c` reads.

The same run gives the same bytes: files in a fixed order, under one fixed time. Only files of the layout below are ever
written or taken, so neither tokens, sockets and locks nor anything else that lies in a run directory can get in or out.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, NamedTuple, cast

from store.blobs import MAX_BYTES as MAX_BLOB
from store.blobs import is_sha
from store.extent import CALLS, MAX_EXTRA, ORIGIN, Extent, curve_files, extra_files
from store.staging import Copied, Tell, open_below, pour, require_space

SUFFIX = ".crate.zip"
MANIFEST = "manifest-sha256.txt"
CRATE = "ro-crate-metadata.json"
RUNBOOK = "README.md"
ABOUT = "about/"
"""What the exporter says about the run: leaderboard, environment, data, score function, decisions."""
LATEST = f"{ORIGIN}latest/"
"""In a run that was imported from an imported one: what its last exporter said."""
MAX_FILES = 2_000_000
MAX_MANIFEST = 256 * 1024 * 1024

_PART = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}"
_LAYOUT: tuple[tuple[re.Pattern[str], int], ...] = (
    (re.compile(r"(run|policy)\.toml"), 1024 * 1024),
    (re.compile(r"journal/[0-9]{6}\.jsonl"), 1024 * 1024 * 1024),
    (re.compile(r"blobs/[0-9a-f]{64}"), MAX_BLOB),
    (re.compile(rf"trials/{_PART}/(work/points|scores)\.jsonl"), 512 * 1024 * 1024),
    (re.compile(rf"cognition/{_PART}\.toml"), 16 * 1024 * 1024),
    (re.compile(re.escape(CALLS)), 512 * 1024 * 1024),
    (re.compile(rf"({ABOUT}|{ORIGIN})({_PART}/){{0,5}}{_PART}"), MAX_EXTRA),
    (re.compile(rf"{re.escape(RUNBOOK)}|{re.escape(CRATE)}"), MAX_EXTRA),
    (re.compile(re.escape(MANIFEST)), MAX_MANIFEST),
)
"""Every file that a bundle may hold, and its largest size."""

Count = Callable[[int], None]

_TIME = (1980, 1, 1, 0, 0, 0)


class BundleError(Exception):
    """The bundle is not made, or not opened; one line says why."""


class Item(NamedTuple):
    """A file to take into a bundle: `name` there and below the run; at most `most` bytes from its front."""

    name: str
    most: int


_FOLDER = re.compile(rf"({_PART}/){{1,6}}")


def is_folder(name: str) -> bool:
    """Whether the name of an archive's entry is that of a folder, which holds nothing by itself."""
    return _FOLDER.fullmatch(name) is not None


def largest(name: str) -> int | None:
    """The most bytes that the file `name` may have in a bundle; None for one that does not belong into it."""
    return next((most for pattern, most in _LAYOUT if pattern.fullmatch(name)), None)


def run_files(extent: Extent) -> Iterator[Item]:
    """What of the run directory goes into a bundle, in order."""
    if (extent.run / "run.toml").is_file():
        yield Item("run.toml", largest("run.toml") or 0)
    for name in extra_files(extent.run):
        if (most := largest(name)) is not None:
            yield Item(name, most)
    for name, size in extent.segments:
        yield Item(f"journal/{name}", size)
    for sha in sorted(extent.blobs):
        yield Item(f"blobs/{sha}", MAX_BLOB)
    for trial in sorted(extent.curves):
        for name in curve_files(trial):
            yield Item(name, largest(name) or 0)


class Writer:
    """Writes one bundle: a context manager; the archive takes its place only when the block ends well.

    files: what is in it so far, with size and sha256. problems: what was not as the journal says, in words; the bundle
    holds the run as it is, and says so.
    """

    def __init__(self, path: Path, replace: bool = False) -> None:
        """Raises `BundleError` where `path` exists and is not to be replaced."""
        self.path, self.replace = path, replace
        self.files: dict[str, Copied] = {}
        self.problems: list[str] = []
        if not replace:
            self._refuse_existing()

    def _refuse_existing(self) -> None:
        if os.path.lexists(self.path):
            raise BundleError(f"{self.path} exists; name another file with -o, or replace it with --force")

    def __enter__(self) -> Writer:
        descriptor, name = tempfile.mkstemp(prefix=f".{self.path.name[:60]}-", dir=self.path.parent)
        self._temporary = Path(name)
        self._stream = os.fdopen(descriptor, "wb")
        self._zip = zipfile.ZipFile(self._stream, "w", zipfile.ZIP_DEFLATED)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._finish()
            else:
                with contextlib.suppress(Exception):  # what matters is the error that is on its way
                    self._zip.close()
        finally:
            self._stream.close()
            self._temporary.unlink(missing_ok=True)

    def _finish(self) -> None:
        lines = "".join(f"{file.sha256}  {name}\n" for name, file in sorted(self.files.items()))
        self.add(MANIFEST, lines.encode())
        self._zip.close()
        self._stream.flush()
        os.fsync(self._stream.fileno())
        if self.replace:
            os.replace(self._temporary, self.path)
            return
        try:
            os.link(self._temporary, self.path)  # fails where a file has come there meanwhile
        except OSError:
            self._refuse_existing()
            os.replace(self._temporary, self.path)  # a disk without links

    def add(self, name: str, content: bytes) -> None:
        """Take in a file that is in memory."""
        self._put(name, BytesIO(content), len(content), len(content))

    def add_run(self, extent: Extent, tell: Tell) -> None:
        """Take in the run. Raises OSError; what the run lacks, or has in another form, becomes a problem."""
        items = list(run_files(extent))
        sizes = {item.name: _size(extent.run / item.name, item.most) for item in items}
        total, done = sum(sizes.values()), 0
        require_space(self.path.absolute().parent, total // 2)

        def progress(size: int) -> None:
            nonlocal done
            done += size
            tell(done, max(total, done))

        if extent.calls:
            self.add(CALLS, b"".join(extent.calls))
        for item in items:
            try:
                file = open_below(extent.run, item.name)
            except OSError as error:
                if not (item.name.startswith("trials/") and isinstance(error, FileNotFoundError)):
                    self.problems.append(f"{item.name} cannot be read: {error.strerror}")
                continue  # a curve may have been cleaned away
            with file:
                got = self._put(item.name, file, item.most, sizes[item.name], progress)
                if not item.name.startswith("journal/") and file.read(1):
                    self.problems.append(f"{item.name} is longer than {item.most} bytes; the rest is left out")
            self._check(extent, item.name, got)

    def _put(self, name: str, source: BinaryIO, most: int, size: int, tell: Count | None = None) -> Copied:
        if largest(name) is None or name in self.files:
            raise BundleError(f"{name[:200]!r} does not belong into a bundle")
        info = zipfile.ZipInfo(name, _TIME)
        info.compress_type, info.external_attr = zipfile.ZIP_DEFLATED, 0o100644 << 16
        info.file_size = size
        with self._zip.open(info, "w", force_zip64=size > 1 << 30) as target:
            got = pour(source, cast(BinaryIO, target), most, tell)
        if name != MANIFEST:
            self.files[name] = got
        return got

    def _check(self, extent: Extent, name: str, got: Copied) -> None:
        if name.startswith("blobs/") and got.sha256 != name.removeprefix("blobs/"):
            self.problems.append(f"{name} is not what its name says")
        elif name.endswith("points.jsonl"):
            expected = extent.curves[name.split("/")[1]]
            if is_sha(expected) and got.sha256 != expected:
                self.problems.append(f"{name} is not what was scored")


def _size(path: Path, most: int) -> int:
    try:
        return min(most, path.lstat().st_size)
    except OSError:
        return 0


def parse_manifest(content: bytes) -> dict[str, str]:
    """File → sha256. Raises `BundleError` for anything but the lines that `Writer` makes."""
    found: dict[str, str] = {}
    try:
        lines = content.decode("ascii").splitlines()
    except UnicodeDecodeError:
        raise BundleError(f"{MANIFEST} is damaged: not ASCII") from None
    for number, line in enumerate(lines, 1):
        sha, _, name = line.partition("  ")
        if not is_sha(sha) or largest(name) is None or name == MANIFEST or name in found:
            raise BundleError(f"{MANIFEST} line {number} is damaged, or names a file that belongs into no bundle")
        found[name] = sha
    return found


def prefix_of(extent: Extent, folder: Path) -> None:
    """Lay out in `folder` what the database of just this much of a run is made from: its journal and its curves.

    Whole segments are linked to, since they never change; the last one is cut where the extent ends.
    """
    journal = folder / "journal"
    journal.mkdir()
    (folder / "trials").symlink_to((extent.run / "trials").resolve(), target_is_directory=True)
    for name, _ in extent.segments[:-1]:
        (journal / name).symlink_to((extent.run / "journal" / name).resolve())
    name, size = extent.segments[-1]
    with open_below(extent.run, f"journal/{name}") as source, open(journal / name, "wb") as target:
        pour(source, target, size)
