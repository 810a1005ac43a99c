"""Keys and small signed runs for tests, made by the real ssh-keygen."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import NamedTuple

from store import events as ev
from store import signatures, sshsig
from store.blobs import Blobs
from store.config import RunConfig, dump
from store.journal import GENESIS, Journal, seal

NAME = "quiet-heron"
START = 1_800_000_000.0
PROGRAM = "class Mixer: pass\n"


def make_key(folder: Path, name: str, passphrase: str = "") -> Path:
    """A new ed25519 key."""
    path = folder / name
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-C", name, "-f", str(path)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return path


def line(who: str, key: Path, options: str = 'namespaces="asi"') -> str:
    """A line of an allowed_signers file."""
    kind, content = key.with_suffix(".pub").read_text().split()[:2]
    return f"{who} {options} {kind} {content}\n" if options else f"{who} {kind} {content}\n"


class Step(NamedTuple):
    """What is recorded `after` so many seconds."""

    event: ev.Event
    actor: str = "engine"
    after: float = 1.0


class Book:
    """A run directory of which each record is written as it is told, at a clock that only the test moves."""

    def __init__(self, root: Path, signers: str = "") -> None:
        self.root, self.now = root, START
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        (root / "run.toml").write_text(dump(RunConfig(name=NAME)))
        self.blobs = Blobs(root / "blobs")
        self.events: list[tuple[float, str, ev.Event]] = []
        self.genesis = ""
        self.tell(ev.RunCreated(NAME, ev.FORMAT, "0.1.0", self.blobs.put(dump(RunConfig(name=NAME)))))
        if signers:
            self.tell(ev.SignersAdopted(self.blobs.put(signers), signatures.read_signers(signers)))
        self.program = self.blobs.put(PROGRAM)

    def tell(self, event: ev.Event, actor: str = "engine", after: float = 1.0) -> None:
        """Remember one event."""
        self.now = round(self.now + after, 3)
        self.events.append((self.now, actor, event))
        if not self.genesis:
            self.genesis = seal(1, self.now, actor, event, GENESIS)[0].hash

    def write(self) -> Path:
        """Write the journal anew, with a chain that is right whatever it tells."""
        for segment in (self.root / "journal").glob("*.jsonl"):
            segment.unlink()
        moments = iter([moment for moment, _, _ in self.events])
        with Journal.open(self.root / "journal", clock=lambda: next(moments)) as journal:
            for _, actor, event in self.events:
                journal.append(event, actor)
        return self.root

    def signed(self, key: Path, action: str, who: str = "ada", **fields: str) -> ev.Signed:
        """What a client would send now, with the fingerprint as the engine adds it."""
        wanted = signatures.Statement(NAME, self.genesis, action, who=who, **fields)
        statement = signatures.Statement(
            NAME, self.genesis, action, who=who, time=self.now, nonce=signatures.made_now(wanted).nonce, **fields
        )
        made = sshsig.sign(signatures.statement_text(statement), key)
        listed = subprocess.run(["ssh-keygen", "-lf", str(key)], check=True, capture_output=True, text=True).stdout
        return ev.Signed(made.statement, made.signature, listed.split()[1])

    # --- one experiment on its way ---

    def propose(self, experiment: str = "e0001", seal: str = "") -> None:
        """An experiment with a program."""
        self.tell(ev.ExperimentOpened(experiment, "evolver", seal=seal))
        self.tell(ev.ProposalDrafted(experiment, "t", "m", "h", self.program))

    def ask(self, people: int = 1, experiment: str = "e0001", risk: ev.Risk = "R1") -> None:
        """A request about it."""
        self.tell(
            ev.ApprovalRequested("R0001", experiment, self.program, "probe", "new", self.now + 600, people, risk=risk)
        )

    def vote(
        self, who: str, key: Path | None = None, decision: ev.Decision = "approve", wait: float = 5.0, reason: str = ""
    ) -> None:
        """One person's answer, signed where there is a key."""
        fields = {"target": "R0001", "program": self.program, "tier": "probe", "reason": reason}
        signed = self.signed(key, decision, who, **fields) if key else None
        event = ev.ApprovalVoted("R0001", decision, who, self.program, reason, self.now + wait, signed=signed)
        self.tell(event, f"person:{who}")

    def decide(self, who: str, after: float = 10.0, until: float = 0.0, cpu: float = 0.0) -> None:
        """The approval that follows."""
        self.tell(
            ev.ApprovalDecided(
                "e0001", self.program, "probe", "approve", who, "R0001", until=until, cpu_seconds=cpu
            ),
            f"person:{who}", after,
        )  # fmt: skip

    def launch(self, after: float = 5.0, tier: str = "probe", trial: str = "e0001-s0") -> None:
        """A trial of it."""
        self.tell(ev.TrialStarted(trial, "e0001", self.program, tier, 0, "L2"), after=after)
