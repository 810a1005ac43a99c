"""What every event of the journal is made of: its base, and the words that several kinds share."""

from __future__ import annotations

from typing import Literal

import msgspec

Origin = Literal["baseline", "evolver", "person", "model", "control"]
Decision = Literal["approve", "reject", "defer", "expire"]
FORK = "the fork"
"""Who let the requests expire that a fork left behind."""

NOT_PEOPLE = frozenset(("policy", "engine", "guard", "clock", "ledger", "nobody", FORK))
"""Names by which the record calls those who are no person."""

Subject = Literal["program", "pause", "cancel"]
"""What a request is about: may this program run; shall the run be paused; shall this experiment end."""

Risk = Literal["R0", "R1", "R2", "R3", "R4"]
"""How deliberate a decision must be. R0: the policy's. R1: one person, who may undo it for some seconds. R2: a code
typed, two people. R3: as R2, with reasons, and a wait before it takes effect. R4: what touches engine, guard, audit or
stop path, and is always denied."""

Autonomy = Literal["A0", "A1", "A2", "A3", "A4"]
"""How much the run may do by itself. A0: propose only. A1: a person sees every program. A2: as the policy says. A3:
what would need one person and has at most low findings goes without. A4: whatever is not denied goes, in budget."""


class Event(msgspec.Struct, frozen=True, tag_field="kind", omit_defaults=True):
    """Base of all events."""

    @property
    def kind(self) -> str:
        """The event's kind, such as `trial.started`."""
        return str(self.__struct_config__.tag)


class Signed(msgspec.Struct, frozen=True):
    """A statement, byte for byte as it was signed, the armoured SSH signature of it, and the key's fingerprint."""

    statement: str
    signature: str
    key: str = ""
