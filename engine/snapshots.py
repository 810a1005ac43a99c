"""The state as the bytes that a new client is sent: encoded piece by piece, each piece only once.

Encoding thousands of experiments at once would hold the event loop for tens of milliseconds at every attach, and in a
thread it would hold it just as long: encoding is one call that keeps the interpreter to itself.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from store.events import Record
from store.state import RunState

_PARTS = {"experiments": "experiment", "trials": "trial", "requests": "request"}
"""What is kept encoded, and the field by which an event names what it changes (`fold` touches nothing else there)."""


class Snapshots:
    """Encoded pieces of one run's state. `touch` must hear of every record that is folded into it."""

    def __init__(self) -> None:
        self._known: dict[str, dict[str, msgspec.Raw]] = {part: {} for part in _PARTS}

    def touch(self, record: Record) -> None:
        """Forget what this record has changed."""
        for part, field in _PARTS.items():
            self._known[part].pop(getattr(record.data, field, ""), None)

    def encode(self, state: RunState) -> bytes:
        """The `Snapshot` message: what `msgspec.json.encode(Snapshot(state))` decodes to."""
        fields = {name: getattr(state, name) for name in state.__struct_fields__}
        fields |= {part: self._pieces(self._known[part], fields[part]) for part in _PARTS}
        return msgspec.json.encode({"type": "snapshot", "state": fields})

    def _pieces(self, known: dict[str, msgspec.Raw], things: Mapping[str, msgspec.Struct]) -> dict[str, msgspec.Raw]:
        for name in things.keys() - known.keys():
            known[name] = msgspec.Raw(msgspec.json.encode(things[name]))
        return {name: known[name] for name in things}
