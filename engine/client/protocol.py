"""The words between an engine and those who watch it: JSON lines over a Unix socket.

A client sends `Hello` first; the engine answers `Welcome`, then either every record after `since` or one `Snapshot`,
then records as they come. Frames of live things that are not journal events (curves, streamed text, load of the
machine) come as `Live`; they carry no sequence number and a slow reader may miss some. Commands are answered by
`Answer` with the command's `id`.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from store.events import Record, Signed
from store.state import RunState

PROTOCOL = 1
MAX_LINE = 64 * 1024 * 1024


class Message(msgspec.Struct, frozen=True, tag_field="type", omit_defaults=True):
    """Base of all messages."""


# --- from the client -------------------------------------------------------------------------------------------------


class Hello(Message, frozen=True, tag="hello"):
    """First line of a client. `since` is the last sequence number it has, 0 for a fresh one.

    With `live` off the client only asks and commands: it is sent neither records nor live frames. `who` and
    `terminal` (a tty, and the address an SSH connection came from) are shown to the other supervisors.
    """

    token: str
    since: int = 0
    protocol: int = PROTOCOL
    live: bool = True
    who: str = ""
    terminal: str = ""


class Command(Message, frozen=True, tag="command"):
    """Ask the engine to do something. `who` is the person's login; the engine checks the uid of the socket's peer.

    `end` kills one trial, named by `target`. `present` only says that a person is at the keys (see `[deadman]`);
    attaching says no such thing. Every other command says it too. `look` says what this client's person looks at
    (`target`: a request's id, or empty) and renews nothing; other supervisors are shown it.

    | name | target | further |
    |---|---|---|
    | `approve`, `reject`, `defer` | request or experiment | `program`: its hash as it was shown; `seconds`, `seen` |
    | `undo` | request | takes the own answer back before it takes effect |
    | `ask` | experiment | `reason`: a question to the Researcher |
    | `hold`, `release`, `cancel` | experiment | `reason` |
    | `vote` | `pause`, or an experiment to be cancelled | opens a vote of the listed supervisors |
    | `policy` | | `program`: the text of the new policy |
    | `autonomy` | level, such as `A1` | `reason` |

    signed: what the person's key signed, where the run asks for signatures (see `store.signatures`).
    """

    id: int
    name: Literal[
        "pause", "resume", "freeze", "park", "stop", "rearm", "end", "present", "look",
        "approve", "reject", "defer", "undo", "propose", "ask", "hold", "release", "cancel", "vote", "policy",
        "autonomy",
    ]  # fmt: skip
    who: str = ""
    target: str = ""
    reason: str = ""
    program: str = ""
    title: str = ""
    seconds: float = 0.0
    seen: float = 0.0
    signed: Signed | None = None


QueryName = Literal[
    "blob", "curve", "transcript", "leaderboard", "sql", "audit", "verify", "output", "cognition", "policy"
]


class Query(Message, frozen=True, tag="query"):
    """Ask for something that is not in the state. The answer's `text` is JSON, but for `blob`.

    | name | target | where | answer |
    |---|---|---|---|
    | `blob` | sha256 | | its text |
    | `curve` | trial id | | `Curve` |
    | `transcript` | experiment id | | list of `TranscriptEntry` |
    | `leaderboard` | column to order by | a DuckDB condition over the leaderboard's columns | `BoardPage` |
    | `sql` | one SELECT statement | | `Table` |
    | `audit` | experiment id | words that kind, actor or text must hold | `AuditPage`, newest first |
    | `verify` | | | `Verified` |
    | `output` | trial id | | the end of what the trial printed, at most `limit` lines |
    | `cognition` | | words to search for | list of `Knowledge` |
    | `policy` | request id, or empty | | `PolicyView` |

    `offset` and `limit` choose a page of rows; `reverse` turns the order round.
    """

    id: int
    name: QueryName
    target: str = ""
    limit: int = 200
    offset: int = 0
    where: str = ""
    reverse: bool = False


# --- from the engine -------------------------------------------------------------------------------------------------


class Welcome(Message, frozen=True, tag="welcome"):
    """The engine accepted the client."""

    run: str
    pid: int
    seq: int
    protocol: int = PROTOCOL


class Refused(Message, frozen=True, tag="refused"):
    """The engine does not talk to this client; the connection closes."""

    reason: str


class Snapshot(Message, frozen=True, tag="snapshot"):
    """The whole state, for a client that is too far behind."""

    state: RunState


class Records(Message, frozen=True, tag="records"):
    """Journal records in order, without a gap."""

    records: list[Record]


class Answer(Message, frozen=True, tag="answer"):
    """The reply to a command or a query; `error` is one clear line."""

    id: int
    ok: bool
    error: str = ""
    text: str = ""


class TranscriptEntry(msgspec.Struct, frozen=True):
    """One call of an agent, as a transcript query returns it; `prompt` and `reply` are blobs, `text` is the reply."""

    role: str
    agent: str
    time: float
    prompt: str
    reply: str
    text: str
    ok: bool
    seconds: float


class CurvePoint(msgspec.Struct, frozen=True, array_like=True):
    """One point of a training curve: `value` is the training loss in nats, or a sealed metric."""

    task: str
    step: int
    value: float


class Curve(msgspec.Struct, frozen=True):
    """All points of one trial, as a curve query returns them."""

    losses: list[CurvePoint]
    scores: list[CurvePoint]


class TaskGain(msgspec.Struct, frozen=True):
    """Paired difference to the baseline on one task; `noise` is the noise floor's SD, 0 while unknown."""

    task: str
    difference: float
    noise: float = 0.0


class BoardRow(msgspec.Struct, frozen=True):
    """One row of the leaderboard; what was not measured is None. Scores in units of the noise floor."""

    experiment: str
    score: float
    rank: int = 0
    title: str = ""
    origin: str = ""
    parent: str = ""
    control: bool = False
    tier: str = ""
    low: float | None = None
    high: float | None = None
    seeds: int = 0
    against_parent: float | None = None
    against_parent_low: float | None = None
    against_parent_high: float | None = None
    parameters: int = 0
    state_floats: int = 0
    training_flops: float | None = None
    tokens: int | None = None
    cpu_seconds: float = 0.0
    steps_per_second: float | None = None
    tokens_per_second: float | None = None
    program: str = ""
    outcome: str = ""
    tasks: list[TaskGain] = []


class BoardPage(msgspec.Struct, frozen=True):
    """A page of the leaderboard: `total` rows satisfy the condition, `rows` begin at the query's offset."""

    rows: list[BoardRow]
    total: int


class Table(msgspec.Struct, frozen=True):
    """The answer to a free question: column names and cells as text; `cut` when there were more rows."""

    columns: list[str]
    rows: list[list[str]]
    cut: bool = False


class AuditLine(msgspec.Struct, frozen=True):
    """One record of the journal in human words."""

    seq: int
    time: float
    actor: str
    kind: str
    experiment: str
    text: str
    hash: str
    prev: str = ""


class AuditPage(msgspec.Struct, frozen=True):
    """Records, newest first. `before` continues the search (as `offset` of the next query), 0 at the beginning."""

    lines: list[AuditLine]
    before: int = 0


class Verified(msgspec.Struct, frozen=True):
    """The outcome of a full check of chain, blobs and approvals; `problems` as `(record, words)`, worst first."""

    records: int
    head: str
    blobs: int
    launches: int
    problems: list[tuple[int, str]] = []


class PolicyView(msgspec.Struct, frozen=True):
    """The policy in force. `rule`: TOML of a rule that would allow what the asked request is about, empty elsewhere."""

    name: str
    sha: str
    text: str
    rule: str = ""


class Knowledge(msgspec.Struct, frozen=True):
    """One thing the run knows: a lesson of its own, or an entry on a paper. `why` says why it came up."""

    id: str
    title: str
    text: str
    source: str = ""
    why: str = ""


class LiveCurve(Message, frozen=True, tag="live.curve"):
    """New points of a running trial. `steps` is the total of the current task, `done` the share of the whole trial."""

    trial: str
    experiment: str
    task: str
    step: int
    steps: int
    done: float
    losses: list[CurvePoint] = []
    scores: list[CurvePoint] = []
    steps_per_second: float = 0.0
    seconds_left: float = 0.0


class LiveText(Message, frozen=True, tag="live.text"):
    """A piece of an agent's or a trial's output, as it is written. Untrusted."""

    experiment: str
    role: str
    text: str


class LiveStep(Message, frozen=True, tag="live.step"):
    """What an experiment is doing right now, in a few words (`vetting`, `waits for a slot`, `training seed 0`)."""

    experiment: str
    doing: str
    since: float


class Device(msgspec.Struct, frozen=True):
    """One GPU's load, from NVML."""

    name: str
    utilisation: float
    memory_used: float
    memory_total: float
    temperature: float
    power: float


class Supervisor(msgspec.Struct, frozen=True):
    """A person attached to the engine: login, where from, since when, which request is looked at, last key."""

    who: str
    terminal: str
    since: float
    looking: str = ""
    acted: float = 0.0


class Stray(msgspec.Struct, frozen=True):
    """A process that carries the run's mark but belongs to no live trial and is no part of the engine."""

    pid: int
    command: str
    since: float


class LiveLoad(Message, frozen=True, tag="live.load"):
    """The machine's load, about once a second. Fractions of 1; memory and disk in bytes.

    deadman_left: seconds until the run pauses or freezes because no person acted; None where that is not asked for.
    strays: what the leak radar sees; None where it could not look.
    """

    cpu: float
    memory_used: float
    memory_total: float
    disk_free: float
    trials: int
    slots: int
    loop_lag_ms: float
    devices: list[Device] = []
    deadman_left: float | None = None
    supervisors: list[Supervisor] = []
    strays: list[Stray] | None = None


FromClient = Hello | Command | Query
FromEngine = Welcome | Refused | Snapshot | Records | Answer | LiveCurve | LiveText | LiveStep | LiveLoad

decode_from_client = msgspec.json.Decoder(FromClient).decode
decode_from_engine = msgspec.json.Decoder(FromEngine).decode
