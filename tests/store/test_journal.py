import asyncio
import errno
import os
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from store import chain, journal
from store import events as ev
from store.journal import Journal, JournalCorrupt, JournalError, JournalFailed
from tests.store import history


def write(directory: Path, count: int, segment_bytes: int = journal.SEGMENT_BYTES) -> list[ev.Record]:
    with Journal.open(directory, segment_bytes=segment_bytes) as book:
        records = []
        for number in range(count):
            records.append(book.append(ev.NoteAdded(f"note {number} äß"), "engine"))
            book.wait(records[-1].seq)
        return records


def note(book: Journal, text: str = "x") -> ev.Record:
    return book.append(ev.NoteAdded(text), "engine")


def test_what_was_appended_is_read_back(tmp_path: Path) -> None:
    steps = history.history(12)
    with Journal.open(tmp_path) as book:
        written = [book.append(step.event, step.actor) for step in steps]
    assert list(journal.read(tmp_path)) == written
    report = journal.verify(tmp_path)
    assert report == (len(steps), written[-1].hash, True, None)
    assert {type(step.event) for step in steps} == set(ev.AnyEvent.__args__)
    assert (tmp_path / "000001.jsonl").stat().st_mode & 0o777 == 0o600


def test_segments_rotate_and_chain(tmp_path: Path) -> None:
    records = write(tmp_path, 40, segment_bytes=1500)
    assert len(journal.segments(tmp_path)) > 5
    assert list(journal.read(tmp_path)) == records
    for since in range(42):
        assert [r.seq for r in journal.read(tmp_path, since)] == list(range(since + 1, 41))
    more = write(tmp_path, 3, segment_bytes=1500)
    assert list(journal.read(tmp_path)) == records + more
    assert journal.verify(tmp_path).ok


@pytest.mark.parametrize("segment_bytes", [journal.SEGMENT_BYTES, 1000])
def test_cut_at_every_byte_of_the_last_records(
    tmp_path: Path, segment_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chain, "SETTLE_SECONDS", 0.0)
    records = write(tmp_path / "whole", 8, segment_bytes)
    last = journal.segments(tmp_path / "whole")[-1]
    content = last.read_bytes()
    first = records[-content.count(b"\n")].seq
    for length in range(max(0, len(content) - 700), len(content)):
        copy = tmp_path / f"cut{length}"
        copy.mkdir()
        for segment in journal.segments(tmp_path / "whole"):
            (copy / segment.name).write_bytes(segment.read_bytes())
        (copy / last.name).write_bytes(content[:length])
        whole = first - 1 + content[:length].count(b"\n")
        torn = length - (content[:length].rfind(b"\n") + 1)
        assert journal.verify(copy).ok == (torn == 0)
        with Journal.open(copy) as book:
            note(book, "after")
        found = list(journal.read(copy))
        assert found[:whole] == records[:whole]
        rest = [record.data for record in found[whole:]]
        repaired = [ev.JournalRepaired(last.name, torn, whole)] if torn else []
        assert rest == [*repaired, ev.NoteAdded("after")]
        assert journal.verify(copy).ok


def test_any_flipped_byte_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chain, "SETTLE_SECONDS", 0.0)
    records = write(tmp_path, 12, segment_bytes=1200)
    draw = random.Random(1)
    for path in journal.segments(tmp_path):
        content = path.read_bytes()
        first = next(r.seq for r in records if f'"hash":"{r.hash}"'.encode() in content.split(b"\n", 1)[0])
        for position in sorted({0, len(content) - 1, *draw.sample(range(len(content)), 120)}):
            damaged = bytearray(content)
            damaged[position] ^= draw.choice([1, 2, 4, 0x20, 0x80])
            path.write_bytes(damaged)
            seq = first + content[:position].count(b"\n")
            report = journal.verify(tmp_path)
            assert not report.ok
            assert report.first_bad is not None
            assert report.first_bad[0] == path.name
            assert report.first_bad[2] == seq, report
            if position < len(content) - 1:
                with pytest.raises(JournalCorrupt):
                    list(journal.read(tmp_path))
        path.write_bytes(content)
    assert journal.verify(tmp_path).ok


def test_a_bad_record_in_the_middle_is_refused_not_cut(tmp_path: Path) -> None:
    write(tmp_path, 6)
    path = tmp_path / "000001.jsonl"
    content = path.read_bytes()
    path.write_bytes(content.replace(b"note 3", b"note 9"))
    with pytest.raises(JournalCorrupt, match=r"000001\.jsonl line 4 \(record 4\): the content does not match"):
        Journal.open(tmp_path)
    lines = content.splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:2] + lines[3:]))
    with pytest.raises(JournalCorrupt, match=r"line 3 \(record 3\).*chain"):
        Journal.open(tmp_path)
    path.write_bytes(content[:-5] + b"0000\n")  # complete, so not torn: a fsynced record was changed
    with pytest.raises(JournalCorrupt, match="record 6"):
        Journal.open(tmp_path)


def test_missing_segments_are_noticed(tmp_path: Path) -> None:
    write(tmp_path, 20, segment_bytes=1200)
    journal.segments(tmp_path)[2].unlink()
    report = journal.verify(tmp_path)
    assert report.first_bad is not None
    assert "000003.jsonl is missing" in report.first_bad[3]
    with pytest.raises(JournalCorrupt):
        Journal.open(tmp_path)
    with pytest.raises(JournalCorrupt):
        list(journal.read(tmp_path))


def test_an_unknown_kind_is_not_cut_but_explained(tmp_path: Path) -> None:
    write(tmp_path, 1)
    path = tmp_path / "000001.jsonl"
    head = next(journal.read(tmp_path)).hash
    body = b'{"seq":2,"time":1.0,"actor":"engine","data":{"kind":"moon.landed"}}'
    digest = chain.digest(head.encode(), body)
    line = body[:-1] + f',"prev":"{head}","hash":"{digest}"}}\n'.encode()
    path.write_bytes(path.read_bytes() + line)
    with pytest.raises(JournalCorrupt, match="newer"):
        Journal.open(tmp_path)


def test_what_json_cannot_hold_is_refused(tmp_path: Path) -> None:
    with Journal.open(tmp_path) as book:
        for value in (float("nan"), float("inf"), -float("inf")):
            with pytest.raises(ValueError, match="finite"):
                book.append(ev.ExperimentScored("e", "probe", 1.0, 0, 2, 1, against_parent=value), "engine")
            with pytest.raises(ValueError, match=r"experiment\.scored"):
                book.append(ev.ExperimentScored("e", "probe", value, 0, 2, 1), "engine")
            task = ev.TaskDifference("recall", value, 0.1)
            with pytest.raises(ValueError, match=r"experiment\.scored"):
                book.append(ev.ExperimentScored("e", "probe", 1.0, 0, 2, 1, [task]), "engine")
        with pytest.raises(ValueError, match=r"note\.added"):
            book.append(ev.NoteAdded("\ud800"), "engine")
        with pytest.raises(ValueError, match="long"):
            book.append(ev.NoteAdded("x" * chain.MAX_LINE), "engine")
        with pytest.raises(ValueError, match=r"note\.added"):
            book.append(ev.NoteAdded(7), "engine")  # type: ignore[arg-type]
        assert note(book).seq == 1
    assert journal.verify(tmp_path).records == 1


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    with Journal.open(tmp_path), pytest.raises(JournalError, match="another process"):
        Journal.open(tmp_path)
    Journal.open(tmp_path).close()


async def test_durable_means_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    real = os.fdatasync

    def sync(descriptor: int) -> None:
        real(descriptor)
        synced.append((tmp_path / "000001.jsonl").read_bytes().count(b"\n"))

    monkeypatch.setattr(os, "fdatasync", sync)
    with Journal.open(tmp_path) as book:
        urgent = book.append(ev.RunPaused("now"), "person:ada")
        await asyncio.wait_for(book.durable(urgent), 10)
        assert synced[-1] >= urgent.seq
        assert book.durable_seq >= urgent.seq
        lazy = [note(book, str(n)) for n in range(500)]
        before = len(synced)
        await asyncio.gather(*(book.durable(record) for record in lazy))
        assert synced[-1] == lazy[-1].seq
        assert len(synced) - before < 50, "500 records that wait share their syncs"
        await book.durable(urgent)


def test_appending_from_threads_keeps_one_chain(tmp_path: Path) -> None:
    with Journal.open(tmp_path, segment_bytes=20_000) as book:
        threads = [threading.Thread(target=lambda: [note(book) for _ in range(200)]) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert journal.verify(tmp_path)[:1] == (800,)
    assert journal.verify(tmp_path).ok


@pytest.mark.parametrize("where", ["write", "fdatasync"])
async def test_a_write_error_fails_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    book = Journal.open(tmp_path)
    kept = note(book, "kept")
    await book.durable(kept)

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, where, full)
    lost = note(book, "lost")
    with pytest.raises(JournalFailed, match="No space"):
        await asyncio.wait_for(book.durable(lost), 10)
    with pytest.raises(JournalFailed):
        book.wait(lost.seq)
    with pytest.raises(JournalFailed):
        note(book)
    assert book.failed is not None
    book.wait(kept.seq)
    monkeypatch.undo()
    with pytest.raises(JournalFailed):
        note(book, "space is back, but nobody knows what reached the disk")
    book.close()
    assert next(journal.read(tmp_path)) == kept


FULL = """
import resource, signal, sys
from pathlib import Path
from store import events as ev
from store.journal import Journal, JournalFailed
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
# A clock that stands: with lines of one length, the limit never falls between two of them.
book = Journal.open(Path(sys.argv[1]), clock=lambda: 1.0)
acked = 0
try:
    while True:
        record = book.append(ev.NoteAdded("x" * 300), "engine")
        book.wait(record.seq)
        acked = record.seq
except JournalFailed:
    print(acked)
"""


def test_a_full_disk_loses_nothing_acknowledged(tmp_path: Path) -> None:
    root = Path(journal.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path)], cwd=root, capture_output=True, text=True, timeout=120, check=True
    )
    acked = int(done.stdout)
    assert acked > 10
    assert not journal.verify(tmp_path).ok, "the last line was written in part"
    with Journal.open(tmp_path) as book:
        assert book.seq == acked + 1
    *kept, repaired = journal.read(tmp_path)
    assert len(kept) == acked
    assert isinstance(repaired.data, ev.JournalRepaired)


WRITER = """
import sys
from pathlib import Path
from store import events as ev
from store.journal import Journal
book = Journal.open(Path(sys.argv[1]), segment_bytes=30_000)
while True:
    records = [book.append(ev.NoteAdded("x" * 200), "engine") for _ in range(20)]
    last = book.append(ev.RunPaused("now"), "engine")
    book.wait(last.seq)
    sys.stdout.write(f"{last.seq} {last.hash}\\n")
    sys.stdout.flush()
"""


def test_kill_dash_nine_loses_nothing_acknowledged(tmp_path: Path) -> None:
    root = Path(journal.__file__).parents[1]
    draw = random.Random(3)
    acked: dict[int, str] = {}
    for _ in range(5):
        with subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], cwd=root, stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            for _ in range(draw.randrange(3, 25)):
                seq, digest = writer.stdout.readline().split()
                acked[int(seq)] = digest.decode()
            writer.send_signal(signal.SIGKILL)
            for line in writer.stdout.read().splitlines():
                if len(line.split()) == 2 and len(line.split()[1]) == 64:
                    acked[int(line.split()[0])] = line.split()[1].decode()
    Journal.open(tmp_path).close()
    found = {record.seq: record.hash for record in journal.read(tmp_path)}
    assert len(acked) > 10
    assert all(found[seq] == digest for seq, digest in acked.items())
    assert journal.verify(tmp_path).ok
