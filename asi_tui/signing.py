"""The person's own key signs what they order, where the run asks for signatures. Blocks: in the app, use a thread."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import msgspec

from asi_tui.preferences import load_preferences
from engine.client.rundir import RunPaths
from store import signatures
from store.blobs import BlobError, Blobs
from store.config import ConfigError
from store.config import load as load_config
from store.events import Signed
from store.folding import fold
from store.journal import JournalCorrupt, read
from store.signatures import MUST_SIGN, SIGN_SECONDS, SignatureError, Statement
from store.state import Request, RunState

DECISIONS = ("approve", "reject", "defer", "undo")


class Order(msgspec.Struct, frozen=True):
    """What is about to be ordered: a command's name and its fields, or `kill` or `fork`."""

    name: str
    target: str = ""
    program: str = ""
    reason: str = ""


def signed_for(
    root: Path,
    name: str,
    fields: dict[str, Any],
    who: str,
    *,
    state: RunState | None = None,
    interactive: bool = False,
    preferred: str | None = None,
    timeout: float = SIGN_SECONDS,
) -> Signed | None:
    """The signature that goes with an order, or None where the run asks for none.

    Args:
        root: the run directory.
        name: the command, or `kill` or `fork`.
        fields: of the command as it is sent: `target`, `program`, `reason`; others are left alone. Of a fork,
            `program` is the hash of the record up to which it copies.
        who: what the person is called here.
        state: the run, where it is at hand; else its journal is read.
        interactive: a locked key's passphrase may be asked for at the terminal.
        preferred: the key that this person prefers; None takes the one of their preferences.
        timeout: seconds for the key.

    Raises:
        SignatureError: there is no key, it is locked, or the order is not one that can be signed.
    """
    if name not in MUST_SIGN and name not in ("kill", "fork"):
        return None
    if state is None and not _asks_for_signatures(root):
        return None
    order = order_of(name, fields)
    state = load(root) if state is None else state
    if not state.signers:
        return None
    preferred = load_preferences().signing_key if preferred is None else preferred
    return made(root, statement(state, order, who), state.signers, interactive, preferred, timeout)


def _asks_for_signatures(root: Path) -> bool:
    """Whether the configuration names signers; a long journal need not be read where it does not."""
    try:
        return bool(load_config(RunPaths(root).config).gate.allowed_signers)
    except ConfigError:
        return True


def order_of(name: str, fields: dict[str, Any]) -> Order:
    """The part of a command that is signed."""
    return Order(name, *(str(fields.get(field) or "") for field in ("target", "program", "reason")))


def statement(state: RunState, order: Order, who: str) -> Statement:
    """What has to be signed for an order, but for the run's first hash, the time and the nonce.

    Raises:
        SignatureError: the order is about a request that does not wait, or about another program than it.
    """
    target, program, tier = order.target, order.program, ""
    if order.name in DECISIONS:
        request = _request(state, target)
        if program and not request.program.startswith(program):
            raise SignatureError(f"{request.id} is about program {request.program[:12]}, not {program[:12]}")
        target, program, tier = request.id, request.program, request.tier
    elif order.name == "policy":
        target, program = "policy", hashlib.sha256(order.program.encode("utf-8", "replace")).hexdigest()
    elif order.name != "fork":
        program = ""
    return Statement(state.name, "", order.name, target, program, tier, signatures.said(order.reason), who)


def made(
    root: Path, wanted: Statement, signers: str, interactive: bool, preferred: str, timeout: float = SIGN_SECONDS
) -> Signed:
    """Sign a statement with the person's key.

    The key is the one that the person names, else one of the signers' that the agent holds, else a usual one.

    Args:
        root: the run directory.
        wanted: what `statement` gave.
        signers: the blob of the allowed_signers file in force.
        interactive: a passphrase may be asked for at the terminal.
        preferred: the key that this person prefers.
        timeout: seconds for the key.

    Raises:
        SignatureError: there is no signature.
    """
    paths = RunPaths(root)
    genesis = signatures.genesis_of(paths.journal)
    text = signatures.statement_text(signatures.made_now(msgspec.structs.replace(wanted, genesis=genesis)))
    named = os.environ.get("ASI_SIGNING_KEY") or preferred
    if not named and os.environ.get("SSH_AUTH_SOCK"):
        try:
            listed = Blobs(paths.blobs).text(signers)
        except BlobError as error:
            raise SignatureError(f"the signers of this run cannot be read: {error}") from None
        with signatures.agent_key(listed) as held:
            if held is not None:
                return signatures.sign(text, held, interactive, timeout)
    key = signatures.find_key(preferred)
    if key is None:
        raise SignatureError("this run asks for signatures and there is no key in ~/.ssh; name one in ASI_SIGNING_KEY")
    return signatures.sign(text, key, interactive, timeout)


def load(root: Path) -> RunState:
    """The run as its journal tells it. Raises `SignatureError`."""
    state = RunState()
    try:
        for record in read(RunPaths(root).journal):
            state = fold(state, record)
    except (JournalCorrupt, OSError) as error:
        raise SignatureError(f"{root.name}: {error}") from None
    return state


def _request(state: RunState, target: str) -> Request:
    found = state.requests.get(target) or next((r for r in state.pending if target and r.experiment == target), None)
    if found is None:
        raise SignatureError(f"no pending request {target[:60]!r}; `asi approvals` lists them")
    return found
