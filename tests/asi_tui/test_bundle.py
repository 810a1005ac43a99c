"""`asi fork`, `export` and `import`, from the command line and without an engine, on recorded runs and hostile archives."""

import hashlib
import os
import shutil
import stat
import subprocess
import threading
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import duckdb
import msgspec
import pytest
from rocrate.rocrate import ROCrate

from asi_tui.main import main
from store import audit, chain, unpacking
from store import events as ev
from store.blobs import Blobs
from store.bundle import MANIFEST
from store.config import load
from store.folding import fold
from store.journal import Journal, read
from store.state import RunState
from tests.store import history

LOST = '{"task":"recall","step":1,"steps":60,"loss":88.0,"seconds":0.1}\n'
SECRET = "s3cr3t-marker-0f91"


class Place:
    """A home of runs, and the command line in it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.home, self._patch, self._capsys = folder, monkeypatch, capsys
        self.runs = folder / "asi" / "runs"
        self.runs.mkdir(parents=True)

    def asi(self, *words: object) -> tuple[int, str, str]:
        """Exit code, standard output and standard error of `asi WORDS`."""
        self._patch.setenv("XDG_DATA_HOME", str(self.home))
        self._capsys.readouterr()
        try:
            code = main([str(word) for word in words])
        except SystemExit as left:
            code = int(left.code or 0)
        out, err = self._capsys.readouterr()
        assert "Traceback" not in err
        return code, out, err


@pytest.fixture
def places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[str], Place]:
    monkeypatch.chdir(tmp_path)
    return lambda name: Place(tmp_path / name, monkeypatch, capsys)


@pytest.fixture
def here(places: Callable[[str], Place]) -> Place:
    place = places("here")
    run = history.write_run(place.runs / "history", 14, seed=3, segment_bytes=20_000)
    lost = next(r.data.trial for r in read(run / "journal") if isinstance(r.data, ev.TrialFailed))
    (run / "trials" / lost / "work").mkdir(parents=True)
    (run / "trials" / lost / "work" / "points.jsonl").write_text(LOST)
    return place


@pytest.fixture
def bundle(here: Place, tmp_path: Path) -> Path:
    code, out, err = here.asi("export", "history", "-o", tmp_path / "history.crate.zip")
    assert (code, err) == (0, "")
    assert "ranked experiments" in out
    return tmp_path / "history.crate.zip"


def rewritten(bundle: Path, change: Callable[[str, bytes], bytes | None], more: dict[str, bytes] | None = None) -> Path:
    """A copy of an archive with every file passed through `change`, which drops those for which it returns None."""
    made = bundle.with_name("changed.zip")
    with zipfile.ZipFile(bundle) as old, zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            content = change(name, old.read(name))
            if content is not None:
                new.writestr(name, content)
        for name, content in (more or {}).items():
            new.writestr(name, content)
    return made


def sealed_anew(content: dict[str, bytes]) -> dict[str, bytes]:
    """The files with a manifest that fits them: what a forger would do."""
    lines = "".join(f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in sorted(content.items()))
    return content | {MANIFEST: lines.encode()}


def files_of(bundle: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(bundle) as archive:
        return {name: archive.read(name) for name in archive.namelist() if name != MANIFEST}


def forged(bundle: Path, content: dict[str, bytes]) -> Path:
    made = bundle.with_name("forged.zip")
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in sealed_anew(content).items():
            archive.writestr(name, data)
    return made


# --- there and back --------------------------------------------------------------------------------------------------


def test_the_leaderboard_is_the_same_elsewhere(here: Place, bundle: Path, places: Callable[[str], Place]) -> None:
    there = places("there")
    code, out, err = there.asi("import", bundle)
    assert (code, err) == (0, "")
    assert "match the manifest" in out and "is the one that was published" in out
    run = there.runs / "history"
    assert stat.S_IMODE(run.stat().st_mode) == 0o700
    assert {one.name for one in there.runs.iterdir()} == {"history"}

    published = duckdb.sql(
        f"SELECT rank, experiment, score FROM '{run}/origin/leaderboard.parquet' ORDER BY rank"
    ).fetchall()
    state = RunState()
    for record in read(here.runs / "history" / "journal"):
        fold(state, record)
    told = [(n, e.id, e.scored.score) for n, e in enumerate(state.ranking(), 1) if e.scored is not None]
    assert published == told and len(told) > 5
    assert here.asi("leaderboard", "history", "--csv")[1] == there.asi("leaderboard", "history", "--csv")[1]

    for path in chain.segments(here.runs / "history" / "journal"):
        assert (run / "journal" / path.name).read_bytes() == path.read_bytes()
    code, out, _ = there.asi("audit", "history", "--verify")
    assert code == 0, out
    assert there.asi("rebuild", "history")[0] == 0
    assert [path.read_text() for path in run.glob("trials/e0005-s9/work/points.jsonl")] == [LOST]
    assert there.asi("show", "e0003", "history")[0] == 0
    assert there.asi("status", "history")[0] == 0


def test_the_same_run_gives_the_same_bytes(here: Place, bundle: Path) -> None:
    again = bundle.with_name("again.zip")
    assert here.asi("export", "history", "-o", again)[0] == 0
    assert again.read_bytes() == bundle.read_bytes()


def test_stock_tools_read_it(bundle: Path, tmp_path: Path) -> None:
    folder = tmp_path / "unpacked"
    subprocess.run(["python3", "-m", "zipfile", "-e", bundle, folder], check=True)
    subprocess.run(["sha256sum", "--check", "--quiet", "--strict", MANIFEST], cwd=folder, check=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        crate = ROCrate(folder)
    assert crate.name == "asi run history"
    programs = crate.get_by_type("SoftwareSourceCode")
    assert len(programs) > 10
    assert all((folder / one.id).is_file() for one in programs)
    board = crate.get("about/leaderboard.parquet")
    assert board["sha256"] == hashlib.sha256((folder / "about/leaderboard.parquet").read_bytes()).hexdigest()
    book = (folder / "README.md").read_text()
    for words in ("sha256sum -c", "asi import", "asi run --replay", "Checkpoints"):
        assert words in book
    trials = (folder / "about/trials.jsonl").read_text().splitlines()
    assert '"level":"L2"' in trials[0]
    assert "score.toml" in (folder / "about/score.json").read_text()
    assert (folder / "about/score/engine/scoring.py").is_file()
    decisions = (folder / "about/decisions.jsonl").read_text()
    assert '"kind":"approval.decided"' in decisions and '"kind":"policy.adopted"' in decisions


def test_an_unpacked_bundle_and_a_bare_copy_open_too(
    here: Place, bundle: Path, places: Callable[[str], Place], tmp_path: Path
) -> None:
    there = places("there")
    with zipfile.ZipFile(bundle) as archive:
        archive.extractall(tmp_path / "unpacked")
    assert there.asi("import", tmp_path / "unpacked", "--name", "one")[0] == 0
    shutil.copytree(here.runs / "history", tmp_path / "copy")
    (tmp_path / "copy" / "engine.token").write_text(SECRET)
    code, out, err = there.asi("import", tmp_path / "copy", "--name", "two")
    assert (code, err) == (0, "") and "without a manifest" in out
    assert not (there.runs / "two" / "engine.token").exists()
    assert load(there.runs / "two" / "run.toml").name == "two"
    blob = next((tmp_path / "copy" / "blobs").iterdir())
    assert not blob.samefile(there.runs / "two" / "blobs" / blob.name), "another's copy may change under us"
    assert here.asi("leaderboard", "history", "--csv")[1] == there.asi("leaderboard", "two", "--csv")[1]


def test_exported_again_after_it_went_on(bundle: Path, places: Callable[[str], Place], tmp_path: Path) -> None:
    there, third = places("there"), places("third")
    assert there.asi("import", bundle)[0] == 0
    run = there.runs / "history"
    with Journal.open(run / "journal") as book:
        book.append(ev.NoteAdded("went on"), "engine")
    assert there.asi("export", "history", "-o", tmp_path / "second.zip")[0] == 0
    code, out, err = third.asi("import", tmp_path / "second.zip", "--name", "again")
    assert (code, err) == (0, ""), out
    first = (run / "origin" / "environment.json").read_bytes()
    assert (third.runs / "again" / "origin" / "environment.json").read_bytes() == first
    assert (third.runs / "again" / "origin" / "latest" / "README.md").is_file()


def test_a_fork_of_an_imported_run_verifies(bundle: Path, places: Callable[[str], Place]) -> None:
    there = places("there")
    assert there.asi("import", bundle)[0] == 0
    code, out, err = there.asi("fork", "history", "--at", "e0010", "--reason", "another\nway")
    assert (code, err) == (0, "") and "history-fork-1" in out
    code, out, _ = there.asi("audit", "history-fork-1", "--verify")
    assert code == 0, out
    assert "another way" in there.asi("audit", "history-fork-1")[1]


# --- what stays inside -----------------------------------------------------------------------------------------------


def test_no_secret_gets_out(here: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = here.runs / "history"
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    for name in ("engine.token", "engine.log", "attention.json", "engine.lock", "KILLED", "kills.jsonl", "notes.txt", "blobs/.new-1"):
        (run / name).write_text(SECRET)
    (run / "procs").mkdir()
    (run / "procs" / "x.json").write_text(SECRET)
    (run / "trials" / "b-gated_deltanet-s0" / "work" / "stolen.txt").write_text(SECRET)
    (run / "trials" / "b-gated_deltanet-s0" / "checkpoint.pt").write_text(SECRET)
    outside = tmp_path / "outside.toml"
    outside.write_text(SECRET)
    (run / "cognition").mkdir()
    (run / "cognition" / "linked.toml").symlink_to(outside)
    (run / "policy.toml").symlink_to(outside)
    assert here.asi("export", "history", "-o", tmp_path / "one.zip")[0] == 0
    with zipfile.ZipFile(tmp_path / "one.zip") as archive:
        for name in archive.namelist():
            assert SECRET.encode() not in archive.read(name), name


def test_a_growing_run_is_exported_up_to_a_record(here: Place, places: Callable[[str], Place], tmp_path: Path) -> None:
    run = here.runs / "history"
    stop = threading.Event()

    def grow() -> None:
        with Journal.open(run / "journal", segment_bytes=20_000) as book:
            while not stop.is_set():
                book.wait(book.append(ev.NoteAdded("x" * 400), "engine").seq)

    writer = threading.Thread(target=grow)
    writer.start()
    try:
        results = [here.asi("export", "history", "-o", tmp_path / f"{n}.zip") for n in range(2)]
    finally:
        stop.set()
        writer.join()
    assert [code for code, _, _ in results] == [0, 0]
    there = places("there")
    for number in range(2):
        code, _, err = there.asi("import", tmp_path / f"{number}.zip", "--name", f"n{number}")
        assert (code, err) == (0, "")


def test_a_file_that_is_there_stays(here: Place, bundle: Path) -> None:
    before = bundle.read_bytes()
    code, _, err = here.asi("export", "history", "-o", bundle)
    assert code == 4 and "--force" in err and bundle.read_bytes() == before
    assert here.asi("export", "history", "-o", bundle, "--force")[0] == 0
    assert here.asi("export", "history", "-o", bundle.parent / "no" / "where.zip")[0] == 1
    assert [path.name for path in bundle.parent.iterdir() if path.name.startswith(".")] == []


def test_a_damaged_run_is_exported_as_it_is_and_says_so(here: Place, places: Callable[[str], Place], tmp_path: Path) -> None:
    run = here.runs / "history"
    report = next(r.data.report for r in read(run / "journal") if isinstance(r.data, ev.ProgramVetted))
    (run / "blobs" / report).write_text("changed later")
    points = run / "trials" / "b-gated_deltanet-s0" / "work" / "points.jsonl"
    points.rename(tmp_path / "points.jsonl")
    points.symlink_to(tmp_path / "points.jsonl")
    code, _, err = here.asi("export", "history", "-o", tmp_path / "one.zip")
    assert code == 1 and report in err and "b-gated_deltanet-s0/work/points.jsonl cannot be read" in err
    assert report in files_of(tmp_path / "one.zip")["README.md"].decode()
    there = places("there")
    code, _, err = there.asi("import", tmp_path / "one.zip")
    assert code == 4 and "does not match its hash" in err and "--despite-audit" in err
    assert not list(there.runs.iterdir())
    code, out, _ = there.asi("import", tmp_path / "one.zip", "--despite-audit")
    assert code == 0 and "the audit found 1 problems" in out


# --- what is refused -------------------------------------------------------------------------------------------------


def test_a_changed_byte_in_any_file_is_named(bundle: Path, places: Callable[[str], Place]) -> None:
    there = places("there")
    content = files_of(bundle)
    by_folder = {name.rpartition("/")[0]: name for name in content}
    assert len(by_folder) > 8
    for victim in by_folder.values():
        changed = rewritten(bundle, lambda name, data, victim=victim: data[:-1] + b"?" if name == victim else data)
        code, _, err = there.asi("import", changed)
        assert code == 4 and victim in err, (victim, err)
        assert err.count("\n") == 1
        assert not list(there.runs.iterdir())


def test_files_put_in_or_taken_out_are_named(bundle: Path, places: Callable[[str], Place]) -> None:
    there = places("there")
    victim = next(name for name in files_of(bundle) if name.startswith("blobs/"))
    code, _, err = there.asi("import", rewritten(bundle, lambda name, data: None if name == victim else data))
    assert code == 4 and victim in err and "taken away" in err
    code, _, err = there.asi("import", rewritten(bundle, lambda name, data: data, {"blobs/" + "a" * 64: b"x"}))
    assert code == 4 and "put there later" in err
    code, _, err = there.asi("import", rewritten(bundle, lambda name, data: None if name == MANIFEST else data))
    assert code == 4 and MANIFEST in err
    assert not list(there.runs.iterdir())


@pytest.mark.parametrize(
    "name",
    ["../x", "/tmp/x", "blobs/../../x", "engine.token", "KILLED", "procs/x.json", "trials/../x/scores.jsonl",
     "about/../../x", "C:\\x", "blobs/\x1b[2Jx", "journal/000001.jsonl/x", "trials/.ssh/scores.jsonl"],
)  # fmt: skip
def test_names_outside_of_the_layout_are_refused(bundle: Path, places: Callable[[str], Place], name: str) -> None:
    there = places("there")
    archive = forged(bundle, files_of(bundle) | {name: b"x"})
    code, _, err = there.asi("import", archive)
    assert code == 4 and "belongs into no bundle" in err and "\x1b" not in err
    assert not list(there.runs.iterdir())
    assert not (bundle.parent / "x").exists() and not Path("/tmp/x").exists()


def test_links_duplicates_and_bombs_are_refused(
    bundle: Path, places: Callable[[str], Place], monkeypatch: pytest.MonkeyPatch
) -> None:
    there = places("there")

    def refused(archive: Path, words: str) -> None:
        code, _, err = there.asi("import", archive)
        assert code == 4 and words in err, err
        assert not list(there.runs.iterdir())

    linked = zipfile.ZipInfo("blobs/" + "b" * 64)
    linked.external_attr = (stat.S_IFLNK | 0o777) << 16
    odd = bundle.with_name("odd.zip")
    shutil.copy(bundle, odd)
    with zipfile.ZipFile(odd, "a") as archive:
        archive.writestr(linked, "/etc/passwd")
    refused(odd, "is a link")
    shutil.copy(bundle, odd)
    with zipfile.ZipFile(odd, "a") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        archive.writestr("run.toml", b"name = 'other'\n")
    refused(odd, "is there twice")
    monkeypatch.setattr(unpacking, "FREE_BYTES", 1 << 20)
    refused(forged(bundle, {"blobs/" + "c" * 64: b"\0" * (12 << 20), "run.toml": b"name='x'\n"}), "times its size")
    refused(forged(bundle, {"blobs/" + "c" * 64: b"\0" * (17 << 20), "run.toml": b"name='x'\n"}), "at most 16777216")
    odd.write_bytes(bundle.read_bytes()[:-2000])
    refused(odd, "damaged, or no bundle")
    odd.write_bytes(b"")
    refused(odd, "damaged, or no bundle")
    assert there.asi("import", bundle.with_name("none.zip"))[0] == 2
    code, _, err = there.asi("import", bundle.parent)
    assert code == 4 and "neither a bundle" in err


def test_an_unpacked_bundle_with_a_link_is_refused(bundle: Path, places: Callable[[str], Place], tmp_path: Path) -> None:
    there = places("there")
    with zipfile.ZipFile(bundle) as archive:
        archive.extractall(tmp_path / "unpacked")
    blob = next((tmp_path / "unpacked" / "blobs").iterdir())
    blob.rename(tmp_path / "elsewhere")
    blob.symlink_to(tmp_path / "elsewhere")
    code, _, err = there.asi("import", tmp_path / "unpacked")
    assert code == 4 and blob.name in err and "is a link" in err
    assert not list(there.runs.iterdir())


def test_a_forged_ranking_is_found_though_its_manifest_fits(bundle: Path, places: Callable[[str], Place]) -> None:
    there = places("there")
    content = files_of(bundle)
    board = bundle.with_name("board.parquet")
    board.write_bytes(content["about/leaderboard.parquet"])
    better = bundle.with_name("better.parquet")
    duckdb.sql(
        f"COPY (SELECT * REPLACE (CASE WHEN rank = 1 THEN score + 1 ELSE score END AS score) FROM '{board}' ORDER BY rank)"
        f" TO '{better}' (FORMAT parquet)"
    )
    code, _, err = there.asi("import", forged(bundle, content | {"about/leaderboard.parquet": better.read_bytes()}))
    assert code == 4 and "row 1, column score" in err
    duckdb.sql(f"COPY (SELECT * FROM '{board}' ORDER BY rank) TO '{better}' (FORMAT parquet, COMPRESSION gzip)")
    code, _, err = there.asi("import", forged(bundle, content | {"about/leaderboard.parquet": better.read_bytes()}))
    assert (code, err) == (0, ""), "the same rows in other bytes are the same leaderboard"


def test_a_forged_record_is_found_though_its_manifest_fits(bundle: Path, places: Callable[[str], Place]) -> None:
    there = places("there")
    content = files_of(bundle)
    name = "journal/000002.jsonl"
    content[name] = content[name].replace(b'"recall"', b'"recalL"', 1)
    code, _, err = there.asi("import", forged(bundle, content))
    assert code == 4 and "000002.jsonl" in err
    assert not list(there.runs.iterdir())


def test_paths_to_secrets_of_the_exporter_are_not_taken_over(
    here: Place, places: Callable[[str], Place], tmp_path: Path
) -> None:
    toml = here.runs / "history" / "run.toml"
    toml.write_text(
        toml.read_text()
        .replace('key_file = ""', 'key_file = "/home/other/key"')
        .replace('urls_file = ""', 'urls_file = "/home/other/urls"')
    )
    assert here.asi("export", "history", "-o", tmp_path / "one.zip")[0] == 0
    there = places("there")
    assert there.asi("import", tmp_path / "one.zip")[0] == 0
    config = load(there.runs / "history" / "run.toml")
    assert config.agents.key_file == config.notify.urls_file == ""


def test_an_existing_run_is_never_written_over(here: Place, bundle: Path) -> None:
    before = sorted(os.listdir(here.runs / "history"))
    code, _, err = here.asi("import", bundle)
    assert code == 4 and "--name" in err
    assert sorted(os.listdir(here.runs / "history")) == before
    assert here.asi("import", bundle, "--name", "../up")[0] == 4
    assert here.asi("import", bundle, "--name", "other")[0] == 0


# --- signatures ------------------------------------------------------------------------------------------------------


def test_a_fork_is_signed_where_the_run_asks_for_it(
    here: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ada", "eve"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", tmp_path / name], check=True)
    monkeypatch.setenv("HOME", str(tmp_path / "nobody"))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    run = here.runs / "history"
    key = (tmp_path / "ada.pub").read_text().split()
    signers = Blobs(run / "blobs").put(f"ada {key[0]} {key[1]}\n")
    with Journal.open(run / "journal") as book:
        book.append(ev.SignersAdopted(signers, ["ada"]), "person:ada")
    code, _, err = here.asi("fork", "history", "--at", "last")
    assert code == 4 and "not forked" in err
    monkeypatch.setenv("ASI_SIGNING_KEY", str(tmp_path / "eve"))
    code, _, err = here.asi("fork", "history", "--at", "last")
    assert code == 4 and "not forked" in err
    assert {path.name for path in here.runs.iterdir()} == {"history"}
    monkeypatch.setenv("ASI_SIGNING_KEY", str(tmp_path / "ada"))
    code, out, err = here.asi("fork", "history", "--at", "last", "--reason", "signed")
    assert (code, err) == (0, "") and "signed by ada" in out
    report = audit.verify_run(here.runs / "history-fork-1")
    assert report.ok, report.problems
    assert report.signatures == 1
    last = list(read(here.runs / "history-fork-1" / "journal"))[-1]
    assert isinstance(last.data, ev.RunForked) and last.data.who == "ada" and last.data.signed is not None
    assert msgspec.json.decode(last.data.signed.statement)["action"] == "fork"
