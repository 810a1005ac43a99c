"""The run-book of a bundle, for people, and its description as an RO-Crate, for programs."""

from __future__ import annotations

import json
import warnings
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from asi_tui.board_files import markdown_text
from asi_tui.bundling import LEADERBOARD, Board, Environment, scoring
from asi_tui.safe import clean
from asi_tui.words import span
from store.bundle import ABOUT, MANIFEST, RUNBOOK
from store.extent import CALLS, Extent
from store.forking import ForkError, check_name
from store.staging import Copied, size_words

if TYPE_CHECKING:
    from rocrate.model import Entity
    from rocrate.rocrate import ROCrate

CRATE_VERSION = "1.2"
MOST_PROGRAMS = 20_000
MOST_PROBLEMS = 50
TOP = 10
COLUMNS = ("rank", "experiment", "title", "origin", "parent", "score", "low", "high", "seeds")

FILES = (
    ("run.toml", "configuration of the run", "application/toml"),
    ("policy.toml", "the policy that was laid beside the configuration", "application/toml"),
    (f"{ABOUT}{LEADERBOARD}", "leaderboard, with differences per task", "application/vnd.apache.parquet"),
    (f"{ABOUT}environment.json", "machine, Python and packages on which the bundle was made", "application/json"),
    (f"{ABOUT}requirements.txt", "the packages again, as pip reads them", "text/plain"),
    (f"{ABOUT}data.json", "dataset manifest: hashes of what was trained on, and how it is made", "application/json"),
    (f"{ABOUT}score.json", "hashes of the score function", "application/json"),
    (f"{ABOUT}trials.jsonl", "every trial, with the measured isolation of its sandbox", "application/jsonl"),
    (f"{ABOUT}decisions.jsonl", "every decision, by people or by policy, in words", "application/jsonl"),
    (CALLS, "every call of a language model: request and reply are blobs", "application/jsonl"),
    (RUNBOOK, "run-book: how to check, open and reproduce the run", "text/markdown"),
)  # fmt: skip
FOLDERS = (
    ("journal/", "the hash-chained record of every fact, one event a line"),
    ("blobs/", "programs, prompts, replies, reports and results, each named by its sha256"),
    ("trials/", "training points, and the trusted scorer's curve, of every trial"),
    (f"{ABOUT}score/", "source of the score function and of the harness that feeds it"),
    ("cognition/", "papers that were added to what the run knows"),
    ("origin/", "what an earlier export of this run said about it"),
)


def _when(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="seconds")


def name_of(extent: Extent) -> str:
    """The run's name, as far as it is one."""
    for name in (extent.state.name, extent.run.name):
        with suppress(ForkError):
            check_name(name)
            return name
    return "run"


def run_book(
    extent: Extent, machine: Environment, board: Board, files: Collection[str], problems: Sequence[str]
) -> bytes:
    """The text of README.md; nothing that a model wrote is markup in it. `files` are those of the bundle."""
    state = extent.state
    name = name_of(extent)
    heads, cells = board
    shown = [heads.index(column) for column in COLUMNS if column in heads]
    top = markdown_text([heads[i] for i in shown], [[line[i] for i in shown] for line in cells[:TOP]])
    parts = [
        f"# Run {name}\n",
        f"An autonomous search for sequence-mixing architectures: {len(state.proposals)} proposals, "
        f"{len(state.trials)} trials, {len(cells)} ranked, {span(state.cpu_seconds)} of CPU; "
        f"from {_when(state.created)} to {_when(state.time)}. Begun by asi {clean(state.version, 40)}; "
        f"this was written by asi {machine.asi}.\n",
        f"The record ends at number {extent.seq} with the hash `{extent.head}`. Whoever has kept an earlier hash can "
        "tell whether the record was rewritten since.\n",
    ]
    if state.forked is not None:
        fork = state.forked
        parts.append(f"It was forked from run {clean(fork.of, 64)} at {clean(fork.at, 64)}, record {fork.seq}.\n")
    if problems:
        lines = "".join(f"* {clean(problem, 200)}\n" for problem in problems[:MOST_PROBLEMS])
        more = f"* and {len(problems) - MOST_PROBLEMS} more\n" if len(problems) > MOST_PROBLEMS else ""
        parts.append(f"## Not as the record says\n\nFound when this bundle was made:\n\n{lines}{more}")
    parts += [f"## The best {min(TOP, len(cells))}\n\n{top}", _contents(files), _CHECK]
    parts += [_open(name), _reproduce(machine)]
    known = scoring(extent)
    if strangers := sorted(known.used.keys() - {known.config}):
        shas = ", ".join(f"`{clean(sha, 64)}`" for sha in strangers[:MOST_PROBLEMS])
        parts.append(f"Some scores were made with another `score.toml` than the one here, of sha256 {shas}.\n")
    parts.append(_LIMITS)
    return "\n".join(parts).encode()



def _contents(files: Collection[str]) -> str:
    known = [*((name, about) for name, about, _ in FILES), *FOLDERS]
    here = [(name, about) for name, about in known if any(file.startswith(name) for file in files)]
    return "## What is here\n\n" + "".join(f"* `{name}`: {about}\n" for name, about in here)


_CHECK = f"""\
## Check it

    sha256sum -c --quiet {MANIFEST}

Each line of `journal/` ends in the sha256 over the hash of the line before it and its own
`{{"seq":…,"time":…,"actor":…,"data":…}}`; each file in `blobs/` is named by its own sha256; the event `trial.finished`
holds the sha256 of its trial's `points.jsonl`. `asi import` checks all of it, that every launched program had been
approved by then, and that the leaderboard made from the journal is the one that is published here.
"""


def _open(name: str) -> str:
    return f"""\
## Open it

    asi import {name}.crate.zip
    asi leaderboard {name}
    asi show EXPERIMENT {name}
    asi audit {name} --verify
    asi replay {name}

`asi import` also takes the folder into which the archive was unpacked. Before `asi run {name}` goes on from here, read
`run.toml` (which server would be asked) and `asi policy show {name}` (what would be allowed without asking).
"""


def _reproduce(machine: Environment) -> str:
    return f"""\
## Reproduce it

    python{".".join(machine.python.split(".")[:2])} -m venv .venv        # the run was exported under {machine.python}
    .venv/bin/pip install -r {ABOUT}requirements.txt      # torch decides the last digits; asi itself from its sources
    asi import PATH-OF-THE-BUNDLE
    asi run --replay RUN NEW

The replay asks the recorded questions again and takes the recorded answers, so that proposals and programs are the same
to the byte without any model; vetting, gate, training and scoring are done anew. `asi leaderboard NEW` beside
`asi leaderboard RUN` is the comparison. `{ABOUT}data.json` says how the data is made, `{ABOUT}score.json` and
`{ABOUT}score/` hold the score function: compare their hashes with the installed ones first.
"""


_LIMITS = """\
## What is not here

Checkpoints: a parked trial begins again. The secret from which the sealed half of the data is drawn: it never leaves
its machine, so scores elsewhere agree within the noise and not to the last digit. What opens the seals of experiments,
so that nobody can tell a test of attention before it was decided: sealed experiments that are open stay barred. Keys,
tokens, sockets and the environment of the processes. Logs of the sandboxes: what a program printed is no evidence. The
machine in `environment.json` is the one that exported, which need not be the one that trained.
"""


def describe_crate(extent: Extent, machine: Environment, files: Mapping[str, Copied], board: Board) -> bytes:
    """The RO-Crate's metadata: what the bundle is, its files and folders, its programs, and how they came about."""
    from rocrate.model import ContextEntity
    from rocrate.rocrate import ROCrate

    state = extent.state
    name = name_of(extent)
    crate = ROCrate(version=CRATE_VERSION)
    crate.name = f"asi run {name}"
    crate.description = (
        f"An autonomous search for sequence-mixing architectures: {len(state.proposals)} proposals, "
        f"{len(state.trials)} trials, {len(board[1])} ranked; with programs, prompts, replies, decisions and scores."
    )
    crate.datePublished = _when(state.time)
    crate.license = "Not stated by the run; ask whoever published it."
    crate.root_dataset["identifier"] = extent.head
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the files lie in the archive, not where the library would look for them
        for path, about, kind in FILES:
            if path in files:
                _add_file(crate, path, files[path], {"name": about, "encodingFormat": kind})
        for path, about in FOLDERS:
            inside = [file for name, file in files.items() if name.startswith(path)]
            if inside:
                size = f"{len(inside)} files, {size_words(sum(file.size for file in inside))}"
                crate.add_dataset(dest_path=path, properties={"name": about, "description": size})
        programs = _add_programs(crate, extent, files)
    software = crate.add(
        ContextEntity(crate, "#asi", properties={
            "@type": "SoftwareApplication", "name": "asi", "version": state.version,
            "softwareRequirements": f"Python {machine.python}",
        })
    )  # fmt: skip
    crate.add_action(
        software, "#search", object=[crate.get("run.toml")] if "run.toml" in files else None,
        result=[crate.get(f"{ABOUT}{LEADERBOARD}"), *programs[:1]],
        properties={
            "@type": "CreateAction", "name": f"search of run {name}",
            "startTime": _when(state.created), "endTime": _when(state.time),
        },
    )  # fmt: skip
    content = crate.metadata.generate()
    return json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False).encode() + b"\n"


def _add_file(crate: ROCrate, path: str, file: Copied, properties: Mapping[str, object]) -> Entity:
    fields = {**properties, "contentSize": str(file.size), "sha256": file.sha256}
    return crate.add_file(dest_path=path, properties=fields)


def _add_programs(crate: ROCrate, extent: Extent, files: Mapping[str, Copied]) -> list[Entity]:
    """The programs as source code, the best first; a model's title is only ever a string in there."""
    best = {entry.id: entry for entry in extent.state.ranking()}
    entries = list((best | extent.state.experiments).values())
    added: dict[str, Entity] = {}
    for entry in entries[:MOST_PROGRAMS]:
        path = f"blobs/{entry.program}"
        if path in files and path not in added:
            fields = {
                "@type": ["File", "SoftwareSourceCode"], "name": f"{entry.id}: {clean(entry.title, 160)}",
                "encodingFormat": "text/x-python", "programmingLanguage": "Python",
            }  # fmt: skip
            added[path] = _add_file(crate, path, files[path], fields)
    return list(added.values())
