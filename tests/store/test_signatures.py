import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from store import events as ev
from store import signatures, sshsig
from store.signatures import SignatureError, Statement
from tests.store.signing import line, make_key

GENESIS = "ab" * 32
PROGRAM = "cd" * 32


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("keys")
    made = {name: make_key(folder, name) for name in ("ada", "laptop", "bob", "eve")}
    return {**made, "locked": make_key(folder, "locked", "secret")}


@pytest.fixture(scope="module")
def signers(keys: dict[str, Path]) -> str:
    return "# who decides\n" + line("ada", keys["ada"]) + line("ada", keys["laptop"], "") + line("bob@lab.org", keys["bob"])


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    started = subprocess.run(["ssh-agent", "-s", "-a", str(tmp_path / "agent")], capture_output=True, text=True, check=True)
    words = dict(part.strip().split("=", 1) for part in started.stdout.split(";") if part.strip().startswith("SSH_"))
    for name, value in words.items():
        monkeypatch.setenv(name, value)
    yield
    subprocess.run(["ssh-agent", "-k"], env={**os.environ, **words}, check=True, capture_output=True)


def wanted(**changes: str) -> Statement:
    fields = {"action": "approve", "target": "R0001", "program": PROGRAM, "tier": "probe", "reason": "read it", "who": "ada"}
    return Statement("quiet-heron", GENESIS, **{**fields, **changes})


def order(key: Path, **changes: str) -> ev.Signed:
    return sshsig.sign(signatures.statement_text(signatures.made_now(wanted(**changes))), key)


def receive(signed: ev.Signed | None, signers: str, used: object = (), now: float = 0.0, **changes: str) -> signatures.Person:
    return signatures.receive(signed, wanted(**changes), signers, used, now or time.time())  # type: ignore[arg-type]


# --- statements ------------------------------------------------------------------------------------------------------


def test_a_statement_has_one_text_and_only_that_is_read_back() -> None:
    made = signatures.made_now(wanted(reason="schön “so”"))
    text = signatures.statement_text(made)
    assert signatures.parse_statement(text) == made
    other = signatures.made_now(wanted(reason="schön “so”"))
    assert other.nonce != made.nonce
    for bad in (
        text.replace(":", ": ", 1), text + " ", "{}", "[]", "", "x" * 100_000, text.replace('"who"', '"extra":1,"who"'),
        text.replace(PROGRAM, PROGRAM[:-1]), text.replace(made.nonce, made.nonce + "\\n"),
    ):  # fmt: skip
        with pytest.raises(SignatureError) as caught:
            signatures.parse_statement(bad)
        assert "\n" not in str(caught.value)
    with pytest.raises(SignatureError):
        signatures.statement_text(msgspec.structs.replace(made, reason="half \ud800"))


def test_a_reason_is_signed_as_it_is_recorded() -> None:
    nasty = "fine\x1b[31m\u202e\n" + "x" * 5_000
    assert signatures.said(nasty) == signatures.said(nasty[: signatures.MAX_REASON]) == signatures.said(signatures.said(nasty))
    assert signatures.said(nasty).isprintable() and len(signatures.said(nasty)) <= signatures.MAX_REASON


# --- signing and checking --------------------------------------------------------------------------------------------


def test_what_is_signed_passes_the_stock_ssh_keygen(keys: dict[str, Path], signers: str, tmp_path: Path) -> None:
    signed = order(keys["ada"])
    (tmp_path / "signers").write_text(signers)
    (tmp_path / "signature").write_text(signed.signature)
    command = ["ssh-keygen", "-Y", "verify", "-n", "asi", "-I", "ada", "-f", "signers", "-s", "signature"]
    for statement, code in ((signed.statement, 0), (signed.statement.replace("approve", "reject"), 255)):
        done = subprocess.run(command, input=statement.encode(), cwd=tmp_path, capture_output=True)
        assert done.returncode == code, done


def test_the_key_decides_who_it_was(keys: dict[str, Path], signers: str) -> None:
    by_ada, by_laptop = (receive(order(keys[name]), signers) for name in ("ada", "laptop"))
    assert (by_ada.who, by_laptop.who) == ("ada", "ada")
    assert by_ada.key != by_laptop.key
    assert by_ada.signed is not None and by_ada.signed.key == by_ada.key
    listed = subprocess.run(["ssh-keygen", "-lf", str(keys["ada"])], capture_output=True, text=True, check=True).stdout
    assert by_ada.key == listed.split()[1]
    assert receive(order(keys["bob"]), signers).who == "bob@lab.org"  # whatever name was told


def test_without_signers_a_signature_is_ignored(keys: dict[str, Path]) -> None:
    assert receive(order(keys["eve"]), "") == signatures.Person("ada")
    assert receive(None, "") == signatures.Person("ada")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"target": "R0002"}, "target"), ({"program": "ef" * 32}, "program"), ({"action": "reject"}, "action"),
        ({"tier": "verify"}, "tier"), ({"reason": "did not read it"}, "reason"),
    ],
)  # fmt: skip
def test_a_signature_holds_for_one_order_only(keys: dict[str, Path], signers: str, change: dict[str, str], words: str) -> None:
    with pytest.raises(SignatureError, match=f"another order: {words}"):
        receive(order(keys["ada"]), signers, **change)


def test_a_signature_holds_for_one_run_only(keys: dict[str, Path], signers: str) -> None:
    signed = order(keys["ada"])
    for other in (msgspec.structs.replace(wanted(), run="other"), msgspec.structs.replace(wanted(), genesis="0" * 64)):
        with pytest.raises(SignatureError, match="another order: (run|genesis)"):
            signatures.receive(signed, other, signers, (), time.time())


def test_a_signature_holds_once_and_not_for_long(keys: dict[str, Path], signers: str) -> None:
    signed, used = order(keys["ada"]), signatures.Nonces()
    assert receive(signed, signers, used).who == "ada"
    used.add(signed, time.time())
    with pytest.raises(SignatureError, match="used before"):
        receive(signed, signers, used)
    for now, words in ((time.time() + 400, "s old"), (time.time() - 400, "ahead")):
        with pytest.raises(SignatureError, match=words):
            receive(signed, signers, now=now)


def test_who_may_not_sign_is_refused(keys: dict[str, Path], signers: str) -> None:
    good = order(keys["ada"])
    cases = {
        "not among this run.s signers": order(keys["eve"]),
        "something else": ev.Signed(order(keys["ada"]).statement, good.signature),
        "no SSH signature": ev.Signed(good.statement, "garbage"),
        "is no SSH": ev.Signed(good.statement, "-----BEGIN SSH SIGNATURE-----\n!\n-----END SSH SIGNATURE-----\n"),
        "at most": ev.Signed(good.statement, good.signature + "A" * 100_000),
    }
    for words, signed in cases.items():
        with pytest.raises(SignatureError, match=words) as caught:
            receive(signed, signers)
        assert "\n" not in str(caught.value)
    with pytest.raises(SignatureError, match="asks for signatures"):
        receive(None, signers)
    with pytest.raises(SignatureError, match="not bob@lab.org's|something else"):
        sshsig.verify(good, signers, "bob@lab.org", time.time())
    with pytest.raises(SignatureError, match="no name"):
        sshsig.verify(good, signers, "-oEvil=1", time.time())


def test_the_times_of_a_key_are_kept_to(keys: dict[str, Path]) -> None:
    signed, now = order(keys["ada"]), time.time()
    expired = line("ada", keys["ada"], 'namespaces="asi",valid-before="20200101"')
    with pytest.raises(SignatureError, match="not valid at that moment"):
        receive(signed, expired)
    assert sshsig.verify(signed, expired, "ada", 1_500_000_000.0).startswith("SHA256:")
    later = line("ada", keys["ada"], 'valid-after="20990101"')
    with pytest.raises(SignatureError, match="not valid at that moment"):
        sshsig.verify(signed, later, "ada", now)


def test_a_signature_for_another_purpose_is_refused(keys: dict[str, Path], signers: str, tmp_path: Path) -> None:
    text = order(keys["ada"]).statement
    done = subprocess.run(
        ["ssh-keygen", "-Y", "sign", "-n", "git", "-f", str(keys["laptop"])], input=text.encode(), capture_output=True
    )
    with pytest.raises(SignatureError, match="another purpose"):
        receive(ev.Signed(text, done.stdout.decode()), signers)


# --- keys ------------------------------------------------------------------------------------------------------------


def test_a_locked_key_is_one_line_and_never_a_prompt(keys: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    with pytest.raises(SignatureError, match="locked; unlock it first: ssh-add .*locked") as caught:
        order(keys["locked"])
    assert "\n" not in str(caught.value)


def test_an_agent_signs_with_a_locked_key(keys: dict[str, Path], agent: None, tmp_path: Path) -> None:
    askpass = tmp_path / "askpass"
    askpass.write_text("#!/bin/sh\necho secret\n")
    askpass.chmod(0o700)
    environment = {**os.environ, "SSH_ASKPASS": str(askpass), "SSH_ASKPASS_REQUIRE": "force"}
    subprocess.run(["ssh-add", str(keys["locked"])], env=environment, check=True, capture_output=True, start_new_session=True)
    listed = line("cy", keys["locked"])
    assert receive(order(keys["locked"]), listed).who == "cy"
    assert receive(order(keys["locked"].with_suffix(".pub")), listed).who == "cy"
    with sshsig.agent_key(listed) as held:  # the key itself may be on another machine
        assert held is not None
        assert receive(order(held), listed).who == "cy"
    with sshsig.agent_key(line("ada", keys["ada"])) as held:
        assert held is None


def test_a_key_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "ssh-keygen"
    program.write_text("#!/bin/sh\nsleep 600 &\nsleep 600\n")
    program.chmod(0o700)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    begin = time.monotonic()
    with pytest.raises(SignatureError, match="no answer"):
        sshsig.sign("text", tmp_path / "key", timeout=0.5)
    assert time.monotonic() - begin < 30


def test_what_is_missing_is_said(keys: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SignatureError, match="there is no key"):
        order(tmp_path / "nothing")
    open_key = make_key(tmp_path, "open")
    open_key.chmod(0o644)
    with pytest.raises(SignatureError, match="chmod 600"):
        order(open_key)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SignatureError, match="not installed"):
        order(keys["ada"])


def test_the_key_is_found_where_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("ASI_SIGNING_KEY", raising=False)
    assert sshsig.find_key() is None
    (tmp_path / ".ssh").mkdir()
    rsa, ed = tmp_path / ".ssh" / "id_rsa", tmp_path / ".ssh" / "id_ed25519.pub"
    rsa.touch()
    assert sshsig.find_key() == rsa
    ed.touch()
    assert sshsig.find_key() == ed
    assert sshsig.find_key("~/mine") == tmp_path / "mine"
    monkeypatch.setenv("ASI_SIGNING_KEY", "/elsewhere")
    assert sshsig.find_key("~/mine") == Path("/elsewhere")


# --- allowed_signers -------------------------------------------------------------------------------------------------


def test_signers_are_people_each_once(keys: dict[str, Path], signers: str) -> None:
    git_only = line("carl", keys["eve"], 'namespaces="git,file"')
    assert signatures.read_signers(signers + git_only) == ["ada", "bob@lab.org"]
    options = 'cert-authority,namespaces="a*",valid-after="20200101",valid-before="20990101"'
    assert signatures.read_signers(line("ada", keys["ada"], options)) == ["ada"]


def test_signers_that_are_wrong_are_named_by_line(keys: dict[str, Path]) -> None:
    good = line("ada", keys["ada"])
    bad = {
        "names several people": line("ada,bob", keys["bob"]),
        "no name of a person": line("*@lab.org", keys["bob"]),
        "'policy' is no name": line("policy", keys["bob"]),
        "ada's already": line("bob", keys["ada"]),
        "no public key": "bob ssh-ed25519 AAAA\n",
        "public key stands": "bob\n",
        "unknown option": line("bob", keys["bob"], "namespace=asi"),
        "control character": line("bob", keys["bob"]).rstrip() + "\x1b\n",
    }
    for words, text in bad.items():
        with pytest.raises(SignatureError, match=f"allowed_signers:2: .*{words}"):
            signatures.read_signers(good + text)
    for text in ("", "# nobody\n", line("carl", keys["eve"], 'namespaces="git"')):
        with pytest.raises(SignatureError, match="names nobody"):
            signatures.read_signers(text)
    with pytest.raises(SignatureError, match="larger"):
        signatures.read_signers("#" * 300_000)


# --- kills -----------------------------------------------------------------------------------------------------------


def test_the_signature_of_a_kill_counts_where_it_holds(keys: dict[str, Path], signers: str) -> None:
    kill = wanted(action="kill", target="", program="", tier="", who="ada@10.0.0.7")
    made = sshsig.sign(signatures.statement_text(signatures.made_now(kill)), keys["ada"])
    left, now = (made.statement, made.signature), time.time()
    found = signatures.of_kill(left, kill, signers, now)
    assert found is not None and found.key.startswith("SHA256:")
    assert signatures.of_kill(None, kill, signers, now) is None
    assert signatures.of_kill(left, kill, "", now) is None
    assert signatures.of_kill(left, kill, signers, now - 1_000) is None
    assert signatures.of_kill(left, msgspec.structs.replace(kill, who="bob"), signers, now) is None
    assert signatures.of_kill(("{}", left[1]), kill, signers, now) is None
