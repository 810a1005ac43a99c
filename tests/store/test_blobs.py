import hashlib
import os
from pathlib import Path

import pytest

from store import blobs
from store.blobs import BlobCorrupt, BlobMissing, Blobs


def test_put_and_get(tmp_path: Path) -> None:
    store = Blobs(tmp_path / "blobs")
    sha = store.put("grüße")
    assert sha == hashlib.sha256("grüße".encode()).hexdigest()
    assert store.get(sha) == "grüße".encode()
    assert store.text(sha) == "grüße"
    assert store.put("grüße".encode()) == sha
    assert os.listdir(tmp_path / "blobs") == [sha]
    assert (tmp_path / "blobs" / sha).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("name", ["", "..", "../secret", "/etc/passwd", "A" * 64, "a" * 63, "a" * 64 + "\n", "é" * 64])
def test_only_a_hash_names_a_blob(tmp_path: Path, name: str) -> None:
    (tmp_path / "secret").write_text("secret")
    with pytest.raises(BlobMissing):
        Blobs(tmp_path / "blobs").get(name)


def test_damage_is_noticed_and_mended_by_the_next_put(tmp_path: Path) -> None:
    store = Blobs(tmp_path)
    sha = store.put(b"program")
    (tmp_path / sha).write_bytes(b"damaged")
    with pytest.raises(BlobCorrupt):
        store.get(sha)
    store.put(b"program")
    assert store.get(sha) == b"program"
    (tmp_path / sha).unlink()
    (tmp_path / "real").write_bytes(b"program")
    (tmp_path / sha).symlink_to(tmp_path / "real")
    with pytest.raises(BlobCorrupt):
        store.get(sha)
    (tmp_path / sha).unlink()
    os.mkfifo(tmp_path / sha)
    with pytest.raises(BlobCorrupt):
        store.get(sha)


def test_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blobs, "MAX_BYTES", 10)
    with pytest.raises(ValueError, match="10 bytes"):
        Blobs(tmp_path).put(b"x" * 11)


def test_a_failed_put_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        Blobs(tmp_path).put(b"x")
    assert os.listdir(tmp_path) == []
