"""What `asi doctor` says about the model server: one tiny request, one line."""

from __future__ import annotations

from collections.abc import Mapping

from engine.agents.llm.calls import STAND_IN
from engine.agents.llm.client import Message, Request, Server, ServerTrouble
from engine.agents.llm.secret import Secret
from engine.client.proposer import KEY, hint, settle
from store.audit import clean
from store.config import ConfigError, RunConfig

SECONDS = 30.0
TOKENS = 64


async def check_server(environment: Mapping[str, str]) -> str:
    """Who would propose in a new run, and what the server supports or why it does not answer; one line."""
    try:
        config = settle(RunConfig(), environment)
    except ConfigError as error:
        return str(error)
    if config.agents.kind == "evolver":
        return hint(config, environment) or "offline evolver (no server is set)"
    server = Server(config.agents.base_url, Secret(environment.get(KEY, "").strip()), SECONDS)
    try:
        model = config.agents.model or next(iter(await server.models()), STAND_IN)
        return f"{clean(model, 60)} at {config.agents.base_url}: {await _try(server, model)}"
    finally:
        await server.close()


async def _try(server: Server, model: str) -> str:
    """What one request shows."""
    verdict = {"type": "string", "enum": ["yes"]}
    shape = {"type": "object", "properties": {"ready": verdict}, "required": ["ready"], "additionalProperties": False}
    messages = [Message("user", 'Answer with the JSON object {"ready": "yes"} and nothing else.')]
    request = Request(model, messages, 0.0, TOKENS, 0, "ready", shape)
    pieces: list[str] = []
    try:
        answer = await server.complete(request, {"X-ASI-Role": "doctor"}, pieces.append)
    except ServerTrouble as trouble:
        return f"no answer: {trouble}"
    lacks = server.lacks
    found = {
        "streaming": server.streamed,
        "JSON schema": "response_format" not in lacks,
        "seeds": "seed" not in lacks,
        "token counts": answer.tokens_out > 0,
        "embeddings": await server.embeds(model),
    }
    has = ", ".join(name for name, yes in found.items() if yes) or "nothing beyond plain answers"
    missing = ", ".join(name for name, yes in found.items() if not yes)
    return f"answers; has {has}" + (f"; without {missing}" if missing else "")
