"""A fork is the same history up to a point and nothing more; whatever stops it half way leaves nothing behind."""

import os
import threading
from pathlib import Path

import pytest

from store import audit, chain, extent, forking, staging
from store import events as ev
from store.blobs import Blobs
from store.config import load
from store.folding import fold
from store.journal import Journal, read
from store.projection import open_in_step
from store.state import RunState
from tests.store import history


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return history.write_run(tmp_path / "first", 14, seed=3, segment_bytes=20_000)


def journal_bytes(run: Path) -> bytes:
    return b"".join(path.read_bytes() for path in chain.segments(run / "journal"))


def folded(run: Path, until: int = 1 << 60) -> RunState:
    state = RunState()
    for record in read(run / "journal"):
        if record.seq <= until:
            fold(state, record)
    return state


def closing(run: Path, experiment: str) -> ev.Record:
    return next(
        r for r in read(run / "journal") if isinstance(r.data, ev.ExperimentClosed) and r.data.experiment == experiment
    )


@pytest.mark.parametrize("experiment", ["b-gated_deltanet", "e0003", "e0010", "e0014"])
def test_a_fork_is_a_prefix_and_one_record(run: Path, experiment: str) -> None:
    cut = closing(run, experiment)
    forked = forking.fork_run(run, "second", experiment, "ada", "another way")
    whole, copied = journal_bytes(run), journal_bytes(forked.run)
    *kept, last = copied.splitlines(keepends=True)
    assert len(kept) == cut.seq
    assert whole.startswith(b"".join(kept))
    record = ev.decode_record(last)
    assert record.data == ev.RunForked("second", "history", cut.seq, cut.hash, experiment, "ada", reason="another way")
    assert record.actor == "person:ada"

    before, after = folded(run, cut.seq), folded(forked.run)
    assert after.forked == record.data and after.name == "second" and after.phase == "created"
    assert (after.experiments, after.trials, after.cpu_seconds) == (before.experiments, before.trials, before.cpu_seconds)
    assert [path.name for path in chain.segments(forked.run / "journal")] == [
        path.name for path in chain.segments(run / "journal")
    ][: len(chain.segments(forked.run / "journal"))]

    report = audit.verify_run(forked.run)
    assert report.ok, report.problems
    assert load(forked.run / "run.toml").name == "second"
    projection, rebuilt = open_in_step(forked.run)
    projection.close()
    assert rebuilt.records == cut.seq + 1


def test_blobs_are_those_of_the_prefix_and_shared(run: Path) -> None:
    made = forking.fork_run(run, "second", "e0003", "ada").run
    ours, theirs = set(os.listdir(made / "blobs")), set(os.listdir(run / "blobs"))
    assert ours < theirs
    assert all((made / "blobs" / sha).samefile(run / "blobs" / sha) for sha in ours)
    Blobs(made / "blobs").put("only here")
    assert set(os.listdir(run / "blobs")) == theirs


def test_the_last_record_on_disk_without_a_torn_tail(run: Path) -> None:
    with open(chain.segments(run / "journal")[-1], "ab") as file:
        file.write(b'{"seq":99999,"time":1.0,"act')
    before = journal_bytes(run)
    made = forking.fork_run(run, "second", forking.LAST, "ada").run
    assert journal_bytes(run) == before, "the run itself is only read"
    report = audit.verify_run(made)
    assert report.ok and report.records == len(before.splitlines())


def test_pending_requests_end_with_the_fork(tmp_path: Path) -> None:
    steps = history.history(12)
    asked = next(n for n, step in enumerate(steps) if isinstance(step.event, ev.ApprovalRequested))
    run = history.write_run(tmp_path / "first", 12)
    for segment in chain.segments(run / "journal"):
        segment.unlink()
    with Journal.open(run / "journal") as book:
        for step in steps[: asked + 1]:
            book.append(step.event, step.actor)
    request = steps[asked].event
    assert isinstance(request, ev.ApprovalRequested)
    forked = forking.fork_run(run, "second", forking.LAST, "ada")
    assert forked.expired == [request.request]
    after = folded(forked.run)
    assert not after.pending and after.requests[request.request].who == "the fork"
    assert after.experiments[request.experiment].step == "gate", "the gate has to ask anew"


def test_the_policy_is_the_one_of_then(run: Path) -> None:
    (run / "policy.toml").write_text("version = 2 # of now")
    adopted = next(r.seq for r in read(run / "journal") if isinstance(r.data, ev.PolicyAdopted))
    early = next(
        r.data.experiment for r in read(run / "journal") if isinstance(r.data, ev.ExperimentClosed) and r.seq < adopted
    )
    assert (forking.fork_run(run, "second", early, "ada").run / "policy.toml").read_text() == "version = 2 # of now"
    assert (forking.fork_run(run, "third", "e0014", "ada").run / "policy.toml").read_text() == "version = 1"


def left_in(folder: Path) -> set[str]:
    return set(os.listdir(folder))


def test_what_cannot_be_forked(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = left_in(run.parent)

    def refused(kind: type[Exception], words: str, at: str = "e0003", name: str = "second") -> None:
        with pytest.raises(kind, match=words) as caught:
            forking.fork_run(run, name, at, "ada")
        assert "\n" not in str(caught.value)
        assert left_in(run.parent) == before

    refused(extent.ExtentError, "no experiment 'e9999'", at="e9999")
    refused(forking.ForkError, "cannot be a run's name", name="../second")
    refused(forking.ForkError, "cannot be a run's name", name=".hidden")
    refused(staging.StagingError, "first exists", name="first")
    with Journal.open(run / "journal") as book:
        book.append(ev.ExperimentOpened("e0099", "evolver"), "engine")
    refused(extent.ExtentError, "e0099 is still open", at="e0099")
    monkeypatch.setattr(staging, "SPARE_BYTES", 1 << 60)
    refused(staging.StagingError, "are free there; make room first")


def test_damage_is_named_and_never_passed_on(run: Path) -> None:
    before = left_in(run.parent)
    program = next(r.data.program for r in read(run / "journal") if isinstance(r.data, ev.ProposalDrafted))
    content = (run / "blobs" / program).read_bytes()
    (run / "blobs" / program).write_bytes(content + b" ")
    with pytest.raises(forking.ForkError, match=program):
        forking.fork_run(run, "second", "e0003", "ada")
    (run / "blobs" / program).write_bytes(content)

    points = run / "trials" / "b-gated_deltanet-s0" / "work" / "points.jsonl"
    good = points.read_bytes()
    points.write_bytes(good + b"\n")
    with pytest.raises(forking.ForkError, match="not what was scored"):
        forking.fork_run(run, "second", "e0003", "ada")
    points.unlink()
    points.symlink_to("/etc/hostname")
    with pytest.raises(OSError, match="symbolic links"):
        forking.fork_run(run, "second", "e0003", "ada")
    points.unlink()
    points.write_bytes(good)

    first = chain.segments(run / "journal")[0]
    first.write_bytes(first.read_bytes().replace(b"a known mixer", b"a novel mixer", 1))
    with pytest.raises(extent.ExtentError, match=r"000001\.jsonl line"):
        forking.fork_run(run, "second", "e0003", "ada")
    assert left_in(run.parent) == before


def test_an_interrupted_fork_leaves_nothing(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = left_in(run.parent)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    for where, what in ((forking, "_copy_curve"), (forking, "_append"), (staging, "sync_tree")):
        with monkeypatch.context() as patch:
            patch.setattr(where, what, full)
            with pytest.raises(OSError, match="No space left"):
                forking.fork_run(run, "second", "e0003", "ada")
        assert left_in(run.parent) == before


def test_what_a_killed_process_left_is_swept(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stale = run.parent / ".new-dead"
    (stale / "half" / "journal").mkdir(parents=True)
    monkeypatch.setattr(staging, "STALE_SECONDS", -1.0)
    forking.fork_run(run, "second", "e0003", "ada")
    assert left_in(run.parent) == {"first", "second"}


def test_beside_a_growing_journal(run: Path) -> None:
    stop = threading.Event()

    def grow() -> None:
        with Journal.open(run / "journal", segment_bytes=20_000) as book:
            number = 0
            while not stop.is_set():
                number += 1
                book.wait(book.append(ev.NoteAdded(f"note {number} " + "x" * 300), "engine").seq)

    writer = threading.Thread(target=grow)
    writer.start()
    try:
        made = [forking.fork_run(run, f"fork{n}", forking.LAST, "ada").run for n in range(5)]
    finally:
        stop.set()
        writer.join()
    whole = journal_bytes(run)
    for one in made:
        assert audit.verify_run(one).ok
        assert whole.startswith(b"".join(journal_bytes(one).splitlines(keepends=True)[:-1]))


def test_free_names(run: Path) -> None:
    assert forking.free_name(run) == "first-fork-1"
    forking.fork_run(run, "first-fork-1", "e0003", "ada")
    assert forking.free_name(run) == "first-fork-2"


def test_recorded_calls_go_along_with_their_experiments(run: Path) -> None:
    blobs = Blobs(run / "blobs")
    lines = []
    for experiment in ("e0002", "e0012"):
        asked, reply = blobs.put(f"asked for {experiment}"), blobs.put(f"answer for {experiment}")
        lines.append(
            f'{{"asked":"{asked}","experiment":"{experiment}","role":"researcher","model":"m","outcome":"reply","reply":"{reply}"}}\n'
        )
    (run / "calls").mkdir()
    (run / "calls" / "index.jsonl").write_text("".join(lines) + '{"asked":"torn')
    made = forking.fork_run(run, "second", "e0003", "ada").run
    assert (made / "calls" / "index.jsonl").read_text() == lines[0]
    texts = [(made / "blobs" / sha).read_text() for sha in os.listdir(made / "blobs")]
    assert "answer for e0002" in texts and "answer for e0012" not in texts


def test_seals_of_the_experiments_known_by_then_go_along(run: Path) -> None:
    seal = '{"nonce":"0a","what":"imports os"}'
    (run / "attention.json").write_text(f'{{"version":1,"experiments":{{"e0002":{seal},"e0012":{seal}}}}}')
    made = forking.fork_run(run, "second", "e0003", "ada").run
    assert (made / "attention.json").read_text() == f'{{"version":1,"experiments":{{"e0002":{seal}}}}}'
    (run / "attention.json").write_text("{")
    with pytest.raises(forking.ForkError, match="damaged"):
        forking.fork_run(run, "third", "e0003", "ada")
