"""A byte corpus that needs no download: the Python standard library's own sources.

Split by a hash of each file's path, so that the two halves share no file. Where the sources are missing (zipped,
stripped) the next best text takes their place, and the note says so; scores on different corpora are not comparable,
which is why the corpus hash is stored with every score.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import os
import sys
import sysconfig
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import msgspec

SKIPPED_DIRECTORIES = frozenset(
    {"test", "tests", "idlelib", "lib2to3", "site-packages", "dist-packages", "__pycache__"}
)
SMALLEST_CORPUS = 500_000
VALIDATION_SHARE = 10

Document = tuple[str, bytes]


class CorpusInfo(msgspec.Struct, frozen=True):
    """Where the corpus lies and what it is. `hash` is the SHA-256 over both halves; `bytes` their total size."""

    train_path: str
    validation_path: str
    hash: str
    bytes: int
    note: str


def build_corpus(directory: Path, library: Path | None = None) -> CorpusInfo:
    """Write `train.bin` and `validation.bin` into `directory`, once; later calls check the hash and return the same.

    library: where to look for sources, by default this Python's standard library. Raises RuntimeError when this
    installation carries too little text.
    """
    record = directory / "corpus.json"
    with contextlib.suppress(OSError, msgspec.DecodeError, UnicodeDecodeError):
        known = msgspec.json.decode(record.read_bytes(), type=CorpusInfo)
        train, validation = directory / "train.bin", directory / "validation.bin"
        if known.hash == _hash(train.read_bytes(), validation.read_bytes()):
            return msgspec.structs.replace(known, train_path=str(train), validation_path=str(validation))
    documents, note = _collect(library or Path(sysconfig.get_paths()["stdlib"]))
    halves: tuple[list[bytes], list[bytes]] = ([], [])
    for name, text in sorted(documents):
        halves[_is_validation(name)].append(text)
    train_bytes, validation_bytes = (b"\n".join(half) for half in halves)
    directory.mkdir(parents=True, exist_ok=True)
    info = CorpusInfo(
        train_path=str(_write(directory / "train.bin", train_bytes)),
        validation_path=str(_write(directory / "validation.bin", validation_bytes)),
        hash=_hash(train_bytes, validation_bytes),
        bytes=len(train_bytes) + len(validation_bytes),
        note=note,
    )
    _write(record, msgspec.json.encode(info))
    return info


def _collect(library: Path) -> tuple[list[Document], str]:
    version = f"Python {sys.version_info.major}.{sys.version_info.minor}.{sys.version_info.micro}"
    documents = list(_sources(library))
    if _size(documents) >= SMALLEST_CORPUS:
        return documents, f"standard library sources of {version}"
    documents = list(_zipped_sources(library))
    if _size(documents) >= SMALLEST_CORPUS:
        return documents, f"standard library sources of {version}, from a zip archive"
    documents = list(_documentation()) + list(_package_metadata())
    if _size(documents) >= SMALLEST_CORPUS:
        return documents, f"{version} carries no library sources: documentation and package metadata instead"
    raise RuntimeError(f"this Python carries only {_size(documents)} bytes of text, {SMALLEST_CORPUS} are needed")


def _sources(library: Path) -> Iterator[Document]:
    for folder, folders, files in os.walk(library):
        folders[:] = sorted(set(folders) - SKIPPED_DIRECTORIES)
        for name in sorted(files):
            path = Path(folder, name)
            if path.suffix == ".py":
                with contextlib.suppress(OSError):
                    yield path.relative_to(library).as_posix(), path.read_bytes()


def _zipped_sources(library: Path) -> Iterator[Document]:
    archives = [Path(entry) for entry in sys.path if entry.endswith(".zip")]
    archives += sorted(library.parent.glob("*.zip")) + sorted(library.glob("*.zip"))
    for archive in dict.fromkeys(archives):
        with contextlib.suppress(OSError, zipfile.BadZipFile), zipfile.ZipFile(archive) as opened:
            for name in opened.namelist():
                path = PurePosixPath(name)
                if path.suffix == ".py" and not SKIPPED_DIRECTORIES & set(path.parts):
                    yield name, opened.read(name)


def _documentation() -> Iterator[Document]:
    with contextlib.suppress(ImportError):
        from pydoc_data import topics

        for name, text in topics.topics.items():
            yield f"topic/{name}", text.encode("utf-8", "replace")
    for name, module in sorted(sys.modules.items()):
        if name.split(".")[0] in sys.stdlib_module_names:
            texts = [getattr(member, "__doc__", None) for member in vars(module).values() if callable(member)]
            joined = "\n".join(sorted({text for text in texts if isinstance(text, str)}))
            yield f"docstrings/{name}", joined.encode("utf-8", "replace")


def _package_metadata() -> Iterator[Document]:
    for distribution in importlib.metadata.distributions():
        text = distribution.read_text("METADATA")
        if text:
            yield f"metadata/{distribution.name}-{distribution.version}", text.encode("utf-8", "replace")


def _size(documents: list[Document]) -> int:
    return sum(len(text) for _, text in documents)


def _is_validation(name: str) -> bool:
    return int.from_bytes(hashlib.sha256(name.encode("utf-8", "replace")).digest()[:4], "big") % VALIDATION_SHARE == 0


def _hash(train: bytes, validation: bytes) -> str:
    return hashlib.sha256(len(train).to_bytes(8, "big") + train + validation).hexdigest()


def _write(path: Path, data: bytes) -> Path:
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    return path
