"""What a supervisor's key signs, and the check on receipt: one statement for one order, in one run, once.

A statement is canonical JSON: the same fields give the same bytes, and only those bytes are read back. It names the
run by its name and by the hash of its first record, so that it holds nowhere else; the nonce makes it hold once.
`store.sshsig` has the signatures themselves. Both ends build the statement from the order and its request: the client
signs what its person was shown, the engine compares it with what it is about to do.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, NamedTuple, Protocol

import msgspec
from msgspec import Meta

from store import chain
from store import events as ev
from store.sshsig import (
    MAX_SIGNERS,
    MAX_STATEMENT,
    SIGN_SECONDS,
    SignatureError,
    agent_key,
    find_key,
    principal_of,
    read_signers,
    sign,
    verify,
)
from store.telling import clean

__all__ = [
    "MAX_SIGNERS", "MUST_SIGN", "Nonces", "Person", "SIGN_SECONDS", "SignatureError", "Statement", "Used", "agent_key",
    "check", "find_key", "genesis_of", "made_now", "of_kill", "parse_statement", "principal_of", "read_signers",
    "receive", "said", "sign", "statement_text", "verify",
]  # fmt: skip

FRESH_SECONDS = 300.0
"""A statement is taken for so long after it was made, and where a clock is ahead, before."""
MAX_REASON = 1_000

MUST_SIGN = frozenset(
    {
        "approve", "reject", "defer", "undo", "policy", "autonomy", "rearm", "vote", "hold", "release", "cancel",
        "resume",
    }
)  # fmt: skip
"""Commands that are refused without a signature where signers are in force. What only stops the run never is."""

_Short = Annotated[str, Meta(max_length=300)]
_Hash = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]


class Statement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is signed.

    run, genesis: the run's name, and the hash of its journal's first record. action: the command's name; `kill` and
    `fork` beside those of the protocol. target: a request's id, an experiment, a level. program: the full sha256 of
    the program or of the policy's text; of a fork, the hash of the record up to which it was copied. reason: as
    `said` gives it. who: what the person is called where it was made; whose key it is decides. time: seconds since
    the epoch. nonce: 32 random hex digits.
    """

    run: _Short
    genesis: _Hash
    action: _Short
    target: _Short = ""
    program: Annotated[str, Meta(pattern=r"^([0-9a-f]{64})?\Z")] = ""
    tier: _Short = ""
    reason: Annotated[str, Meta(max_length=MAX_REASON)] = ""
    who: _Short = ""
    time: Annotated[float, Meta(ge=0, lt=1e11)] = 0.0
    nonce: Annotated[str, Meta(pattern=r"^([0-9a-f]{32})?\Z")] = ""


COMPARED = ("run", "genesis", "action", "target", "program", "tier", "reason")
"""The fields that must be those of the order."""


class Person(NamedTuple):
    """Who gave an order; `key` is the fingerprint, `signed` what goes on record. Both empty without signatures."""

    who: str
    key: str = ""
    signed: ev.Signed | None = None


class Used(Protocol):
    """The nonces that were used."""

    def __contains__(self, nonce: object, /) -> bool:
        """Whether this one was."""


class Nonces:
    """The nonces of the last minutes; an older statement is refused for its age.

    Make it from the journal when an engine starts, and `add` each statement that was followed.
    """

    def __init__(self, records: Iterable[ev.Record] = ()) -> None:
        self._used: dict[str, float] = {}
        for record in records:
            signed = getattr(record.data, "signed", None)
            if signed is not None:
                self.add(signed, record.time)

    def __contains__(self, nonce: object, /) -> bool:
        return nonce in self._used

    def add(self, signed: ev.Signed | None, now: float) -> None:
        """Remember a statement's nonce, and forget those that are too old to matter."""
        if signed is None:
            return
        try:
            self._used[parse_statement(signed.statement).nonce] = now
        except SignatureError:
            return
        if len(self._used) > 1_000:
            self._used = {nonce: when for nonce, when in self._used.items() if now - when < 4 * FRESH_SECONDS}


def said(reason: str) -> str:
    """A reason as it is signed and recorded: one line, without anything invisible, at most 1000 characters of it."""
    return clean(reason[:MAX_REASON], MAX_REASON)


def genesis_of(journal: Path) -> str:
    """The hash of a journal's first record.

    Raises:
        SignatureError: there is no such record.
    """
    try:
        first = next(chain.read(journal), None)
    except (chain.JournalError, OSError) as error:
        raise SignatureError(clean(str(error))) from None
    if first is None:
        raise SignatureError("the run has no record yet, so nothing can be signed for it")
    return first.hash


def statement_text(statement: Statement) -> str:
    """The bytes that are signed, as text. Raises `SignatureError` where a field is not what it must be."""
    text = _canonical(statement)
    parse_statement(text)
    return text


def _canonical(statement: Statement) -> str:
    try:
        return ev.encode(statement).decode()
    except (msgspec.MsgspecError, UnicodeError, TypeError) as error:
        raise SignatureError(f"this cannot be signed: {clean(str(error))}") from None


def parse_statement(text: str) -> Statement:
    """Read a statement back. Raises `SignatureError` for anything but the canonical text of one."""
    if len(text) > MAX_STATEMENT:
        raise SignatureError(f"the statement is longer than {MAX_STATEMENT} characters")
    try:
        statement = msgspec.json.decode(text, type=Statement)
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise SignatureError(f"that is no statement: {clean(str(error))}") from None
    if _canonical(statement) != text:
        raise SignatureError("the statement is not in its canonical form")
    return statement


def check(signed: ev.Signed, wanted: Statement, used: Used, now: float, fresh: float = FRESH_SECONDS) -> Statement:
    """Check all of a statement but its signature: what it is about, its age, and that it is not used again.

    Raises:
        SignatureError: it says something else, or is too old, or was used.
    """
    statement = parse_statement(signed.statement)
    for field in COMPARED:
        found, expected = getattr(statement, field), getattr(wanted, field)
        if found != expected:
            words = f"{clean(found, 40) or 'none'!r} where {clean(expected, 40) or 'none'!r} is meant"
            raise SignatureError(f"what was signed is another order: {field} {words}")
    if abs(now - statement.time) > fresh:
        off = now - statement.time
        words = f"{off:.0f} s old" if off > 0 else f"{-off:.0f} s ahead of the engine's clock"
        raise SignatureError(f"what was signed is {words}; at most {fresh:.0f} s are taken: sign anew")
    if not statement.nonce:
        raise SignatureError("what was signed has no nonce, so it could be used again")
    if statement.nonce in used:
        raise SignatureError("what was signed was used before")
    return statement


def receive(signed: ev.Signed | None, wanted: Statement, signers_text: str, used: Used, now: float) -> Person:
    """Who gave an order: the engine's check on receipt. Runs ssh-keygen, so call it in a thread.

    Args:
        signed: what came with the order.
        wanted: what must have been signed: `run`, `genesis`, `action`, `target`, `program`, `tier` and `reason` (by
            `said`) of the order as the engine is about to carry it out, and in `who` the login that was told.
        signers_text: the allowed_signers file in force; empty where none is. Then `signed` is ignored.
        used: the nonces that were used; add this one once the order is on record.
        now: seconds since the epoch, by the engine's clock.

    Returns:
        The person, by the name that the signers have for the key: one who has two keys is one person. What belongs
        on record is `Person.signed`, with the key's own fingerprint.

    Raises:
        SignatureError: there is no signature, or it does not hold for this order.
    """
    if not signers_text:
        return Person(wanted.who)
    if signed is None:
        raise SignatureError("this run asks for signatures and the order had none; name your key in ASI_SIGNING_KEY")
    check(signed, wanted, used, now)
    who = principal_of(signed, signers_text, now)
    key = verify(signed, signers_text, who, now)
    return Person(who, key, ev.Signed(signed.statement, signed.signature, key))


def of_kill(left: tuple[str, str] | None, wanted: Statement, signers_text: str, when: float) -> ev.Signed | None:
    """The signature that was left beside a latch, where it holds; a kill counts without one too, so never an error.

    Args:
        left: statement and signature, as `engine.client.records.read_kill_signature` found them.
        wanted: `run`, `genesis`, action `kill`, and the latch's reason (by `said`) and actor (as `who`).
        signers_text: the allowed_signers file in force.
        when: the latch's time.
    """
    if left is None or not signers_text:
        return None
    signed = ev.Signed(*left)
    try:
        if check(signed, wanted, (), when).who != wanted.who:
            return None
        person = principal_of(signed, signers_text, when)
        return ev.Signed(signed.statement, signed.signature, verify(signed, signers_text, person, when))
    except SignatureError:
        return None


def made_now(wanted: Statement) -> Statement:
    """The statement of this moment, with a nonce of its own."""
    return msgspec.structs.replace(wanted, time=round(time.time(), 3), nonce=secrets.token_hex(16))
