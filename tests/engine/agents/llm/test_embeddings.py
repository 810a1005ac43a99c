"""The server's `/embeddings` as what recalls are found by, over a real socket."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

from cognition.embedding import EmbeddingUnavailable
from engine.agents.llm.secret import Secret
from engine.agents.llm.team import Team
from engine.client.proposer import settle
from store.config import Agents, Cognition, ConfigError, RunConfig
from tests.engine.agents.llm.conftest import KEY
from tests.engine.agents.llm.server import ModelServer


def configured(url: str, dimensions: int = 2) -> RunConfig:
    cognition = Cognition(embedding="server", model="tiny", dimensions=dimensions)
    return RunConfig(agents=Agents(kind="evolver", base_url=url), cognition=cognition)


def holds_key(folder: Path) -> bool:
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    return any(KEY.encode() in path.read_bytes() for path in files)


async def test_texts_become_unit_vectors(models: ModelServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    team = Team()
    embedding = team.embedding(settle(configured(models.url), {}), Secret(KEY))
    assert embedding is not None
    vectors = await asyncio.to_thread(embedding.embed, ["one", "two", "three"])
    assert vectors.shape == (3, 2)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1.0)
    assert not holds_key(tmp_path / "cache")
    models.stop()
    assert np.allclose(await asyncio.to_thread(embedding.embed, ["two"]), vectors[1:2])  # kept on the disk
    with pytest.raises(EmbeddingUnavailable):
        await asyncio.to_thread(embedding.embed, ["four"])
    await team.close()


async def test_vectors_of_another_size_are_refused(
    models: ModelServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    team = Team()
    embedding = team.embedding(configured(models.url, dimensions=7), Secret(KEY))
    assert embedding is not None
    with pytest.raises(EmbeddingUnavailable, match="7 numbers"):
        await asyncio.to_thread(embedding.embed, ["one"])
    await team.close()


def test_a_server_without_a_named_model_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"cognition\.model"):
        settle(RunConfig(cognition=Cognition(embedding="server")), {})
