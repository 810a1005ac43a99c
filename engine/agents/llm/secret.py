"""The server's key: where it comes from, and that it goes nowhere but into the request's header."""

from __future__ import annotations

import os
from pathlib import Path

from engine.client.proposer import KEY
from engine.private import NotPrivate, read_private

SHOWN = "[key]"
LEAST_LENGTH = 8
"""Shorter ones are stand-ins such as `none`; to look for them would garble ordinary words."""
MAX_BYTES = 4_096
ALSO = ("OPENAI_ADMIN_KEY", "OPENAI_WEBHOOK_SECRET")


class KeyProblem(Exception):
    """There is no usable key where one was named; the message is one line and holds nothing of it."""


class Secret:
    """A key that does not show itself."""

    def __init__(self, value: str) -> None:
        self._value = value

    def __repr__(self) -> str:
        return "Secret()" if self._value else "Secret(none)"

    def __bool__(self) -> bool:
        return bool(self._value)

    def reveal(self) -> str:
        """The key itself, for the request alone."""
        return self._value

    def hide(self, text: str) -> str:
        """The text without the key, should a server have sent it back."""
        return text.replace(self._value, SHOWN) if len(self._value) >= LEAST_LENGTH else text

    @property
    def overlap(self) -> int:
        """How much of the end of a piece of text may be the beginning of the key."""
        return len(self._value) - 1 if len(self._value) >= LEAST_LENGTH else 0


def take_key(key_file: str) -> Secret:
    """The key from the named file, or out of the environment, which has none of ours afterwards.

    Raises:
        KeyProblem: the file cannot be read, or others can read it.
    """
    found = os.environ.pop(KEY, "").strip()
    for name in ALSO:  # the client would find them by itself, and so would every child
        os.environ.pop(name, None)
    value = _read(Path(key_file).expanduser()) if key_file else found
    if not value.isascii() or not value.isprintable():
        raise KeyProblem(f"the key in {key_file or KEY} holds characters that no header can carry")
    return Secret(value)


def _read(path: Path) -> str:
    try:
        content = read_private(path, "agents.key_file", "a key", MAX_BYTES).strip()
    except NotPrivate as error:
        raise KeyProblem(str(error)) from None
    if not content:
        raise KeyProblem(f"agents.key_file {path} is empty")
    return content
