"""Who allowed what, checked from the record alone: every run here has a chain that is right, whatever it tells."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from store import anchors, audit, chain, journal
from store import events as ev
from tests.store import signing
from tests.store.signing import Book, line, make_key


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("keys")
    return {name: make_key(folder, name) for name in ("ada", "bob", "eve")}


@pytest.fixture(scope="module")
def signers(keys: dict[str, Path]) -> str:
    return line("ada", keys["ada"]) + line("bob", keys["bob"])


def found(book: Book) -> list[str]:
    assert journal.verify(book.write() / "journal").ok
    return [problem.what for problem in audit.verify_run(book.root).problems]


def only(book: Book, *words: str) -> None:
    """Exactly these problems, in this order."""
    problems = found(book)
    assert len(problems) == len(words), problems
    for problem, word in zip(problems, words, strict=True):
        assert word in problem, problems


# --- without signatures ----------------------------------------------------------------------------------------------


def test_two_people_where_two_were_asked(tmp_path: Path) -> None:
    book = Book(tmp_path / "run")
    book.propose()
    book.ask(people=2, risk="R2")
    book.vote("ada")
    book.vote("bob")
    book.decide("ada, bob", until=book.now + 60)
    book.launch()
    only(book)
    book.launch(after=100, trial="e0001-s1")
    only(book, "after its approval had ended")


Change = Callable[[Book], None]


def once(book: Book) -> None:
    book.vote("ada")
    book.decide("ada")


def twice(book: Book) -> None:
    book.vote("ada")
    book.vote("ada")
    book.decide("ada, bob")


def withdrawn(book: Book) -> None:
    book.vote("ada")
    book.vote("bob")
    book.tell(ev.ApprovalWithdrawn("R0001", "bob"), "person:bob")
    book.decide("ada")


def too_soon(book: Book) -> None:
    book.vote("ada")
    book.vote("bob", wait=100)
    book.decide("ada, bob")


def too_late(book: Book) -> None:
    book.vote("ada")
    book.now += 1_000
    book.vote("bob")
    book.decide("ada, bob")


def other_program(book: Book) -> None:
    book.vote("ada")
    voted = ev.ApprovalVoted("R0001", "approve", "bob", book.blobs.put("another"), takes_effect=book.now)
    book.tell(voted, "person:bob")
    book.decide("ada")


def against(book: Book) -> None:
    book.vote("ada")
    book.vote("bob", decision="reject")
    book.decide("ada, bob")


def nobody(book: Book) -> None:
    book.decide("ada")


@pytest.mark.parametrize(
    ("votes", "words"),
    [
        (once, ["by 1 where 2"]), (twice, ["by bob, of whom"]), (withdrawn, ["by 1 where 2"]),
        (too_soon, ["before the answers took effect"]), (too_late, ["after its request had expired", "by bob, of whom"]),
        (other_program, ["another program", "by 1 where 2"]), (against, ["by bob, of whom"]), (nobody, ["by ada, of whom"]),
    ],
)  # fmt: skip
def test_an_approval_follows_from_answers(tmp_path: Path, votes: Change, words: list[str]) -> None:
    book = Book(tmp_path / "run")
    book.propose()
    book.ask(people=2)
    votes(book)
    book.launch()
    only(book, *words, "without an approval")


def test_an_approval_covers_so_much_and_no_more(tmp_path: Path) -> None:
    book = Book(tmp_path / "run")
    book.propose()
    book.ask()
    book.vote("ada")
    book.decide("ada", cpu=100.0)
    book.launch()
    book.tell(ev.TrialFailed("e0001-s0", "e0001", "divergence", cpu_seconds=150.0))
    only(book)
    book.launch(trial="e0001-s1")
    book.launch(tier="verify", trial="e0001-s2")
    only(book, "beyond its approval's 100", "launched at verify without an approval")


def test_what_touches_the_supervision_is_never_approved(tmp_path: Path) -> None:
    book = Book(tmp_path / "run")
    book.propose()
    book.ask(risk="R4")
    book.vote("ada")
    book.decide("ada")
    only(book, "can only be rejected")


def test_old_decisions_without_answers_stay_valid(tmp_path: Path, signers: str) -> None:
    for name, listed, words in (("old", "", []), ("signed", signers, ["by ada, of whom", "without an approval"])):
        book = Book(tmp_path / name, listed)
        book.propose()
        book.ask()
        book.decide("ada")
        book.launch()
        only(book, *words)
    ruled = Book(tmp_path / "ruled")
    ruled.tell(ev.PolicyAdopted(ruled.blobs.put("version = 1"), "cautious", "default"))
    ruled.propose()
    ruled.ask()
    ruled.decide("ada")
    ruled.launch()
    only(ruled, "by ada, of whom", "without an approval")


def test_a_person_is_not_the_policy(tmp_path: Path) -> None:
    book = Book(tmp_path / "run")
    book.propose()
    book.tell(ev.ApprovalDecided("e0001", book.program, "probe", "approve", "policy"), "person:policy")
    book.launch()
    only(book, "by policy answers no request", "without an approval")


def test_the_gravest_may_be_decided_after_its_request_has_expired(tmp_path: Path) -> None:
    book = Book(tmp_path / "run")
    book.propose()
    book.ask(people=2, risk="R3")
    book.vote("ada", wait=700.0)
    book.vote("bob", wait=700.0)
    book.decide("ada, bob", after=710.0)
    book.launch()
    only(book)


def test_a_test_of_attention_was_sealed_and_never_runs(tmp_path: Path) -> None:
    nonce = "0b" * 16
    seal = hashlib.sha256(f"{nonce}:e0001:decoy".encode()).hexdigest()
    checked = ev.AttentionChecked("R0001", "e0001", "ada", False, "imports os", nonce)
    for name, sealed, words in (("right", seal, []), ("late", "", ["not sealed"]), ("real", "ab" * 32, ["not sealed"])):
        book = Book(tmp_path / name)
        book.propose(seal=sealed)
        book.tell(checked)
        only(book, *words)
    book = Book(tmp_path / "run")
    book.propose(seal=seal)
    book.tell(ev.ApprovalDecided("e0001", book.program, "probe", "approve", "policy"))
    book.launch()
    book.tell(checked)
    book.launch(trial="e0001-s1")
    only(book, "was a test of attention and was launched", "although it is a test")


def test_only_a_person_changes_the_rules(tmp_path: Path) -> None:
    book = Book(tmp_path / "run")
    policy = book.blobs.put("version = 1")
    book.tell(ev.PolicyAdopted(policy, "cautious", "policy.toml"))
    book.tell(ev.AutonomyChanged("A1", "an anomaly"))
    book.tell(ev.AutonomyChanged("A3", "why not"))
    book.tell(ev.PolicyAdopted(policy, "trusting", "policy.toml"))
    only(book, "autonomy was raised", "policy was changed")


def test_signers_are_changed_by_an_engine_that_begins_and_by_nobody_else(tmp_path: Path, signers: str) -> None:
    book = Book(tmp_path / "run", signers)
    adopted = book.events[-1][2]
    book.tell(ev.EngineStarted(1, "0", "boot"))
    book.tell(adopted)
    book.tell(ev.RunArmed("L2", 1, 1.0, 1, 1))
    only(book)
    book.tell(adopted)
    only(book, "signers were changed")


# --- with signatures -------------------------------------------------------------------------------------------------


def signed_run(root: Path, keys: dict[str, Path], signers: str) -> Book:
    """Everything that can be signed, signed."""
    book = Book(root, signers)
    text = 'version = 1\nname = "cautious"\n'
    policy = book.blobs.put(text)
    by_ada = book.signed(keys["ada"], "policy", target="policy", program=policy, reason="models propose")
    book.tell(ev.PolicyAdopted(policy, "cautious", "ada", "models propose", signed=by_ada), "person:ada")
    book.tell(
        ev.AutonomyChanged("A3", "ok", book.signed(keys["bob"], "autonomy", "bob", target="A3", reason="ok")), "person:bob"
    )
    book.propose()
    book.ask(people=2)
    book.vote("ada", keys["ada"], reason="read it")
    book.vote("bob", keys["bob"], reason="me too")
    book.decide("ada, bob")
    book.launch()
    killed = book.signed(keys["ada"], "kill", "ada@10.0.0.7", reason="fan")
    when = book.now + 1
    book.tell(ev.RunKilled("ada@10.0.0.7", when, "fan", 4, True, killed), after=5_000)
    book.tell(ev.RunRearmed("replaced", book.signed(keys["ada"], "rearm", reason="replaced")), "person:ada")
    head, seq = "ee" * 32, len(book.events)
    forked = book.signed(keys["ada"], "fork", target="e0001", program=head)
    book.tell(ev.RunForked("young", signing.NAME, seq, head, "e0001", "ada", forked), "person:ada")
    return book


def test_a_signed_run_is_clean_and_its_signatures_are_counted(tmp_path: Path, keys: dict[str, Path], signers: str) -> None:
    book = signed_run(tmp_path / "run", keys, signers)
    only(book)
    assert audit.verify_run(book.root).signatures == 7
    assert "signed with SHA256:" in audit.describe(next(r for r in chain.read(book.root / "journal") if r.seq == 8))


def test_every_signature_is_asked_for_and_checked(tmp_path: Path, keys: dict[str, Path], signers: str) -> None:
    book = signed_run(tmp_path / "run", keys, signers)
    right = list(book.events)
    carriers = [i for i, (_, _, event) in enumerate(right) if getattr(event, "signed", None) is not None]
    assert len(carriers) == 7
    for place in carriers:
        moment, actor, event = right[place]
        other = next(right[i][2] for i in carriers if i != place)
        stripped, swapped = (
            msgspec.structs.replace(event, signed=signed) for signed in (None, other.signed)  # type: ignore[attr-defined]
        )  # fmt: skip
        book.events = [*right[:place], (moment, actor, stripped), *right[place + 1 :]]
        problems = found(book)
        if isinstance(event, ev.RunKilled):  # nobody has to sign that
            assert problems == []
        else:
            assert f"{event.kind} is not signed" in problems[0]
        assert len(problems) == (3 if isinstance(event, ev.ApprovalVoted) else len(problems) and 1)
        book.events = [*right[:place], (moment, actor, swapped), *right[place + 1 :]]
        assert any("the signature does not hold" in problem for problem in found(book))


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("stranger", "is not ada's"), ("another's", "is not ada's"), ("other words", "another order: reason"),
        ("other run", "another order: genesis"), ("replayed", "used before"), ("stale", "s old"),
        ("other key named", "not the one that the record names"), ("edited", "something else"),
    ],
)  # fmt: skip
def test_a_forged_vote_is_named(tmp_path: Path, keys: dict[str, Path], signers: str, case: str, words: str) -> None:
    book = Book(tmp_path / "run", signers)
    book.propose()
    book.ask()
    book.vote("ada", keys[{"stranger": "eve", "another's": "bob"}.get(case, "ada")])
    moment, actor, vote = book.events.pop()
    assert isinstance(vote, ev.ApprovalVoted) and vote.signed is not None
    match case:
        case "other words":
            vote = msgspec.structs.replace(vote, reason="I did not say this")
        case "other run":
            text = vote.signed.statement.replace(book.genesis, "0" * 64)
            vote = msgspec.structs.replace(vote, signed=msgspec.structs.replace(vote.signed, statement=text))
        case "stale":
            moment += 500
            vote = msgspec.structs.replace(vote, takes_effect=moment)
        case "other key named":
            vote = msgspec.structs.replace(vote, signed=msgspec.structs.replace(vote.signed, key="SHA256:" + "A" * 43))
        case "edited":
            text = vote.signed.statement.replace('"who":"ada"', '"who":"adb"')
            vote = msgspec.structs.replace(vote, signed=msgspec.structs.replace(vote.signed, statement=text))
        case "replayed":
            book.events.append((moment, actor, vote))
            book.tell(ev.ApprovalWithdrawn("R0001", "ada"), "person:ada")
            moment = book.now + 1
    book.events.append((moment, actor, vote))
    book.decide("ada")
    assert [word in problem for word, problem in zip((words, "by ada, of whom"), found(book), strict=True)] == [True, True]


def test_signers_that_are_not_those_of_the_file_are_named(tmp_path: Path, signers: str) -> None:
    book = Book(tmp_path / "run")
    book.tell(ev.SignersAdopted(book.blobs.put(signers), ["ada", "mallory"]))
    book.tell(ev.SignersAdopted(book.blobs.put("rubbish"), ["ada"]))
    only(book, "not those of the allowed_signers file", "cannot be checked: allowed_signers:1")


def test_a_signature_that_nobody_could_check_is_named(tmp_path: Path, keys: dict[str, Path]) -> None:
    book = Book(tmp_path / "run")
    book.propose()
    book.ask()
    book.vote("ada", keys["ada"])
    book.decide("ada")
    only(book, "no signers to check it against", "by ada, of whom")


# --- tampering -------------------------------------------------------------------------------------------------------


def lines(book: Book) -> tuple[Path, list[bytes]]:
    path = book.root / "journal" / "000001.jsonl"
    return path, path.read_bytes().splitlines(keepends=True)


def test_tampering_with_the_journal_is_detected(tmp_path: Path, keys: dict[str, Path], signers: str) -> None:
    book = signed_run(tmp_path / "run", keys, signers)
    book.write()
    path, whole = lines(book)
    for number in (0, 7, len(whole) - 2):
        flipped = bytearray(whole[number])
        flipped[len(flipped) // 3] ^= 1
        path.write_bytes(b"".join([*whole[:number], bytes(flipped), *whole[number + 1 :]]))
        first = audit.verify_run(book.root).first
        assert first is not None and first.seq == number + 1
        path.write_bytes(b"".join([*whole[:number], *whole[number + 1 :]]))
        first = audit.verify_run(book.root).first
        assert first is not None and first.seq == number + 1
    path.write_bytes(b"".join(whole))
    assert audit.verify_run(book.root).ok


def test_a_rewritten_tail_is_seen_by_the_anchor_only(tmp_path: Path) -> None:
    book = Book(tmp_path / "run")
    book.propose()
    book.ask()
    book.vote("ada")
    book.write()
    early = anchors.head_of("run", book.root / "journal")
    book.decide("ada")
    book.launch()
    book.write()
    kept = anchors.head_of("run", book.root / "journal")
    assert audit.verify_run(book.root, [early, kept]).anchors == 2
    assert audit.verify_run(book.root, [early, kept]).ok
    book.events[-2:] = [(moment + 1, actor, event) for moment, actor, event in book.events[-2:]]
    book.write()
    assert audit.verify_run(book.root).ok  # the chain is right, and what it tells is plausible
    assert audit.verify_run(book.root, [early]).ok
    report = audit.verify_run(book.root, [early, kept])
    assert report.first is not None and report.first.seq == kept.seq
    assert "rewritten" in report.first.what
    del book.events[-1]
    book.write()
    report = audit.verify_run(book.root, [kept])
    assert [problem.seq for problem in report.problems] == [0]
    assert "cut off" in report.problems[0].what


def test_a_changed_blob_is_named(tmp_path: Path, keys: dict[str, Path], signers: str) -> None:
    book = signed_run(tmp_path / "run", keys, signers)
    root = book.write()
    for record in list(chain.read(root / "journal")):
        for field in ("policy", "signers"):
            sha = getattr(record.data, field, "")
            if sha:
                path = root / "blobs" / sha
                content = path.read_bytes()
                path.chmod(0o600)
                path.write_bytes(content + b"\n")
                first = audit.verify_run(root).first
                assert first is not None and first.seq == record.seq and "does not match" in first.what
                path.write_bytes(content)
    assert audit.verify_run(root).ok
