"""The configuration of a run, `run.toml`: what can be set, its bounds, and errors with their line and column."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal, get_origin, get_type_hints

import msgspec
from msgspec import Meta

from store.toml_errors import Key, TomlError, TomlFile, read_text

FORMAT = 1
LEAST_PROMPT_TOKENS = 1_024


_HOURS = r"^(([01][0-9]|2[0-3]):[0-5][0-9]-([01][0-9]|2[0-3]):[0-5][0-9])?\Z"
_NAME = r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}\Z"
NAME_WORDS = "must be 1 to 64 letters, digits, dots, dashes or underscores, and not begin with a dot or dash"


class ConfigError(TomlError):
    """A configuration cannot be used; one line: where, what is wrong, what to do."""


class _Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of all tables; a field's description becomes its comment in `dump`."""


class Loop(_Table, frozen=True):
    """how the search goes on"""

    experiments: Annotated[int, Meta(ge=0, description="end after so many proposals; 0 = no end")] = 0
    concurrency: Annotated[int, Meta(ge=1, le=256, description="experiments in flight")] = 4
    cold_start: Annotated[int, Meta(ge=0, description="the first so many descend from the seeds")] = 6
    random_parent_share: Annotated[
        float, Meta(ge=0, le=1, description="share of controls whose parent is drawn at random")
    ] = 0.05
    max_repairs: Annotated[int, Meta(ge=0, le=20, description="repairs before an idea is dropped")] = 2
    seed: Annotated[int, Meta(ge=0, le=2**62, description="of everything that the loop draws")] = 0


class Sampling(_Table, frozen=True):
    """where parents and references come from, by rank"""

    parents: Annotated[int, Meta(ge=1, description="the parent is one of the best so many")] = 10
    references_from: Annotated[int, Meta(ge=1, description="references: from this rank")] = 11
    references_to: Annotated[int, Meta(ge=1, description="to this rank")] = 50
    references: Annotated[int, Meta(ge=0, le=20, description="so many of them")] = 3


class Trials(_Table, frozen=True):
    """training: how many processes, seeds and baselines"""

    tier: Annotated[Literal["probe", "probe-smoke"], Meta(description="scale of the trials")] = "probe"
    slots: Annotated[int, Meta(ge=0, le=4096, description="trials at once; 0 = one per processor")] = 0
    first_seeds: Annotated[int, Meta(ge=1, le=100, description="seeds of a new candidate")] = 1
    max_seeds: Annotated[int, Meta(ge=1, le=100, description="seeds of a promising one")] = 3
    noise_seeds: Annotated[int, Meta(ge=2, le=100, description="seeds of the baseline, for the noise floor")] = 5
    baseline: Annotated[str, Meta(pattern=_NAME, description="what every score is compared with")] = "gated_deltanet"
    baselines: Annotated[
        list[Annotated[str, Meta(pattern=_NAME)]], Meta(description="baselines to train beside it; [] = all")
    ] = []


class Sandbox(_Table, frozen=True):
    """what surrounds a trial"""

    minimum_level: Annotated[
        Literal["L0", "L1", "L2", "L3"], Meta(description="below this isolation proposals ask; L0 refuses")
    ] = "L2"
    memory_mb: Annotated[int, Meta(ge=128, description="memory of one trial")] = 2048
    disk_mb: Annotated[int, Meta(ge=1, description="disk space of one trial")] = 512
    lease_seconds: Annotated[
        float, Meta(ge=2, le=3600, description="the guard kills all trials when the engine is silent for so long")
    ] = 20.0
    grace_seconds: Annotated[
        float, Meta(ge=0, le=3600, description="what a trial gets for its checkpoint at park and stop")
    ] = 20.0


_Model = Annotated[str, Meta(max_length=200, description="for this role; empty = `model`")]


class Agents(_Table, frozen=True):
    """who proposes: the offline evolver, or language models on an OpenAI-compatible server. No key stands here"""

    kind: Annotated[
        Literal["auto", "evolver", "models", "mixed"],
        Meta(description="auto = models where OPENAI_BASE_URL, or OPENAI_API_KEY with a model, is set; else evolver"),
    ] = "auto"
    base_url: Annotated[str, Meta(max_length=500, description="empty = OPENAI_BASE_URL, or api.openai.com")] = ""
    model: Annotated[str, Meta(max_length=200, description="empty = OPENAI_MODEL, or the server's first")] = ""
    researcher_model: _Model = ""
    novelty_model: _Model = ""
    engineer_model: _Model = ""
    analyst_model: _Model = ""
    key_file: Annotated[str, Meta(max_length=1000, description="file (0600) with the key; empty = OPENAI_API_KEY")] = ""
    temperature: Annotated[float, Meta(ge=0, le=2, description="of researcher and engineer; others: 0.2 at most")] = 0.8
    max_tokens: Annotated[int, Meta(ge=256, le=1_000_000, description="of one reply, reasoning included")] = 8_192
    context_tokens: Annotated[int, Meta(ge=2_048, le=10**8, description="of prompt and reply together")] = 32_768
    timeout_seconds: Annotated[float, Meta(ge=0.1, le=7_200, description="for one whole reply")] = 300.0
    concurrency: Annotated[int, Meta(ge=1, le=256, description="requests at once")] = 4
    retries: Annotated[int, Meta(ge=0, le=20, description="of a request that the server failed")] = 4
    pause_after: Annotated[int, Meta(ge=1, le=1_000, description="failures of the server in a row pause the run")] = 5
    price_in: Annotated[float, Meta(ge=-1, le=1e9, description="per million tokens read; -1 = not known")] = -1.0
    price_out: Annotated[float, Meta(ge=-1, le=1e9, description="per million tokens written; -1 = not known")] = -1.0
    share: Annotated[float, Meta(ge=0, le=1, description="of the compute, for models, where kind is mixed")] = 0.5
    novelty_above: Annotated[float, Meta(ge=0, le=1, description="likeness from which novelty is judged")] = 0.4
    replay: Annotated[str, Meta(max_length=4_000, description="run directory whose recorded calls answer")] = ""


class Cognition(_Table, frozen=True):
    """how what is known is found again: by words always, and beside them by one of these embeddings"""

    embedding: Annotated[
        Literal["lexical", "local", "server"],
        Meta(description="lexical = no model; local = a sentence model (extra `embeddings`); server = /embeddings"),
    ] = "lexical"
    model: Annotated[str, Meta(max_length=200, description="of the server")] = ""
    dimensions: Annotated[int, Meta(ge=1, le=16_384, description="of the server's vectors")] = 1_536


class Budget(_Table, frozen=True):
    """caps: a warning at 80 %, at the cap the run pauses and asks. 0 = no cap"""

    wall_hours: Annotated[float, Meta(ge=0, le=1e9, description="hours of work")] = 0.0
    cpu_hours: Annotated[float, Meta(ge=0, le=1e9, description="device hours: processors in vetting and trials")] = 0.0
    tokens: Annotated[int, Meta(ge=0, description="tokens of language models")] = 0
    money: Annotated[float, Meta(ge=0, le=1e12, description="what they cost")] = 0.0
    disk_gb: Annotated[float, Meta(ge=0, le=1e9, description="size of the run directory")] = 0.0
    experiments: Annotated[int, Meta(ge=0, description="proposals")] = 0


class Deadman(_Table, frozen=True):
    """the dead-man's switch: how long the run goes on without a key or command of a person. 0 = off"""

    pause_minutes: Annotated[float, Meta(ge=0, le=1e6, description="then nothing new starts")] = 0.0
    freeze_minutes: Annotated[float, Meta(ge=0, le=1e6, description="then every trial is stopped in place")] = 0.0


class Gate(_Table, frozen=True):
    """questions to people"""

    expires_minutes: Annotated[float, Meta(gt=0, le=1e9, description="an unanswered request becomes a refusal")] = 60.0
    undo_seconds: Annotated[
        float, Meta(ge=0, le=3600, description="an approval of low risk can be taken back for so long")
    ] = 5.0
    cool_off_minutes: Annotated[
        float, Meta(ge=0, le=1e6, description="before an approval of risk R3 takes effect")
    ] = 5.0
    approval_hours: Annotated[
        float, Meta(ge=0.001, le=1e9, description="an approval allows launches for so long")
    ] = 72.0
    budget_factor: Annotated[
        float, Meta(ge=1, le=1e6, description="an approval covers so many times the predicted cost of all seeds")
    ] = 3.0
    supervisors: Annotated[
        list[Annotated[str, Meta(max_length=200)]], Meta(description="who may decide; [] = whoever can attach")
    ] = []
    allowed_signers: Annotated[
        str, Meta(max_length=1_000, description="file of SSH keys that must sign decisions; empty = no signatures")
    ] = ""
    seeded_share: Annotated[
        float, Meta(ge=0, le=0.5, description="share of requests that are known-bad programs, to test attention")
    ] = 0.0


class Notify(_Table, frozen=True):
    """messages to people who are not looking; they carry no code and no secrets"""

    urls_file: Annotated[
        str, Meta(max_length=1_000, description="file (0600) with one apprise URL a line (extra `notify`)")
    ] = ""
    quiet_hours: Annotated[str, Meta(pattern=_HOURS, description="such as 22:00-07:00; empty = none")] = ""
    every_seconds: Annotated[float, Meta(ge=1, le=1e6, description="at most one message of a kind in so long")] = 60.0


class RunConfig(_Table, frozen=True):
    """Everything in `run.toml`."""

    format: int = FORMAT
    name: Annotated[str, Meta(pattern=_NAME, description="of the run")] = "run"
    loop: Loop = Loop()
    sampling: Sampling = Sampling()
    trials: Trials = Trials()
    sandbox: Sandbox = Sandbox()
    agents: Agents = Agents()
    cognition: Cognition = Cognition()
    budget: Budget = Budget()
    deadman: Deadman = Deadman()
    gate: Gate = Gate()
    notify: Notify = Notify()


_ORDERED = (("sampling", "references_from", "references_to"), ("trials", "first_seeds", "max_seeds"))
"""Pairs of which the first must not be larger than the second."""


def load(path: Path) -> RunConfig:
    """Read and check a configuration.

    Raises:
        ConfigError: it cannot be read, or something in it is wrong.
    """
    return parse(read_text(path, ConfigError, "configuration"), path.name)


def parse(text: str, name: str = "run.toml") -> RunConfig:
    """Check the text of a configuration; `name` stands in the error.

    Raises:
        ConfigError: something in it is wrong.
    """
    file = TomlFile(text, name, ConfigError, _describe)
    data = file.data()
    version = data.get("format", FORMAT)
    if type(version) is not int or version < 1:
        raise file.wrong(("format",), f"format must be a whole number from 1 to {FORMAT}")
    if version > FORMAT:
        message = f"written by a newer version of asi (format {version}; this one reads up to {FORMAT}); update asi"
        raise file.wrong(("format",), message)
    config = file.convert(data, RunConfig, _in_words)
    for table, low, high in _ORDERED:
        section = getattr(config, table)
        if getattr(section, low) > getattr(section, high):
            place = (table, high) if high in data.get(table, {}) else (table, low)
            raise file.wrong(place, f"{table}.{low} is larger than {table}.{high}; swap or raise")
    begin, _, end = config.notify.quiet_hours.partition("-")
    if begin and begin == end:
        raise file.wrong(("notify", "quiet_hours"), "notify.quiet_hours is no time at all; leave it empty")
    for keys, message in _agents_wrong(config):
        raise file.wrong(keys, message)
    return config


def _describe(path: Key) -> str:
    return ".".join(part for part in path if isinstance(part, str))


def _in_words(message: str, path: Key) -> str | None:
    """What a text must look like, where msgspec would print a pattern."""
    if "matching regex" not in message:
        return None
    if path[-1] == "quiet_hours":
        return "must be a time of day such as 22:00-07:00, or empty"
    return NAME_WORDS


def _agents_wrong(config: RunConfig) -> list[tuple[tuple[str, ...], str]]:
    """What is wrong with the agents beyond a single value."""
    agents = config.agents
    found: list[tuple[tuple[str, ...], str]] = []
    if agents.context_tokens < agents.max_tokens + LEAST_PROMPT_TOKENS:
        found.append((
            ("agents", "context_tokens"),
            f"agents.context_tokens leaves less than {LEAST_PROMPT_TOKENS} tokens beside agents.max_tokens; raise it",
        ))  # fmt: skip
    if agents.kind in ("models", "mixed") and config.budget.money > 0 and min(agents.price_in, agents.price_out) < 0:
        message = "budget.money needs agents.price_in and agents.price_out (per million tokens; 0 where it is free)"
        found.append((("budget", "money"), message))
    return found


def dump(config: RunConfig) -> str:
    """A configuration as commented TOML that `parse` reads back to an equal one."""
    lines = [f"format = {config.format}", f"name = {_value(config.name)}"]
    for table, kind in get_type_hints(RunConfig).items():
        if not (isinstance(kind, type) and issubclass(kind, _Table)):
            continue
        lines += ["", f"[{table}]  # {kind.__doc__}"]
        section = getattr(config, table)
        for key, hint in get_type_hints(kind, include_extras=True).items():
            assert get_origin(hint) is Annotated
            assignment = f"{key} = {_value(getattr(section, key))}"
            lines.append(f"{assignment:<34}# {hint.__metadata__[0].description}")
    return "\n".join(lines) + "\n"


def _value(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(_value(item) for item in value)}]"
    # A JSON string without escapes beyond ASCII is a TOML basic string; numbers are the same in both.
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)
