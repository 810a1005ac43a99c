"""Who proposes in a run: what `[agents]` leaves open is settled from the environment, once, before the run begins.

A key alone changes nothing: the models need a server's address or a model's name besides, so that nobody pays for a
run by having a key in the shell.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from engine.client.rundir import RunPaths, atomic_write
from store.blobs import BlobError, Blobs
from store.config import Agents, ConfigError, RunConfig, dump, load
from store.events import PolicyAdopted
from store.journal import JournalError, read

OPENAI = "https://api.openai.com/v1"
KEY, URL, MODEL = "OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_MODEL"


def settle(config: RunConfig, environment: Mapping[str, str]) -> RunConfig:
    """The configuration with `kind`, `base_url` and `model` filled in.

    Raises:
        ConfigError: the address cannot be used, or money is capped and a price is not known.
    """
    agents = config.agents
    url = agents.base_url or environment.get(URL, "").strip()
    model = agents.model or environment.get(MODEL, "").strip()[:200]
    kind = agents.kind
    if kind == "auto":
        key = agents.key_file or environment.get(KEY, "").strip()
        kind = "models" if url or (key and model) or _has_calls(agents.replay) else "evolver"
    asks_server = config.cognition.embedding == "server"
    if asks_server and not config.cognition.model:
        raise ConfigError('cognition.embedding = "server" needs cognition.model, the name of the server\'s model')
    if kind == "evolver" and not asks_server:
        return msgspec.structs.replace(config, agents=msgspec.structs.replace(agents, kind=kind))
    url = url or OPENAI
    _check_url(url, agents)
    settled = msgspec.structs.replace(agents, kind=kind, base_url=url.rstrip("/"), model=model)
    if config.budget.money > 0 and min(settled.price_in, settled.price_out) < 0:
        raise ConfigError("budget.money needs agents.price_in and agents.price_out (per million tokens; 0 where free)")
    return msgspec.structs.replace(config, agents=settled)


def hint(config: RunConfig, environment: Mapping[str, str]) -> str:
    """A line for whoever has a key and may wonder why no model is asked; empty otherwise."""
    if config.agents.kind != "evolver" or not environment.get(KEY, "").strip():
        return ""
    return f"{KEY} is set, but no model is named ({MODEL}, or [agents] model): the offline evolver proposes"


def prepare_replay(other: Path, root: Path) -> None:
    """Make `root` the directory of a run that replays `other`; one that does so already is left as it is.

    Raises:
        ConfigError: `root` is another run, or the configuration of `other` cannot be used.
        OSError: a file cannot be read or written.
    """
    paths, source = RunPaths(root), RunPaths(other)
    if paths.config.exists():
        if load(paths.config).agents.replay != str(other):
            raise ConfigError(f"{root.name} exists and is no replay of {other.name}; name another run")
        return
    config = load(source.config)
    agents = msgspec.structs.replace(config.agents, replay=str(other), key_file="")
    if agents.kind == "auto" and not _has_calls(str(other)):
        agents = msgspec.structs.replace(agents, kind="evolver")
    plain = msgspec.structs.asdict(msgspec.structs.replace(config, agents=agents)) | {"name": root.name}
    try:
        text = dump(msgspec.convert(plain, RunConfig))
    except msgspec.ValidationError:
        raise ConfigError(f"{root.name!r} cannot be a run's name: letters, digits, _ . - only") from None
    paths.create()
    try:
        policy = _policy_of(source)
    except (BlobError, JournalError) as error:
        raise ConfigError(f"{other.name}: its policy cannot be read: {error}") from error
    if policy:
        atomic_write(root / "policy.toml", policy)
    atomic_write(paths.config, text.encode())


def _policy_of(paths: RunPaths) -> bytes:
    """The policy that a run has now: the last one it put in force, or the file that it will begin with."""
    adopted = [record.data.policy for record in read(paths.journal) if isinstance(record.data, PolicyAdopted)]
    if adopted:
        return Blobs(paths.blobs).get(adopted[-1])
    file = paths.root / "policy.toml"
    return file.read_bytes() if file.is_file() else b""


def _has_calls(replay: str) -> bool:
    return bool(replay) and (Path(replay) / "calls" / "index.jsonl").is_file()


def _check_url(url: str, agents: Agents) -> None:
    """The address goes on record, so it must not hold a secret; it is not quoted where it may."""
    where = "agents.base_url" if agents.base_url else URL
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise ConfigError(f"{where} is not an address") from None
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ConfigError(f"{where} must hold no user name, password or query: a key belongs into {KEY} or key_file")
    if parts.scheme not in ("http", "https") or not host or not url.isprintable() or " " in url:
        raise ConfigError(f"{where} must be an address such as http://127.0.0.1:8000/v1")
