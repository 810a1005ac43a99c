"""The records of a journal as an auditor sees them: what each kind looks like, what is looked for, what has come.

No widget: the audit screen draws this.
"""

from __future__ import annotations

from typing import NamedTuple

from engine.client.protocol import AuditLine, AuditPage
from store.state import Experiment

PAGE = 200
"""Records of one question."""

MOST_KEPT = 100_000
"""Records that are kept at most; further down nothing more is asked for."""


class Look(NamedTuple):
    """How a kind of record looks: a sign, a word, a style."""

    sign: str
    word: str
    tone: str = ""


KINDS: dict[str, Look] = {
    "run.created": Look(" ", "created", "dim"),
    "engine.started": Look(" ", "engine start", "dim"),
    "engine.stopped": Look(" ", "engine end", "dim"),
    "journal.repaired": Look("!", "repaired", "warn"),
    "run.armed": Look("●", "armed", "good"),
    "run.arming_failed": Look("!", "not armed", "bad"),
    "run.paused": Look("■", "paused", "warn"),
    "run.frozen": Look("■", "frozen", "warn"),
    "run.parked": Look("■", "parked", "warn"),
    "run.resumed": Look(" ", "resumed"),
    "run.stopped": Look("■", "stopped", "warn"),
    "run.killed": Look("✗", "KILLED", "bad"),
    "run.rearmed": Look("!", "re-armed", "warn"),
    "run.forked": Look("!", "forked", "warn"),
    "policy.adopted": Look("!", "policy", "strong"),
    "signers.adopted": Look("!", "signers", "strong"),
    "autonomy.changed": Look("!", "autonomy", "strong"),
    "budget.exceeded": Look("!", "budget", "warn"),
    "lease.lost": Look("✗", "lease lost", "bad"),
    "clock.jumped": Look("!", "clock", "warn"),
    "note.added": Look(" ", "note"),
    "agent.called": Look(" ", "agent asked", "dim"),
    "agent.replied": Look(" ", "agent reply", "dim"),
    "experiment.opened": Look(" ", "opened", "dim"),
    "proposal.drafted": Look(" ", "proposed"),
    "proposal.duplicate": Look(" ", "duplicate", "dim"),
    "program.vetted": Look(" ", "vetted", "dim"),
    "program.repaired": Look(" ", "repaired", "dim"),
    "risk.assessed": Look(" ", "assessed", "dim"),
    "approval.requested": Look("?", "asks you", "warn"),
    "approval.voted": Look("✓", "answer"),
    "approval.withdrawn": Look("?", "taken back", "warn"),
    "approval.decided": Look("✓", "decision", "strong"),
    "attention.checked": Look("!", "attention", "warn"),
    "question.asked": Look(" ", "question"),
    "experiment.held": Look("■", "held", "warn"),
    "experiment.released": Look(" ", "goes on"),
    "trial.started": Look("▸", "launch", "accent"),
    "trial.anomaly": Look("!", "anomaly", "bad"),
    "trial.finished": Look(" ", "trained"),
    "trial.failed": Look("!", "failed", "warn"),
    "trial.parked": Look("■", "trial parked", "warn"),
    "trial.killed": Look("✗", "trial ended", "bad"),
    "experiment.scored": Look("★", "scored", "strong"),
    "experiment.analysed": Look(" ", "analysed"),
    "experiment.closed": Look(" ", "closed", "dim"),
}
"""The kinds of records in words; decisions, kills and launches have a sign."""


class Filter(NamedTuple):
    """What is looked for: words, and the experiment, actor and kind that a record must have."""

    words: str = ""
    experiment: str = ""
    actor: str = ""
    kind: str = ""

    @property
    def asked(self) -> str:
        """The words for the engine, which knows no other condition; `holds` does the rest."""
        return " ".join(part for part in (self.words, self.actor, self.kind) if part)

    def holds(self, line: AuditLine) -> bool:
        """Whether a record that has the words has the rest too."""
        return self.actor in ("", line.actor) and self.kind in ("", line.kind)

    def told(self) -> str:
        """The filter in words."""
        parts = [f"“{self.words}”" if self.words else "", self.experiment, self.actor.removeprefix("person:"),
                 KINDS.get(self.kind, Look("", self.kind)).word]  # fmt: skip
        return ", ".join(part for part in parts if part)


class Records:
    """The records of one filter that have come so far, newest first. `before`: where the next page goes on, 0 where
    there is none; `newer`: records that have come and are not among them, with `more` where they are more than those.
    `covered`: up to this record the lines, with the pages still to come, leave nothing out.
    """

    def __init__(self) -> None:
        self.lines: list[AuditLine] = []
        self.before = 0
        self.newest = 0
        self.covered = 0
        self.newer: list[AuditLine] = []
        self.more = False
        self.begun = False

    def take_top(self, page: AuditPage, held: Filter, at_top: bool, seq: int) -> None:
        """The newest page has come: it goes on top of the rest, or waits where one is reading further down.

        seq: the newest record that was known when it was asked for.
        """
        fresh = [line for line in page.lines if held.holds(line) and line.seq > self.newest]
        gap = self.begun and page.before > self.covered + 1
        if not self.begun or (gap and at_top):
            self.lines, self.before, self.begun = [line for line in page.lines if held.holds(line)], page.before, True
            self.newer, self.more = [], False
        elif at_top:
            self.lines[:0] = fresh
            self.newer, self.more = [], False
        else:
            self.newer, self.more = fresh, gap
            return
        self.newest = max(self.newest, page.lines[0].seq if page.lines else 0)
        self.covered = max(self.covered, seq - PAGE // 2)

    def take_older(self, page: AuditPage, held: Filter) -> None:
        """An older page has come: below the rest."""
        self.lines += [line for line in page.lines if held.holds(line)]
        self.before = page.before if len(self.lines) < MOST_KEPT else 0


def look_of(line: AuditLine) -> Look:
    """How a record looks; a refusal looks unlike an approval, and a cheat unlike a failure."""
    look = KINDS.get(line.kind, Look(" ", line.kind))
    if line.kind == "approval.decided":
        verb = line.text.partition(" program ")[0].rpartition(" ")[2]
        return {
            "rejected": Look("✗", "rejected", "warn"), "deferred": Look("?", "deferred", "dim"),
            "let": Look("✗", "expired", "warn"), "expire": Look("✗", "expired", "warn"),
            "approved": Look("✓", "approved", "good"),
        }.get(verb, look)  # fmt: skip
    if line.kind == "trial.failed" and " CHEATED: " in line.text.partition(": ")[0] + ": ":
        return Look("!", "CHEAT", "bad")
    return look


def who(actor: str) -> str:
    """Who caused a record, short."""
    return actor.removeprefix("person:").removeprefix("agent:")


def subject(line: AuditLine, found: Experiment | None) -> str:
    """What a record is about, in a word; baselines by their titles."""
    return found.title if found is not None and found.title and found.origin == "baseline" else line.experiment


def said(line: AuditLine) -> str:
    """The text without the id that stands in a column of its own."""
    return line.text.removeprefix(f"{line.experiment} ") if line.experiment else line.text
