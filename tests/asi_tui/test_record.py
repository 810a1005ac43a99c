"""`asi audit`, its filters and its check; `asi anchor` and what it shows later."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from asi_tui.main import main
from store import events as ev
from tests.store import history
from tests.store.signing import Book


@pytest.fixture
def book(tmp_path: Path) -> Book:
    made = Book(tmp_path / "heron")
    made.tell(ev.PolicyAdopted(made.blobs.put("version = 1"), "cautious", "policy.toml"))
    made.propose()
    made.ask()
    made.vote("ada@10.0.0.7")
    made.decide("ada@10.0.0.7")
    made.launch()
    made.launch(tier="verify", trial="e0001-s1")
    made.tell(ev.RunKilled("bob", made.now, "fan \x1b[31m", 3, True), "person:bob", 60)
    made.write()
    return made


def told(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> str:
    assert main([*words]) == code, capsys.readouterr()
    out = capsys.readouterr()
    assert "\x1b" not in out.out + out.err
    return out.out if code in (0, 1) and out.out else out.err


def kinds(capsys: pytest.CaptureFixture[str], book: Book, *words: str) -> list[str]:
    return [line["kind"] for line in json.loads(told(capsys, "audit", str(book.root), "--json", *words))]


def test_the_record_can_be_filtered(book: Book, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(kinds(capsys, book)) == len(book.events)
    asked = ["approval.requested", "approval.voted", "approval.decided"]
    assert kinds(capsys, book, "--kind", "decision") == asked == kinds(capsys, book, "--kind", "approval")
    assert kinds(capsys, book, "--kind", "launch") == ["trial.started"] * 2 == kinds(capsys, book, "--kind", "trial.started")
    assert kinds(capsys, book, "--kind", "promotion") == ["trial.started"]
    assert kinds(capsys, book, "--kind", "kill") == ["run.killed"]
    assert kinds(capsys, book, "--kind", "policy") == ["policy.adopted"]
    assert kinds(capsys, book, "--who", "ada") == asked[1:] == kinds(capsys, book, "--who", "ada@10.0.0.7")
    assert kinds(capsys, book, "--who", "bob", "--last", "1") == ["run.killed"]
    assert len(kinds(capsys, book, "--experiment", "e0001")) == 7
    assert "approval.voted" in kinds(capsys, book, "--experiment", "e0001")
    assert kinds(capsys, book, "--last", "2") == ["trial.started", "run.killed"]
    line = told(capsys, "audit", str(book.root), "--kind", "kill")
    assert "everything killed by bob: 3 processes, death proved: fan" in line
    assert "did you mean launch?" in told(capsys, "audit", str(book.root), "--kind", "lunch", code=2)


def test_the_record_can_be_cut_by_time(book: Book, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asi_tui.commands.audit.time.time", lambda: book.now + 30.0)
    assert kinds(capsys, book, "--since", "60s") == ["run.killed"]
    assert kinds(capsys, book, "--until", "1m")[-1] == "trial.started"
    assert kinds(capsys, book, "--since", "1m", "--until", "45s") == []


def test_the_check_names_what_is_wrong(book: Book, capsys: pytest.CaptureFixture[str]) -> None:
    report = told(capsys, "audit", str(book.root), "--verify", code=1)
    assert "record 9: program" in report and "launched at verify without an approval" in report
    found = json.loads(told(capsys, "audit", str(book.root), "--verify", "--json", code=1))
    assert [seq for seq, _ in found["problems"]] == [9]
    assert "all good" in told(capsys, "audit", str(history.write_run(book.root.parent / "elder", 12)), "--verify")


@pytest.mark.parametrize(("login", "told_it"), [("ada", True), ("grace", False)])
def test_an_answer_is_told_to_the_second_person_once_they_have_given_theirs(
    login: str, told_it: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Book(tmp_path / "heron")
    made.propose()
    made.ask(people=2)
    made.vote("ada")
    made.write()
    for module in ("audit", "look"):
        monkeypatch.setattr(f"asi_tui.commands.{module}.login", lambda: login)
    lines = told(capsys, "audit", str(made.root), "--kind", "decision")
    assert ("ada answered" in lines) is told_it
    assert ("an answer to" in lines) is not told_it
    assert ("approval.voted" in kinds(capsys, made, "--who", "ada")) is told_it
    pending = json.loads(told(capsys, "approvals", str(made.root), "--json"))
    assert [vote["who"] for vote in pending[0]["votes"]] == (["ada"] if told_it else [])


# --- anchors ---------------------------------------------------------------------------------------------------------


def git(folder: Path, *words: str) -> str:
    return subprocess.run(["git", "-C", str(folder), *words], check=True, capture_output=True, text=True).stdout


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    folder = tmp_path / "notary"
    folder.mkdir()
    git(folder, "init", "--quiet")
    git(folder, "config", "user.email", "ada@example.org")
    git(folder, "config", "user.name", "ada")
    return folder


def test_an_anchor_shows_a_rewritten_history(book: Book, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    del book.events[-2:]  # the launch that nobody allowed, and what came after it
    root = str(book.write())
    printed = told(capsys, "anchor", root)
    name, seq, head, moment = printed.split()
    assert (name, int(seq), moment) == ("heron", len(book.events), "2027-01-15T08:00:21Z")
    assert json.loads(told(capsys, "anchor", root, "--json")) == {"run": name, "seq": int(seq), "hash": head, "time": moment}
    pair, kept = f"{seq}:{head}", tmp_path / "kept.txt"
    kept.write_text(f"# mine\n{printed}other 3 {'0' * 64} 2027-01-01T00:00:00Z\n")
    book.tell(ev.RunPaused("lunch"), "person:ada")
    book.write()
    for given in (pair, str(kept)):
        assert "1 of 1 anchors checked: all good" in told(capsys, "audit", root, "--verify", "--anchor", given)
    book.events[-2] = (book.events[-2][0] + 0.5, *book.events[-2][1:])
    book.write()
    assert "all good" in told(capsys, "audit", root, "--verify")
    for given in (pair, str(kept)):
        assert "history was rewritten" in told(capsys, "audit", root, "--verify", "--anchor", given, code=1)


def test_anchors_that_are_none_are_refused(book: Book, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    root, odd = str(book.root), tmp_path / "odd.txt"
    assert "no anchor" in told(capsys, "audit", root, "--verify", "--anchor", "12:xyz", code=2)
    assert "--verify --anchor" in told(capsys, "audit", root, "--anchor", "12:xyz", code=2)
    odd.write_text("other 3 " + "0" * 64 + " 2027-01-01T00:00:00Z\n")
    assert "holds no anchor of heron" in told(capsys, "audit", root, "--verify", "--anchor", str(odd), code=2)
    odd.write_bytes(b"\xff\x1b]0;x\x07\n")
    assert "odd.txt:1" in told(capsys, "audit", root, "--verify", "--anchor", str(odd), code=2)
    (book.root / "journal" / "000001.jsonl").write_text("{}\n")
    assert "asi audit --verify" in told(capsys, "anchor", root, code=1)


def test_an_anchor_is_committed_and_nothing_else(book: Book, repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = str(book.root)
    (repository / "staged").write_text("not yours to commit")
    git(repository, "add", "staged")
    assert "committed to asi-anchors/heron.txt" in told(capsys, "anchor", root, "--git", str(repository))
    assert git(repository, "show", "--name-only", "--format=%s").split("\n")[:3] == [
        f"Anchor of heron at record {len(book.events)}", "", "asi-anchors/heron.txt",
    ]  # fmt: skip
    assert git(repository, "diff", "--cached", "--name-only").split() == ["staged"]
    assert "nothing to commit" in told(capsys, "anchor", root, "--git", str(repository))
    book.tell(ev.RunPaused("lunch"), "person:ada")
    book.write()
    told(capsys, "anchor", root, "--git", str(repository))
    report = told(capsys, "audit", root, "--verify", "--anchor", str(repository), code=1)
    assert "2 of 2 anchors checked: 1 problems" in report  # of the launch that was there before
    (repository / "asi-anchors" / "heron.txt").write_text("")  # what is committed counts
    book.events[2] = (book.events[2][0] + 0.5, *book.events[2][1:])
    book.write()
    report = told(capsys, "audit", root, "--verify", "--anchor", str(repository), code=1)
    assert report.count("history was rewritten") == 2


def test_a_place_for_anchors_that_is_none_is_refused(
    book: Book, repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = str(book.root)
    (tmp_path / "plain").mkdir()
    assert "not a git repository" in told(capsys, "anchor", root, "--git", str(tmp_path / "plain"), code=2)
    assert not list((tmp_path / "plain").iterdir())
    assert "no directory" in told(capsys, "anchor", root, "--git", str(tmp_path / "nowhere"), code=2)
    (repository / "asi-anchors").mkdir()
    (repository / "asi-anchors" / "heron.txt").symlink_to(tmp_path / "elsewhere")
    assert "heron.txt" in told(capsys, "anchor", root, "--git", str(repository), code=1)
    assert not (tmp_path / "elsewhere").exists()
