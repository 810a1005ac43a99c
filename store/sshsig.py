"""Signatures by SSH keys, made and checked by the stock `ssh-keygen -Y` of OpenSSH; nothing here does cryptography.

Agents, hardware keys and keys with a passphrase work as they do for `ssh`. Whoever signs is known by an
`allowed_signers` file (see `man ssh-keygen`), of which only lines with one plain name are taken: a key is one person.
Every call runs a process: from an event loop, use a thread.
"""

from __future__ import annotations

import base64
import contextlib
import fnmatch
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from store.event import NOT_PEOPLE, Signed
from store.telling import clean

NAMESPACE = "asi"
MAX_STATEMENT = 16 * 1024
MAX_SIGNATURE = 32 * 1024
MAX_SIGNERS = 256 * 1024
CHECK_SECONDS = 20.0
SIGN_SECONDS = 30.0
"""How long a key may take: a hardware key waits for a touch."""

DEFAULT_KEYS = ("id_ed25519", "id_ed25519_sk", "id_ecdsa", "id_ecdsa_sk", "id_rsa")
_HEADER, _FOOTER = "-----BEGIN SSH SIGNATURE-----", "-----END SSH SIGNATURE-----"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}")
_KEY_TYPE = re.compile(r"(sk-)?(ssh|ecdsa)-[a-z0-9@.-]{1,60}")
_OPTION = re.compile(r'(cert-authority|namespaces|valid-after|valid-before)(?:="([^"]*)")?(?:,|\Z)', re.IGNORECASE)
_FINGERPRINT = re.compile(r" key (SHA256:[A-Za-z0-9+/=]{20,60})\s*\Z")


class SignatureError(Exception):
    """A signature cannot be made, or does not hold; the message is one line that says why."""


class Signer(NamedTuple):
    """One line of an allowed_signers file: a person, the type and base64 text of the key, where it may sign."""

    who: str
    kind: str
    key: str
    namespaces: str = "*"


# --- who may sign ----------------------------------------------------------------------------------------------------


def read_signers(text: str) -> list[str]:
    """The people of an allowed_signers file who may sign here, in its order, each once.

    Options (`namespaces=`, `valid-before=` and so on) are ssh-keygen's to follow. A line whose namespaces leave `asi`
    out is somebody's key for something else.

    Raises:
        SignatureError: with the number of the line that is wrong.
    """
    people = dict.fromkeys(entry.who for entry in entries(text) if _may_sign(entry))
    if not people:
        raise SignatureError("allowed_signers: it names nobody; add a line: NAME ssh-ed25519 AAAA…")
    return list(people)


def entries(text: str) -> list[Signer]:
    """Every line of an allowed_signers file. Raises `SignatureError`, with the number of the line that is wrong."""
    if len(text.encode("utf-8", "replace")) > MAX_SIGNERS:
        raise SignatureError(f"allowed_signers: larger than {MAX_SIGNERS // 1024} kB")
    found: list[Signer] = []
    owners: dict[str, str] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            entry = _entry(line)
            if owners.setdefault(entry.key, entry.who) != entry.who:
                raise SignatureError(f"this key is {owners[entry.key]}'s already; a key is one person")
        except SignatureError as error:
            raise SignatureError(f"allowed_signers:{number}: {error}") from None
        found.append(entry)
    return found


def _entry(line: str) -> Signer:
    if any(not c.isprintable() and c != "\t" for c in line):
        raise SignatureError("it holds a control character")
    who, _, rest = line.strip().partition(" ")
    who, _, tail = who.partition("\t") if "\t" in who else (who, "", "")
    rest = f"{tail} {rest}".strip()
    if "," in who:
        raise SignatureError(f"{clean(who, 60)} names several people; a key is one person, so give each a line")
    if not _NAME.fullmatch(who) or who in NOT_PEOPLE:
        raise SignatureError(f"{clean(who, 60)!r} is no name of a person: letters, digits and . _ @ + - only")
    kind, _, rest = rest.partition(" ")
    namespaces = "*"
    if not _KEY_TYPE.fullmatch(kind):
        options, rest = _split_options(f"{kind} {rest}")
        namespaces = _namespaces(options)
        kind, _, rest = rest.partition(" ")
    key = rest.split()[0] if rest.split() else ""
    if not _KEY_TYPE.fullmatch(kind) or not _is_key(kind, key):
        raise SignatureError("no public key stands here; the line must be: NAME [OPTIONS] ssh-ed25519 AAAA…")
    return Signer(who, kind, key, namespaces)


def _split_options(text: str) -> tuple[str, str]:
    """The options up to the first blank outside of quotes, and what follows it."""
    quoted = False
    for place, character in enumerate(text):
        if character == '"':
            quoted = not quoted
        elif character in " \t" and not quoted:
            return text[:place], text[place:].strip()
    return text, ""


def _namespaces(options: str) -> str:
    place, namespaces = 0, "*"
    while place < len(options):
        found = _OPTION.match(options, place)
        if found is None:
            known = 'cert-authority, namespaces="…", valid-after="…", valid-before="…"'
            raise SignatureError(f"unknown option {clean(options[place:], 60)!r}; known: {known}")
        if found[1].lower() == "namespaces":
            namespaces = found[2] or ""
        place = found.end()
    return namespaces


def _is_key(kind: str, key: str) -> bool:
    """Whether the base64 text is a key of this type: it begins with the type's own name."""
    try:
        content = base64.b64decode(key, validate=True)
    except ValueError:
        return False
    return content[4 : 4 + int.from_bytes(content[:4], "big")] == kind.encode() and len(content) > 20 + len(kind)


def _may_sign(entry: Signer) -> bool:
    return any(fnmatch.fnmatchcase(NAMESPACE, pattern.strip()) for pattern in entry.namespaces.split(","))


# --- signing ---------------------------------------------------------------------------------------------------------


def find_key(preferred: str = "") -> Path | None:
    """The key to sign with: `$ASI_SIGNING_KEY`, else `preferred`, else the first usual one in `~/.ssh`; or None.

    A public key file is enough where the agent holds the other half.
    """
    for name in (os.environ.get("ASI_SIGNING_KEY", ""), preferred):
        if name:
            return Path(name).expanduser()
    folder = Path.home() / ".ssh"
    for name in DEFAULT_KEYS:
        for path in (folder / name, folder / f"{name}.pub"):
            if path.is_file():
                return path
    return None


@contextlib.contextmanager
def agent_key(signers_text: str) -> Iterator[Path | None]:
    """A public key that the agent holds and the signers name, as a file for `sign`; None where there is none."""
    try:
        listed = _run(["ssh-add", "-L"], b"", CHECK_SECONDS / 4).stdout.decode("utf-8", "replace")
        known = {entry.key for entry in entries(signers_text) if _may_sign(entry)}
    except SignatureError:
        listed, known = "", set()
    held = (line.split() for line in listed.splitlines())
    words = next((words for words in held if len(words) >= 2 and words[1] in known), None)
    if words is None:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="asi-key-") as folder:
        path = Path(folder) / "key.pub"
        path.write_text(f"{words[0]} {words[1]}\n")
        yield path


def sign(text: str, key: Path, interactive: bool = False, timeout: float = SIGN_SECONDS) -> Signed:
    """Sign a text for the namespace `asi`.

    Args:
        text: what is signed, at most 16 kB.
        key: a private key's file, or a public key's whose other half the agent or a hardware key holds.
        interactive: a passphrase may be asked for at this process's terminal; else one that is needed is an error.
        timeout: seconds after which it is given up.

    Raises:
        SignatureError: there is no signature.
    """
    content = _encoded(text, MAX_STATEMENT, "what is to be signed")
    argv = ["ssh-keygen", "-q", "-Y", "sign", "-n", NAMESPACE, "-f", str(key)]
    done = _run(argv, content, timeout, interactive)
    signature = done.stdout.decode("ascii", "replace")
    if done.returncode or not signature.startswith(_HEADER):
        raise SignatureError(_why_not_signed(key, done.stderr.decode("utf-8", "replace")))
    return Signed(text, signature)


def _why_not_signed(key: Path, said: str) -> str:
    name = clean(str(key), 200)
    if "passphrase" in said or "agent refused" in said:
        return f"the key {name} is locked; unlock it first: ssh-add {name.removesuffix('.pub')}"
    if "UNPROTECTED" in said or "too open" in said:
        return f"the key {name} can be read by others and is not used; first: chmod 600 {name}"
    if "No such file" in said:
        return f"there is no key {name}; name yours in ASI_SIGNING_KEY"
    if "No private key found" in said:
        return f"only the public half of {name} is here, and no agent holds the other; first: ssh-add"
    lines = [line for line in said.splitlines() if line.strip() and not line.startswith("Signing data")]
    return f"ssh-keygen did not sign with {name}: {clean(lines[-1]) if lines else 'no reason given'}"


# --- checking --------------------------------------------------------------------------------------------------------


def principal_of(signed: Signed, signers_text: str, moment: float) -> str:
    """Whose key made this signature, by the signers; whether it holds is `verify`'s to say.

    Raises:
        SignatureError: nobody's of those, or the key was not valid at `moment` (seconds since the epoch).
    """
    _check_sizes(signed)
    with _files(signed, signers_text) as (signers, signature):
        argv = ["ssh-keygen", "-Y", "find-principals", "-f", signers, "-s", signature, _at(moment)]
        done = _run(argv, b"", CHECK_SECONDS)
    found = set(done.stdout.decode("utf-8", "replace").split("\n")) - {""}
    if done.returncode or len(found) != 1:
        raise SignatureError(_why_not_valid(done.stderr.decode("utf-8", "replace"), ""))
    return found.pop()


def verify(signed: Signed, signers_text: str, who: str, moment: float) -> str:
    """Check that `who` signed exactly this statement, with a key valid at `moment`; the key's fingerprint.

    Raises:
        SignatureError: a stranger's key, another's, other bytes, an expired key, or no signature at all.
    """
    _check_sizes(signed)
    if not _NAME.fullmatch(who):
        raise SignatureError(f"{clean(who, 60)!r} is no name of a signer")
    with _files(signed, signers_text) as (signers, signature):
        argv = ["ssh-keygen", "-Y", "verify", "-n", NAMESPACE, "-I", who, "-f", signers, "-s", signature, _at(moment)]
        done = _run(argv, _encoded(signed.statement, MAX_STATEMENT, "the statement"), CHECK_SECONDS)
    found = _FINGERPRINT.search(done.stdout.decode("utf-8", "replace"))
    if done.returncode or found is None:
        raise SignatureError(_why_not_valid(done.stderr.decode("utf-8", "replace"), who))
    return found[1]


def _why_not_valid(said: str, who: str) -> str:
    if "expired" in said or "not yet valid" in said:
        return "the key that signed was not valid at that moment"
    if "incorrect signature" in said:
        return "the signature is over something else"
    if "namespace" in said:
        return "the signature was made for another purpose than asi"
    if "armor" in said or "parse signature" in said or "invalid format" in said:
        return "that is no SSH signature"
    if "ption" in said:
        return "this ssh-keygen is too old; OpenSSH 8.9 or newer is needed"
    whose = f"is not {clean(who, 64)}'s" if who else "is not among this run's signers"
    return f"the key that signed {whose}"


def _check_sizes(signed: Signed) -> None:
    _encoded(signed.statement, MAX_STATEMENT, "the statement")
    _encoded(signed.signature, MAX_SIGNATURE, "the signature")
    if not signed.signature.startswith(_HEADER) or _FOOTER not in signed.signature:
        raise SignatureError("that is no SSH signature")


def _encoded(text: str, limit: int, what: str) -> bytes:
    try:
        content = text.encode()
    except UnicodeEncodeError:
        raise SignatureError(f"{what} holds half a character") from None
    if len(content) > limit:
        raise SignatureError(f"{what} is {len(content)} bytes long; at most {limit} are taken")
    return content


@contextlib.contextmanager
def _files(signed: Signed, signers_text: str) -> Iterator[tuple[str, str]]:
    """Signers and signature as files that nobody else can read, for as long as they are needed."""
    signers = _encoded(signers_text, MAX_SIGNERS, "allowed_signers")
    try:
        with tempfile.TemporaryDirectory(prefix="asi-signature-") as folder:
            paths = os.path.join(folder, "allowed_signers"), os.path.join(folder, "signature")
            for path, content in zip(paths, (signers, signed.signature.encode()), strict=True):
                with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                    file.write(content)
            yield paths
    except OSError as error:
        raise SignatureError(f"the signature cannot be checked: {error.strerror or error}") from None


def _at(moment: float) -> str:
    return time.strftime("-Overify-time=%Y%m%d%H%M%S", time.localtime(moment))


def _run(
    argv: list[str], content: bytes, timeout: float, interactive: bool = False
) -> subprocess.CompletedProcess[bytes]:
    """Run a program of OpenSSH. Unless `interactive`, it has no terminal to ask at or to write to."""
    program = shutil.which(argv[0])
    if program is None:
        raise SignatureError(f"{argv[0]} is not installed; signatures need OpenSSH (8.9 or newer)")
    environment = {**os.environ, "LC_ALL": "C"}
    if not interactive:
        environment |= {"SSH_ASKPASS_REQUIRE": "force", "SSH_ASKPASS": shutil.which("false") or "/bin/false"}
    # At a terminal its own words are shown: a hardware key says there that it waits for a touch.
    errors = None if interactive and os.isatty(2) else subprocess.PIPE
    try:
        process = subprocess.Popen(
            [program, *argv[1:]], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, env=environment,
            start_new_session=not interactive,
        )  # fmt: skip
    except (OSError, ValueError) as error:
        raise SignatureError(f"{argv[0]} cannot be started: {clean(str(error))}") from None
    try:
        output, said = process.communicate(content, timeout)
    except subprocess.TimeoutExpired:
        raise SignatureError(f"{argv[0]} gave no answer within {timeout:.0f} s") from None
    finally:
        _end(process, interactive)
    return subprocess.CompletedProcess(argv, process.returncode, output, said or b"")


def _end(process: subprocess.Popen[bytes], interactive: bool) -> None:
    """Leave nothing behind: not the program, and not the helpers that it has started in a session of its own."""
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if interactive:
            process.kill()
        else:
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()
