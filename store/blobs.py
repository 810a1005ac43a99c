"""Content-addressed, immutable files: programs, prompts, replies, reports."""

from __future__ import annotations

import hashlib
import os
import re
import stat
import tempfile
from pathlib import Path

MAX_BYTES = 16 * 1024 * 1024
_SHA = re.compile(r"[0-9a-f]{64}")


class BlobError(Exception):
    """A blob cannot be had; the message is one line."""


class BlobMissing(BlobError):
    """There is no such blob."""


class BlobCorrupt(BlobError):
    """The file under this name does not have this content."""


def is_sha(text: str) -> bool:
    """Whether a text is a sha256 in lower-case hex, and so can name a blob and nothing else."""
    return _SHA.fullmatch(text) is not None


class Blobs:
    """The blobs of one run. Every call does its I/O at once: from an event loop, use a thread."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def put(self, content: bytes | str) -> str:
        """Store `content` durably and return its sha256; what is there already is not written again.

        Raises:
            ValueError: larger than 16 MB.
            OSError: the disk is full or the place cannot be written.
        """
        data = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
        if len(data) > MAX_BYTES:
            raise ValueError(f"a blob may have {MAX_BYTES} bytes, this has {len(data)}")
        sha = hashlib.sha256(data).hexdigest()
        try:
            self.get(sha)
        except BlobError:
            self._write(sha, data)
        return sha

    def _write(self, sha: str, data: bytes) -> None:
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=self.directory, prefix=".new-")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(descriptor)
            os.replace(name, self.directory / sha)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        folder = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def get(self, sha: str) -> bytes:
        """The content of a blob, checked against its name.

        Raises:
            BlobMissing: there is none, or `sha` is no sha256.
            BlobCorrupt: the file is not what its name says.
        """
        if not is_sha(sha):
            raise BlobMissing(f"{sha[:80]!r} is not a sha256")
        try:
            descriptor = os.open(self.directory / sha, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            raise BlobMissing(f"blob {sha} is missing") from None
        except OSError as error:
            raise BlobCorrupt(f"blob {sha} cannot be read: {error.strerror}") from error
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_BYTES:
                raise BlobCorrupt(f"blob {sha} is not a file of at most {MAX_BYTES} bytes")
            data = file.read(MAX_BYTES + 1)
        if hashlib.sha256(data).hexdigest() != sha:
            raise BlobCorrupt(f"blob {sha} does not match its hash")
        return data

    def text(self, sha: str) -> str:
        """The content of a blob as text; bytes that are no UTF-8 become replacement characters.

        Raises:
            BlobMissing, BlobCorrupt: as `get`.
        """
        return self.get(sha).decode("utf-8", "replace")
