"""What an export says about a run beside its own files: data, score function, environment, trials, decisions, ranking.

The code that made data and scores is read as files, from where it is installed: nothing of the engine is imported.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
import platform
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec

from asi_tui.board_files import Cell, board_table, parquet_bytes
from asi_tui.collect import View
from engine.client.machine import processor
from store import events as ev
from store.audit import describe
from store.bundle import ABOUT, LATEST, BundleError, prefix_of
from store.extent import ORIGIN, Extent
from store.journal import read

LEADERBOARD = "leaderboard.parquet"
Board = tuple[list[str], list[list[Cell]]]
"""Heads and cells."""
MOST_ROWS = 10_000_000
MOST_CORPUS_RECORD = 1 << 20

DECISIONS = (
    ev.ApprovalRequested, ev.ApprovalVoted, ev.ApprovalWithdrawn, ev.ApprovalDecided, ev.AttentionChecked,
    ev.PolicyAdopted, ev.SignersAdopted, ev.AutonomyChanged, ev.RunPaused, ev.RunFrozen, ev.RunParked, ev.RunResumed,
    ev.RunStopped, ev.RunKilled, ev.RunRearmed, ev.RunForked, ev.ExperimentHeld, ev.ExperimentReleased, ev.TrialKilled,
    ev.QuestionAsked, ev.BudgetExceeded,
)  # fmt: skip
"""Kinds of events that are decisions, by people or by the rules they made."""


class Environment(msgspec.Struct, frozen=True):
    """The machine on which the bundle was made; `packages` are those that are installed, by name."""

    asi: str
    python: str
    implementation: str
    system: str
    processor: str
    processors: int
    packages: dict[str, str]


class Corpus(msgspec.Struct, frozen=True):
    """The text that the language task is trained and scored on; hashes are sha256."""

    hash: str
    bytes: int
    note: str
    train: str = ""
    validation: str = ""


class DataSet(msgspec.Struct, frozen=True):
    """What made scores comparable: trials with the same `data_hash` had the same data."""

    data_hash: str
    tier: str
    trials: int


class Data(msgspec.Struct, frozen=True):
    """The dataset manifest: what trials were trained on, and how that is made."""

    sets: list[DataSet]
    corpus: Corpus | None
    how: str


class Scoring(msgspec.Struct, frozen=True):
    """The score function: hashes of its configuration and of the harness as installed, and what scores were made with.

    used: sha256 of the configuration → how many scores. harness: over the files of the domain without the baselines.
    """

    config: str
    used: dict[str, int]
    harness: str
    files: list[str]


class TrialLine(msgspec.Struct, frozen=True):
    """One trial; `level` is the measured isolation of its sandbox, `points` and `result` are sha256."""

    trial: str
    experiment: str
    program: str
    tier: str
    seed: int
    status: str
    level: str
    cpu_seconds: float
    cached: bool
    data_hash: str
    points: str
    result: str


class DecisionLine(msgspec.Struct, frozen=True):
    """One decision, from the journal, in words."""

    seq: int
    time: float
    actor: str
    kind: str
    text: str


HOW = (
    "Tasks named recall, noisy_recall, parity and their relatives are drawn by score/engine/linear_attention/tasks.py "
    "from the trial's seed (training) and from a secret of the machine (scoring). The text of the language task is the "
    "standard library's own source of the Python installation, collected and split by corpus.py beside it; corpus.hash "
    "is the sha256 over both halves. data_hash is the sha256 over version and sizes of the tasks, the corpus hash, and "
    "a fingerprint of that secret (tiers.py). The secret never leaves its machine, so another machine draws other "
    "sealed data: scores there agree within noise, not to the last digit, and have another data_hash."
)


def about(extent: Extent, machine: Environment, board: Board) -> Iterator[tuple[str, bytes]]:
    """Name and content of every file that is made for the bundle, but run-book and description."""
    yield f"{ABOUT}{LEADERBOARD}", parquet_bytes(*board)
    yield f"{ABOUT}environment.json", _json(machine)
    wanted = [f"{name}=={version}\n" for name, version in machine.packages.items() if name != "asi"]
    yield f"{ABOUT}requirements.txt", "".join(wanted).encode()
    yield f"{ABOUT}data.json", _json(data(extent))
    yield f"{ABOUT}score.json", _json(scoring(extent))
    for name, content in _score_sources().items():
        yield f"{ABOUT}score/{name}", content
    trials, decisions = _from_records(extent)
    yield f"{ABOUT}trials.jsonl", trials
    yield f"{ABOUT}decisions.jsonl", decisions


def _json(value: object) -> bytes:
    return msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"


def leaderboard(extent: Extent) -> Board:
    """The ranking at the end of an extent. Raises `CommandError`."""
    from asi_tui.commands.board import from_journal

    with tempfile.TemporaryDirectory(prefix="asi-board-") as folder:
        prefix_of(extent, Path(folder))
        return board_table(from_journal(Path(folder), View()))


def environment() -> Environment:
    """This machine, without its name and without its environment variables."""
    found = {dist.name: dist.version for dist in importlib.metadata.distributions() if dist.name}
    return Environment(
        importlib.metadata.version("asi"), platform.python_version(), platform.python_implementation(),
        f"{platform.system()} {platform.release()} {platform.machine()}", processor(), os.cpu_count() or 0,
        {name: found[name] for name in sorted(found, key=str.lower)},
    )  # fmt: skip


def data(extent: Extent) -> Data:
    """The dataset manifest."""
    counts: dict[tuple[str, str], int] = {}
    for trial in extent.state.trials.values():
        if trial.data_hash:
            key = (trial.data_hash, trial.tier)
            counts[key] = counts.get(key, 0) + 1
    return Data([DataSet(sha, tier, count) for (sha, tier), count in sorted(counts.items())], _corpus(), HOW)


def _corpus() -> Corpus | None:
    """This machine's corpus, without where it lies; None where it was never made here."""
    named = os.environ.get("XDG_CACHE_HOME", "")
    folder = (Path(named) if os.path.isabs(named) else Path.home() / ".cache") / "asi" / "corpus"
    halves = {}
    try:
        with open(folder / "corpus.json", "rb") as file:
            known = msgspec.json.decode(file.read(MOST_CORPUS_RECORD), type=Corpus)
        for half in ("train", "validation"):
            with open(folder / f"{half}.bin", "rb") as file:
                halves[half] = hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return msgspec.structs.replace(known, **halves)


def _score_sources() -> dict[str, bytes]:
    """The installed score function and harness, by path from the folder that holds the packages."""
    spec = importlib.util.find_spec("engine")
    if spec is None or not spec.submodule_search_locations:
        return {}
    package = Path(next(iter(spec.submodule_search_locations)))
    paths = [package / "score.toml", package / "scoring.py", *sorted((package / "linear_attention").rglob("*.py"))]
    return {
        f"engine/{path.relative_to(package).as_posix()}": path.read_bytes() for path in paths if path.is_file()
    }


def scoring(extent: Extent) -> Scoring:
    """The score function as it is installed, and which configurations of it the run's scores were made with."""
    sources = _score_sources()
    used: dict[str, int] = {}
    for entry in extent.state.experiments.values():
        if entry.scored is not None:
            used[entry.scored.score_config] = used.get(entry.scored.score_config, 0) + 1
    harness = hashlib.sha256()
    for name, content in sources.items():
        if name.startswith("engine/linear_attention/") and "/baselines/" not in name:
            harness.update(content)
    config = hashlib.sha256(sources.get("engine/score.toml", b"")).hexdigest()
    return Scoring(config, dict(sorted(used.items())), harness.hexdigest(), list(sources))


def _from_records(extent: Extent) -> tuple[bytes, bytes]:
    """Trials and decisions as lines of JSON."""
    results: dict[str, tuple[str, str]] = {}
    decisions: list[bytes] = []
    for record in read(extent.run / "journal"):
        if record.seq > extent.seq:
            break
        event = record.data
        if isinstance(event, ev.TrialFinished):
            results[event.trial] = (event.points_hash, event.result)
        elif isinstance(event, DECISIONS):
            line = DecisionLine(record.seq, record.time, record.actor, event.kind, describe(record))
            decisions.append(msgspec.json.encode(line) + b"\n")
    trials = [
        msgspec.json.encode(
            TrialLine(
                one.id, one.experiment, one.program, one.tier, one.seed, one.status, one.level, one.cpu_seconds,
                one.cached, one.data_hash, *results.get(one.id, ("", "")),
            )
        ) + b"\n"
        for one in extent.state.trials.values()
    ]  # fmt: skip
    return b"".join(trials), b"".join(decisions)


# --- on import -------------------------------------------------------------------------------------------------------


def compare_leaderboards(run: Path) -> int | None:
    """Check that the ranking of an opened run is the one that its exporter published; returns how many rows it has.

    None where nothing was published. Raises `BundleError` where they differ, and `CommandError`.
    """
    from store.extent import survey

    published = next((path for where in (LATEST, ORIGIN) if (path := run / where / LEADERBOARD).is_file()), None)
    if published is None:
        return None
    heads, cells = leaderboard(survey(run))
    content = published.read_bytes()
    if content != parquet_bytes(heads, cells):  # another version may write the same rows in other bytes
        _compare(content, heads, cells)
    return len(cells)


def _compare(content: bytes, heads: list[str], cells: list[list[Cell]]) -> None:
    """Compare cell by cell, in the columns that both have."""
    import pyarrow as pa
    from pyarrow import parquet

    try:
        file = parquet.ParquetFile(pa.BufferReader(content))
        if file.metadata.num_rows > MOST_ROWS or file.metadata.num_columns > 10_000:
            raise BundleError("the published leaderboard is larger than any leaderboard")
        names = [name for name in file.schema_arrow.names if name in heads]
        table = file.read(names)
        columns = {name: table.column(name).to_pylist() for name in names}
    except (pa.ArrowException, OSError, ValueError) as error:
        raise BundleError(f"the published leaderboard cannot be read: {str(error)[:200]}") from None
    if not {"rank", "experiment", "score"} <= columns.keys():
        raise BundleError("the published leaderboard lacks rank, experiment or score")
    if table.num_rows != len(cells):
        raise BundleError(f"the published leaderboard has {table.num_rows} rows, the journal gives {len(cells)}")
    for name, values in columns.items():
        at = heads.index(name)
        for number, (value, line) in enumerate(zip(values, cells, strict=True), 1):
            if not _same(value, line[at]):
                raise BundleError(
                    f"the published leaderboard differs from the journal's in row {number}, column {name}"
                )


def _same(one: object, other: object) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return one == other or (one != one and other != other)
    return bool(one == other)

