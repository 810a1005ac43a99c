"""A recorded run as the script of another: what was opened, in which order, and what every agent was asked.

What agents are asked depends on scores and on the order in which experiments ended. A replay therefore asks the
recorded questions again, instead of what its own measurements would ask, and opens what was opened: so proposals are
the same to the byte, whatever the machine's speed. Everything else is done anew: vetting, gate, training, scores.
"""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import msgspec

from engine.decoys import Decoys, DecoysError
from store import events as ev
from store.blobs import BlobError, Blobs
from store.journal import JournalError, read
from store.state import Experiment

T = TypeVar("T")


class ReplayError(Exception):
    """The recording cannot be used, or does not have what was asked for; the message is one line."""


class Opening(msgspec.Struct):
    """One recorded experiment; `drafted` where a person wrote it."""

    opened: ev.ExperimentOpened
    actor: str
    drafted: ev.ProposalDrafted | None = None


class Recording:
    """What the journal of a run says about its proposals. Reading it blocks."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.blobs = Blobs(root / "blobs")
        self.openings: list[Opening] = []
        self.models: dict[str, str] = {}
        self._briefs: dict[tuple[str, str, int], str] = {}
        try:
            self._read()
        except (JournalError, DecoysError, OSError) as error:
            raise ReplayError(f"{root.name} cannot be replayed: {error}") from None
        if not self.openings:
            raise ReplayError(f"{root.name} cannot be replayed: no proposal is in its journal")

    def _read(self) -> None:
        found: dict[str, Opening] = {}
        begun: set[str] = set()
        tests: set[str] = set()  # of the supervisors' attention: nobody was asked to write them
        repairs: dict[str, int] = {}
        for record in read(self.root / "journal"):
            event = record.data
            if isinstance(event, ev.ExperimentOpened) and event.origin != "baseline":
                found[event.experiment] = Opening(event, record.actor)
            elif isinstance(event, ev.ProposalDrafted | ev.ExperimentClosed):
                begun.add(event.experiment)
                if isinstance(event, ev.ProposalDrafted) and event.experiment in found:
                    opening = found[event.experiment]
                    opening.drafted = event if opening.opened.origin == "person" else None
            elif isinstance(event, ev.AttentionChecked):
                tests.add(event.experiment)
            elif isinstance(event, ev.ProgramRepaired):
                repairs[event.experiment] = event.attempt
            elif isinstance(event, ev.AgentCalled):
                if event.role == "researcher" and event.experiment in begun:
                    continue  # a person's question about the proposal
                attempt = repairs.get(event.experiment, 0) + 1 if event.role == "engineer" else 0
                # The last question counts: one before it was left unanswered, by a crash or a server out of reach.
                self._briefs[event.experiment, event.role, attempt] = event.brief or event.prompt
                if event.asked:
                    self.models.setdefault(event.role, event.agent)
        truth = Decoys(self.root)  # of those that were not decided
        tests |= {name for name, one in found.items() if _is_test(truth, one.opened)}
        self.openings = [opening for name, opening in found.items() if name in begun - tests]
        for opening in self.openings:  # what opens the seals stays with the recorded run
            opening.opened = msgspec.structs.replace(opening.opened, seal="")

    def has(self, experiment: str, role: str, attempt: int = 0) -> bool:
        """Whether this was asked."""
        return (experiment, role, attempt) in self._briefs

    def brief(self, experiment: str, role: str, attempt: int, kind: type[T]) -> T:
        """What the agent in this role was given. Blocking; raises `ReplayError`."""
        sha = self._briefs.get((experiment, role, attempt))
        if sha is None:
            which = f", attempt {attempt}" if attempt else ""
            raise ReplayError(f"{self.root.name} has no question to the {role} on {experiment}{which}")
        try:
            return msgspec.json.decode(self.blobs.get(sha), type=kind)
        except (BlobError, msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise ReplayError(f"the question to the {role} on {experiment} cannot be read: {error}") from None

    def program(self, sha: str) -> str:
        """A recorded program. Blocking; raises `ReplayError`."""
        try:
            return self.blobs.text(sha)
        except BlobError as error:
            raise ReplayError(str(error)) from None


def _is_test(truth: Decoys, opened: ev.ExperimentOpened) -> bool:
    """Whether the run's private file says that this was a test of attention."""
    return truth.standing(Experiment(opened.experiment, opened.origin, seal=opened.seal)) == "decoy"
