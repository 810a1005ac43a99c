"""One request to an OpenAI-compatible server, bounded in time and size, and every way in which it can go wrong.

What a server supports (schemas, seeds, temperatures, usage in streams, streams) is learned from its refusals and
remembered. No retries here, and no trust: what comes back is text of unknown origin.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator, Callable
from typing import Any, Literal

import httpx2
import msgspec
import openai

from cognition.embedding import EmbeddingUnavailable
from engine.agents.llm.reading import Completion, Reader, TooLong
from engine.agents.llm.secret import Secret
from engine.client.proposer import KEY
from store.audit import clean

MAX_BYTES = 4 * 1024 * 1024
"""Of one response as it comes over the wire; streams carry some 200 bytes for every token."""
CONNECT_SECONDS = 10.0
PROBE_SECONDS = 20.0

Trouble = Literal["down", "slow", "busy", "broken", "key", "model", "quota", "overflow", "refused", "long"]
RETRIED: frozenset[Trouble] = frozenset(("down", "slow", "busy", "broken"))

_OVERFLOW = re.compile(
    r"context[ _-]?(length|window|size)|maximum context|too many tokens|prompt is too long|exceeds? the (maximum|limit)"
    r"|input is too long|reduce the length|n_ctx|max_model_len",
    re.IGNORECASE,
)


class Message(msgspec.Struct, frozen=True):
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


class Request(msgspec.Struct, frozen=True):
    """What is asked, whatever of it the server supports: what a record is kept by."""

    model: str
    messages: list[Message]
    temperature: float
    max_tokens: int
    seed: int
    schema_name: str = ""
    schema: dict[str, Any] = {}


class ServerTrouble(Exception):
    """The request got no answer; `partial` is what had come until then. The message is one line without secrets."""

    def __init__(
        self, kind: Trouble, message: str, wait: float = 0.0, partial: Completion | None = None, sent: bool = False
    ) -> None:
        super().__init__(message)
        self.kind, self.wait, self.partial, self.sent = kind, wait, partial, sent


_GARBLED = (
    httpx2.HTTPError, ValueError, TypeError, AttributeError, LookupError, RecursionError, openai.OpenAIError
)  # fmt: skip
_SILENT = (openai.OpenAIError, httpx2.HTTPError, TooLong, TimeoutError, ValueError, RecursionError)


class _Bounded(httpx2.AsyncByteStream):
    """A response body that ends with an error when it grows beyond the limit."""

    def __init__(self, inner: httpx2.AsyncByteStream) -> None:
        self._inner, self._left = inner, MAX_BYTES

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self._inner:
            self._left -= len(piece)
            if self._left < 0:
                raise TooLong
            yield piece

    async def aclose(self) -> None:
        """Close what is underneath."""
        await self._inner.aclose()


async def _bound(response: httpx2.Response) -> None:
    """Nothing of a response is read without a limit; a compressed one could be any size, and none was asked for."""
    if response.headers.get("content-encoding", "identity").lower() not in ("", "identity"):
        raise TooLong
    stream = response.stream
    assert isinstance(stream, httpx2.AsyncByteStream)
    response.stream = _Bounded(stream)


class Server:
    """A server as this run knows it."""

    def __init__(self, base_url: str, key: Secret, timeout: float) -> None:
        self.base_url, self.key, self.timeout = base_url, key, timeout
        self.lacks: set[str] = set()
        self.streamed = False
        limits = httpx2.Timeout(timeout, connect=min(CONNECT_SECONDS, timeout))
        self._http = httpx2.AsyncClient(
            timeout=limits, follow_redirects=False, event_hooks={"response": [_bound]}, base_url=base_url
        )
        self._client = openai.AsyncOpenAI(
            api_key=key.reveal() or "none", base_url=base_url, max_retries=0, timeout=limits, http_client=self._http,
            default_headers={"Accept-Encoding": "identity"}, admin_api_key="",
        )  # fmt: skip

    async def close(self) -> None:
        """Let go of the connections."""
        await self._client.close()

    async def complete(self, request: Request, headers: dict[str, str], say: Callable[[str], None]) -> Completion:
        """Ask, and stream what comes to `say`. Raises `ServerTrouble`."""
        while True:
            reader = Reader(self.key, say)
            try:
                async with asyncio.timeout(self.timeout):
                    await self._exchange(request, headers, reader)
                return reader.completion()
            except openai.APIStatusError as error:
                if error.status_code not in (400, 422) or not self._learn(request, error):
                    raise self._status(error) from None
            except TimeoutError:
                raise self._failed("slow", f"no whole answer within {self.timeout:g} s", reader) from None
            except openai.APITimeoutError:
                raise self._failed("slow", "it did not answer in time", reader) from None
            except openai.APIConnectionError as error:
                raise self._failed("down", _cause(error), reader) from None
            except openai.APIError as error:
                raise self._said(error, reader) from None
            except TooLong:
                raise self._failed("long", "the answer is longer than any that could be used", reader) from None
            except _GARBLED as error:
                raise self._failed("broken", f"the answer is not in the protocol ({_cause(error)})", reader) from None
            finally:
                reader.flush()

    async def probe(self) -> bool:
        """Whether the server answers at all: any answer but a failure of its own."""
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                await self._client.models.list()
        except openai.APIStatusError as error:
            return error.status_code < 500 and error.status_code != 429
        except _SILENT:
            return False
        return True

    async def models(self) -> list[str]:
        """The names of the server's models; none where it does not say."""
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                page = await self._client.models.list()
        except _SILENT:
            return []
        names = [getattr(one, "id", None) for one in (getattr(page, "data", None) or [])[:200]]
        return [clean(name, 200) for name in names if isinstance(name, str) and name.strip()]

    async def embeds(self, model: str) -> bool:
        """Whether the server makes embeddings with this model."""
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                found = await self._client.embeddings.create(model=model, input="probe")
            return bool(found.data[0].embedding)
        except (*_SILENT, AttributeError, TypeError, LookupError):
            return False

    async def embed(self, model: str, texts: list[str]) -> list[list[float]]:
        """A vector for each text. Raises `EmbeddingUnavailable`."""
        try:
            found = await self._client.embeddings.create(model=model, input=texts)
            return [list(one.embedding) for one in found.data]
        except (*_SILENT, AttributeError, TypeError) as error:
            raise EmbeddingUnavailable(self.key.hide(f"{type(error).__name__}: {error}")[:300]) from None

    # --- one exchange -------------------------------------------------------------------------------------------------

    def _parameters(self, request: Request) -> dict[str, Any]:
        found: dict[str, Any] = {
            "model": request.model,
            "messages": [{"role": one.role, "content": one.content} for one in request.messages],
        }
        wanted: dict[str, Any] = {"temperature": request.temperature, "seed": request.seed}
        if "stream" not in self.lacks:
            wanted |= {"stream": True, "stream_options": {"include_usage": True}}
        if request.schema:
            shape = {"name": request.schema_name, "strict": True, "schema": request.schema}
            wanted["response_format"] = {"type": "json_schema", "json_schema": shape}
        found |= {name: value for name, value in wanted.items() if name not in self.lacks}
        found["max_completion_tokens" if "max_tokens" in self.lacks else "max_tokens"] = request.max_tokens
        return found

    async def _exchange(self, request: Request, headers: dict[str, str], reader: Reader) -> None:
        create: Any = self._client.chat.completions.with_streaming_response.create
        async with create(**self._parameters(request), extra_headers=headers) as response:
            kind = response.headers.get("content-type", "").lower()
            if "event-stream" in kind:
                self.streamed = True
                async with contextlib.aclosing(await response.parse()) as stream:
                    async for chunk in stream:
                        reader.take(chunk)
            elif "html" in kind:
                raise ValueError("a web page: is the address right?")
            else:
                reader.take_whole(json.loads(await response.read()))

    def _learn(self, request: Request, error: openai.APIStatusError) -> bool:
        """Whether the refusal names a parameter that can be left out from now on."""
        text = _body(error).lower()
        if _OVERFLOW.search(text):
            return False
        known = {
            "response_format": ("response_format", "json_schema", "schema", "structured", "grammar"),
            "stream_options": ("stream_options", "include_usage"),
            "max_tokens": ("max_completion_tokens", "max_tokens"),
            "temperature": ("temperature",),
            "seed": ("seed",),
            "stream": ("stream",),
        }
        for name, words in known.items():
            sent = name not in self.lacks and (name != "response_format" or bool(request.schema))
            if sent and any(word in text for word in words):
                self.lacks.add(name)
                return True
        return False

    # --- what went wrong ----------------------------------------------------------------------------------------------

    def _failed(self, kind: Trouble, message: str, reader: Reader) -> ServerTrouble:
        sent = kind in ("slow", "long") or bool(reader.size)
        return ServerTrouble(kind, self._line(message), partial=reader.completion(), sent=sent)

    def _line(self, message: str) -> str:
        return clean(self.key.hide(message), 200)

    def _status(self, error: openai.APIStatusError) -> ServerTrouble:
        """What a status says. A refusal of the key is never quoted: servers repeat parts of it."""
        code, text = error.status_code, _body(error)
        said = f"{code}: {clean(self.key.hide(text), 160)}".rstrip(": ")
        if code in (401, 403):
            refused = f"the server refuses the key ({code})"
            return ServerTrouble("key", refused if self.key else f"the server wants a key ({code}): set {KEY}")
        if code == 404:
            return ServerTrouble("model", f"the server knows no such model or address ({said})")
        if code in (400, 413, 422):
            return ServerTrouble("overflow" if code == 413 or _OVERFLOW.search(text) else "refused", said)
        if 300 <= code < 400:
            return ServerTrouble("model", f"the server answers {code}: the address has moved; is base_url right?")
        if code == 402 or "insufficient_quota" in text:
            return ServerTrouble("quota", f"the server's account is exhausted ({said})")
        if code in (408, 409, 425, 429) or code >= 500:
            return ServerTrouble("busy", said, _retry_after(error.response.headers))
        return ServerTrouble("refused", said)

    def _said(self, error: openai.APIError, reader: Reader) -> ServerTrouble:
        """An error that came inside of a stream."""
        text = f"{error.code or ''} {error.message}"
        kind: Trouble = "overflow" if _OVERFLOW.search(text) else "busy" if "rate" in text.lower() else "broken"
        return self._failed(kind, f"in mid-answer: {text.strip()}", reader)


def _body(error: openai.APIStatusError) -> str:
    body = error.body
    if isinstance(body, dict):
        said = " ".join(str(body.get(name) or "") for name in ("code", "param", "message", "error", "detail"))
        return said.strip()[:4_000]
    return "" if body is None or "<html" in str(body)[:500].lower() else str(body)[:4_000]


def _cause(error: BaseException) -> str:
    cause = error.__cause__ or error
    return clean(f"{cause}" or type(cause).__name__, 120)


def _retry_after(headers: httpx2.Headers) -> float:
    """Seconds that the server asks us to wait, 0 where it does not say so in numbers."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        with contextlib.suppress(ValueError):
            seconds = float(headers.get(name, "")) * unit
            if 0.0 <= seconds < 1e6:
                return seconds
    return 0.0
