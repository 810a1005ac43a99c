"""Orders are signed by the person's own key where the run asks for that, from the shell, the app, and after a kill."""

import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from asi_tui import signing
from asi_tui.commands import emergency
from asi_tui.preferences import Preferences, load_preferences
from engine.client.kill import KillReport
from engine.client.kill_signature import read_kill_signature, write_kill_signature
from engine.client.records import clear_latch, write_latch
from store import signatures
from store.signatures import SignatureError, Statement
from tests.asi_tui.fakes import Fake, app_for
from tests.store.signing import NAME, Book, line, make_key


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("keys")
    return {"ada": make_key(folder, "ada"), "locked": make_key(folder, "locked", "secret")}


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody's own keys."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    for name in ("SSH_AUTH_SOCK", "ASI_SIGNING_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def signers(keys: dict[str, Path]) -> str:
    return line("ada", keys["ada"]) + line("cy", keys["locked"])


@pytest.fixture
def book(tmp_path: Path, signers: str) -> Book:
    made = Book(tmp_path / "run", signers)
    made.propose()
    made.ask()
    made.write()
    (made.root / "run.toml").write_text('[gate]\nallowed_signers = "signers"\n')
    return made


def wanted(book: Book, action: str, *fields: str) -> Statement:
    return Statement(NAME, book.genesis, action, *fields)


def test_what_is_signed_is_what_the_engine_expects(book: Book, signers: str, keys: dict[str, Path]) -> None:
    preferred, text = str(keys["ada"]), "version = 1\n"
    sha = hashlib.sha256(text.encode()).hexdigest()
    cases = [
        ("approve", {"target": "R0001", "program": book.program[:8], "reason": "read\nit"},
         wanted(book, "approve", "R0001", book.program, "probe", "read it")),
        ("undo", {"target": "e0001"}, wanted(book, "undo", "R0001", book.program, "probe")),
        ("policy", {"program": text}, wanted(book, "policy", "policy", sha)),
        ("autonomy", {"target": "A1"}, wanted(book, "autonomy", "A1")),
        ("cancel", {"target": "e0001", "reason": "no"}, wanted(book, "cancel", "e0001", "", "", "no")),
        ("rearm", {"reason": "safe"}, wanted(book, "rearm", "", "", "", "safe")),
        ("fork", {"target": "e0001", "program": "ee" * 32}, wanted(book, "fork", "e0001", "ee" * 32)),
    ]  # fmt: skip
    for name, fields, expected in cases:
        signed = signing.signed_for(book.root, name, fields, "ada@10.0.0.7", preferred=preferred)
        assert signatures.receive(signed, expected, signers, (), time.time()).who == "ada"


def test_what_only_stops_is_never_signed(book: Book, tmp_path: Path, keys: dict[str, Path]) -> None:
    for name in ("pause", "freeze", "park", "stop", "end", "present", "look"):
        assert signing.signed_for(book.root, name, {}, "ada") is None
    plain = Book(tmp_path / "plain")
    plain.propose()
    plain.ask()
    plain.write()
    assert signing.signed_for(plain.root, "approve", {"target": "R0001"}, "ada") is None


def test_what_cannot_be_signed_is_said(book: Book, keys: dict[str, Path]) -> None:
    fields = {"target": "R0001"}
    with pytest.raises(SignatureError, match="no key in ~/.ssh"):
        signing.signed_for(book.root, "approve", fields, "ada")
    with pytest.raises(SignatureError, match="ssh-add"):
        signing.signed_for(book.root, "approve", fields, "ada", preferred=str(keys["locked"]))
    with pytest.raises(SignatureError, match="no pending request"):
        signing.signed_for(book.root, "approve", {"target": "R9"}, "ada", preferred=str(keys["ada"]))
    with pytest.raises(SignatureError, match="is about program"):
        signing.signed_for(book.root, "approve", {**fields, "program": "00" * 32}, "ada", preferred=str(keys["ada"]))


# --- the app ---------------------------------------------------------------------------------------------------------


async def test_the_app_signs_and_says_when_it_cannot(book: Book, signers: str, keys: dict[str, Path]) -> None:
    fake = Fake().start()
    app = app_for(fake, book.root)
    app.preferences = Preferences(signing_key=str(keys["ada"]))
    async with app.run_test(size=(100, 30)) as pilot:
        await pilot.pause(0.3)
        state = app.model.state
        state.name, state.signers = NAME, book.blobs.put(signers)
        await app.send("resume")
        await app.send("pause")
        orders = dict(fake.orders)
        assert "signed" not in orders["pause"]
        signed = orders["resume"]["signed"]
        assert signatures.receive(signed, wanted(book, "resume"), signers, (), time.time()).who == "ada"
        fake.orders.clear()
        app.preferences = Preferences(signing_key=str(keys["locked"]))
        said: list[str] = []
        app.tell = lambda text, bad=False: said.append(text)  # type: ignore[method-assign]
        app.order("resume")
        for _ in range(200):
            await pilot.pause(0.05)
            if said:
                break
        assert fake.orders == []
        assert len(said) == 1 and "was not sent" in said[0] and "ssh-add" in said[0]


async def test_the_key_is_set_by_a_line(book: Book, keys: dict[str, Path]) -> None:
    app = app_for(Fake().start(), book.root)
    async with app.run_test(size=(100, 30)) as pilot:
        await pilot.pause(0.3)
        for name in ("/no/such/key", str(keys["ada"])):
            await pilot.press("colon", *[" " if c == " " else c for c in f"set signing_key {name}"], "enter")
            await pilot.pause(0.1)
            assert app.preferences.signing_key == (name if name == str(keys["ada"]) else "")
        for _ in range(200):
            await pilot.pause(0.05)
            if load_preferences().signing_key:
                break
    assert load_preferences().signing_key == str(keys["ada"])


# --- after a kill ----------------------------------------------------------------------------------------------------


def _killed(root: Path, actor: str, reason: str) -> KillReport:
    write_latch(root, actor, reason)
    return KillReport(str(root), True, [], [], 1.0, frozenset(), frozenset())


@pytest.fixture
def asking(book: Book, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Book:
    text = (book.root / "run.toml").read_text()
    (book.root / "run.toml").write_text(text.replace('allowed_signers = ""', 'allowed_signers = "signers"'))
    monkeypatch.setattr(emergency, "kill_run", _killed)
    monkeypatch.setenv("LOGNAME", "ada")
    monkeypatch.delenv("SSH_CONNECTION", raising=False)
    monkeypatch.setattr("sys.stdin", None)
    return book


def test_a_kill_is_signed_once_it_is_proved(
    asking: Book, signers: str, keys: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ASI_SIGNING_KEY", str(keys["ada"]))
    assert emergency.kill(str(asking.root), "fan is loud") == 0
    assert "proved" in capfd.readouterr().out
    left = read_kill_signature(asking.root)
    kill = Statement(NAME, asking.genesis, "kill", reason="fan is loud", who="ada")
    found = signatures.of_kill(left, kill, signers, time.time())
    assert found is not None
    assert (asking.root / "kill.sig.json").stat().st_mode & 0o777 == 0o600
    assert emergency.kill(str(asking.root), "again") == 0  # the first latch is kept, and so is its signature
    assert read_kill_signature(asking.root) == left
    clear_latch(asking.root)
    assert read_kill_signature(asking.root) is None


def test_a_kill_counts_without_a_signature(
    asking: Book, keys: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ASI_SIGNING_KEY", str(keys["locked"]))
    assert emergency.kill(str(asking.root), "fan") == 0
    out, err = capfd.readouterr()
    assert "proved" in out
    assert err.count("\n") == 1 and "counts all the same" in err and "ssh-add" in err
    assert read_kill_signature(asking.root) is None


def test_what_is_no_signature_of_a_kill_is_left_alone(tmp_path: Path) -> None:
    assert write_kill_signature(tmp_path, "{}", "x") == ""
    assert read_kill_signature(tmp_path) == ("{}", "x")
    path = tmp_path / "kill.sig.json"
    for content in ("", "[]", "{", '{"statement": 1, "signature": "x"}', json.dumps({"statement": "a", "signature": "b", "c": 1})):
        path.write_text(content)
        assert read_kill_signature(tmp_path) is None
    path.write_text("x" * 1_000_000)
    assert read_kill_signature(tmp_path) is None
    path.unlink()
    os.mkfifo(path)
    assert read_kill_signature(tmp_path) is None  # and never waits for it


def test_the_way_to_the_proof_imports_nothing_more() -> None:
    code = "import sys; import asi_tui.commands.emergency; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert not {"msgspec", "tomllib", "store", "store.signatures", "asi_tui.signing"} & set(loaded)
