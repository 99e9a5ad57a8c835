"""Serves models of any OpenAI-compatible server: OpenAI, vLLM, Ollama, llama.cpp, a LiteLLM proxy.

Blocking: nothing. Proxies of the environment are not used and redirects are not followed: prompts go where the
configuration says, nowhere else.
"""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any, Literal
from urllib.parse import quote, urlsplit

import msgspec

from contracts.errors import (
    ConfigError,
    PenstockError,
    ProviderTimeout,
    ProviderUnavailable,
)
from contracts.payloads import DeltaChunk, InferenceAnswer, InferenceRequest, Usage
from contracts.settings.models import OpenAIProvider
from streams.providers import openai_batch
from streams.providers.base import MAX_TOKENS, Arrivals, Direct, NotAsked, Several, Waiter, counts
from streams.providers.openai_errors import error_of, finish_of, from_answer, from_status, parse
from streams.providers.sse import EventSplitter
from streams.providers.transport.base import BrokenOff, Limits, Reply, Response, TimedOut, Transport, TransportError
from streams.providers.transport.choice import create_transport
from streams.providers.transport.lean import Lean

# An answer of 64k tokens is about 256 kB of text; escaped and framed it stays far below.
_MAX_ANSWER_BYTES = 16 * 2**20
_MAX_ERROR_BYTES = 64 * 1024
_MAX_EVENT_BYTES = 2**20
_MAX_REQUEST_ID_CHARS = 512
# Servers write the end of the body right behind the last event, but apart from it; one that never does costs this much.
_END_S = 0.1
# Of a header's characters those that need no escape, and no more than its limit.
_PLAIN_ID = re.compile(r"[A-Za-z0-9_.~:/@=+,-]{1,512}")
_Count = Annotated[int, msgspec.Meta(ge=0, le=MAX_TOKENS)]
# OpenAI has deprecated max_tokens and its newer models refuse it, at Azure as well; other servers know nothing else.
_NEWER_NAMES = ("api.openai.com", ".openai.azure.com")


class OpenAI:
    """Calls /chat/completions, /completions and /embeddings over one pool of connections."""

    name = "openai"

    def __init__(self, settings: OpenAIProvider, api_key: bytes | None = None) -> None:
        self._settings = settings
        self._headers = {"Content-Type": "application/json"}
        if api_key:
            self._headers["Authorization"] = f"Bearer {api_key.decode('ascii', 'replace')}"
        host = urlsplit(settings.base_url).hostname or ""
        self._max_tokens_name = "max_completion_tokens" if host.endswith(_NEWER_NAMES) else "max_tokens"
        self._host = urlsplit(settings.base_url).netloc.rpartition("@")[2]
        self.arrivals = Arrivals()
        self._transport: Transport | None = None

    async def start(self) -> None:
        """Open the connection pool.

        Raises:
            ConfigError: the key has characters that no header can carry.
        """
        if any(not " " <= char <= "~" for value in self._headers.values() for char in value):
            message = "providers (openai): the API key has characters that an HTTP header cannot carry"
            raise ConfigError(message)
        if self._transport is None:
            limits = Limits(body_bytes=_MAX_ANSWER_BYTES, refusal_bytes=_MAX_ERROR_BYTES)
            transport = create_transport(self._settings, self._headers, limits, self.arrivals)
            await transport.start()
            self._transport = transport

    async def aclose(self) -> None:
        """Cancel calls in flight and close the connections."""
        transport, self._transport = self._transport, None
        if transport is not None:
            await transport.aclose()

    async def invoke(self, request: InferenceRequest) -> InferenceAnswer:
        """Return the chat completion, completion or vector."""
        if request.task != "chat":
            return openai_batch.single(await self._post(request, openai_batch.body_of([request])), request)
        response = await self._send(request, self._body(request))
        return _plain(response.body, request) or _answer(_parse(response.body), request)

    @property
    def direct(self) -> Direct | None:
        """Return this provider where its transport calls without a task."""
        return self if isinstance(self._transport, Lean) else None

    def begin(self, request: InferenceRequest, waiter: Waiter) -> bool:
        """Post the request of a chat completion, without a task; see Direct."""
        transport = self._transport
        if not isinstance(transport, Lean):
            return False
        body = msgspec.json.encode(self._body(request))
        return transport.begin(openai_batch.PATHS["chat"], body, _headers(request), request.timeout_s, waiter)

    def read(self, outcome: Any, request: InferenceRequest, took_s: float) -> InferenceAnswer:  # noqa: ARG002 - as Direct
        """Return the chat completion that came."""
        if isinstance(outcome, BrokenOff) and not outcome.possibly_billed:
            raise NotAsked
        if isinstance(outcome, TransportError):
            raise self._translate_error(outcome, request) from outcome
        if outcome is None:
            message = f"event {request.event_id}: the connections to {self._host} were closed"
            raise ProviderUnavailable(message, possibly_billed=True)
        self._check(outcome, request)
        return _plain(outcome.body, request) or _answer(_parse(outcome.body), request)

    async def invoke_many(self, requests: Sequence[InferenceRequest], timeout_s: float) -> Several:
        """Return the completions or vectors of a list."""
        first = msgspec.structs.replace(requests[0], timeout_s=timeout_s)
        return openai_batch.several(await self._post(first, openai_batch.body_of(requests)), requests)

    async def stream(self, request: InferenceRequest) -> AsyncIterator[DeltaChunk]:
        """Yield the pieces of the chat completion."""
        body = self._body(request) | {"stream": True, "stream_options": {"include_usage": True}}
        pieces = _Pieces(request)
        path, headers = openai_batch.PATHS[request.task], _headers(request)
        try:
            async with self._running().open(path, msgspec.json.encode(body), headers, request.timeout_s) as reply:
                if reply.status != 200:  # noqa: PLR2004 - the one success of this API
                    refusal = b"".join([piece async for piece in reply.pieces()])
                    raise from_status(reply.status, reply.headers, refusal, request.model)
                async for data in _events(reply):
                    if data == b"[DONE]":
                        await _end_of(reply)
                        break
                    chunk = pieces.take(_parse(data))
                    if chunk is not None:
                        yield chunk
        except TransportError as error:
            # Behind the finish reason comes the usage alone: the answer is whole without it.
            if not pieces.is_whole:
                raise self._translate_error(error, request) from error
        yield pieces.last()

    async def _post(self, request: InferenceRequest, body: dict[str, Any]) -> Any:
        """Post, check the status, and return the parsed answer."""
        return _parse((await self._send(request, body)).body)

    async def _send(self, request: InferenceRequest, body: dict[str, Any]) -> Response:
        """Post and check the status."""
        path, headers = openai_batch.PATHS[request.task], _headers(request)
        try:
            response = await self._running().post(path, msgspec.json.encode(body), headers, request.timeout_s)
        except TransportError as error:
            raise self._translate_error(error, request) from error
        self._check(response, request)
        return response

    @staticmethod
    def _check(response: Response, request: InferenceRequest) -> None:
        if response.status != 200:  # noqa: PLR2004 - the one success of this API
            raise from_status(response.status, response.headers, response.body, request.model)

    def _running(self) -> Transport:
        if self._transport is None:
            message = "the provider is not started, or closed"
            raise ProviderUnavailable(message)
        return self._transport

    def _translate_error(self, error: TransportError, request: InferenceRequest) -> PenstockError:
        if isinstance(error, TimedOut):
            message = f"event {request.event_id}: {self._host} did not answer within {request.timeout_s:g} s"
            return ProviderTimeout(message, possibly_billed=error.possibly_billed)
        return ProviderUnavailable(f"{self._host}: {error}", possibly_billed=error.possibly_billed)

    def _body(self, request: InferenceRequest) -> dict[str, Any]:
        system = ({"role": "system", "content": request.system},) if request.system else ()
        body: dict[str, Any] = {
            "model": request.model,
            # A turn is written as its fields are named.
            "messages": (*system, *request.messages),
            self._max_tokens_name: request.max_tokens,
        }
        if request.temperature is not None:
            body["temperature"] = request.temperature
        if request.stop:
            body["stop"] = list(request.stop)
        if request.output_schema is not None and self._settings.structured_output:
            schema = {"name": "answer", "schema": request.output_schema}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        return body


def _headers(request: InferenceRequest) -> dict[str, str]:
    event_id = request.event_id
    if not _PLAIN_ID.fullmatch(event_id):
        event_id = quote(event_id, safe=":/@=+,")[:_MAX_REQUEST_ID_CHARS]
    return {"X-Client-Request-Id": event_id}


class _Said(msgspec.Struct):
    content: str
    refusal: None = None


class _Choice(msgspec.Struct):
    message: _Said
    finish_reason: Literal["stop", "length"]


class _Details(msgspec.Struct):
    cached_tokens: _Count | None = None


class _Tokens(msgspec.Struct):
    prompt_tokens: _Count = 0
    completion_tokens: _Count = 0
    total_tokens: _Count | None = None
    prompt_tokens_details: _Details | None = None


class _Completion(msgspec.Struct):
    choices: Annotated[list[_Choice], msgspec.Meta(min_length=1)]
    model: str = ""
    id: str = ""
    usage: _Tokens | None = None


_NO_TOKENS = _Tokens()
_completions = msgspec.json.Decoder(_Completion)


def _plain(body: bytes, request: InferenceRequest) -> InferenceAnswer | None:
    """Return the answer as nearly all of them look, read in one step; None for any other, which `_answer` reads."""
    try:
        found = _completions.decode(body)
    except (ValueError, RecursionError):
        return None
    choice, tokens = found.choices[0], found.usage or _NO_TOKENS
    cached = (tokens.prompt_tokens_details.cached_tokens or 0) if tokens.prompt_tokens_details else 0
    return InferenceAnswer(
        text=choice.message.content,
        model=found.model or request.model,
        finish_reason=choice.finish_reason,
        usage=_disjoint(tokens.prompt_tokens, tokens.completion_tokens, tokens.total_tokens or 0, cached),
        response_id=found.id,
    )


def _parse(body: bytes) -> Any:
    """Return a JSON body, None when it is none; what msgspec is too strict for (NaN) gets a second look."""
    try:
        return msgspec.json.decode(body)
    except (ValueError, RecursionError):
        return parse(body)


async def _events(reply: Reply) -> AsyncIterator[bytes]:
    splitter = EventSplitter(_MAX_EVENT_BYTES)
    async for piece in reply.pieces():
        for data in splitter.feed(piece):
            yield data
    rest = splitter.finish()
    if rest:
        yield rest


async def _end_of(reply: Reply) -> None:
    """Read the end of a stream's body, so that the connection serves further calls; nothing depends on it any more."""
    with contextlib.suppress(TransportError, TimeoutError):
        async with asyncio.timeout(_END_S):
            async for _ in reply.pieces():
                pass


def _answer(body: Any, request: InferenceRequest) -> InferenceAnswer:
    choice = _first_choice(body)
    if choice is None and error_of(body):
        # Routers have answered 200 by the time their upstream fails.
        raise from_answer(body, request.model, _usage(body.get("usage") if isinstance(body, dict) else None))
    if choice is None:
        message = f"the answer for {request.model} is not a chat completion; is base_url right?"
        raise ProviderUnavailable(message, possibly_billed=True)
    said, usage = _part(choice, "message"), _usage(body.get("usage"))
    if error_of(choice):
        raise from_answer(choice, request.model, usage, has_begun=bool(_text(said.get("content"))))
    return InferenceAnswer(
        text=_text(said.get("content")),
        model=str(body.get("model") or request.model),
        finish_reason=finish_of(choice.get("finish_reason"), said.get("refusal"), request, usage),
        usage=usage,
        response_id=str(body.get("id") or ""),
    )


def _first_choice(body: Any) -> dict[str, Any] | None:
    choices = body.get("choices") if isinstance(body, dict) else None
    return choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else None


def _part(choice: dict[str, Any], key: str) -> dict[str, Any]:
    part = choice.get(key)
    return part if isinstance(part, dict) else {}


def _text(content: Any) -> str:
    """Return the text of a message: a string, or parts of which some are text."""
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


def _usage(usage: Any) -> Usage:
    asked, answered, total = counts(usage, "prompt_tokens", "completion_tokens", "total_tokens")
    (cached,) = counts(usage.get("prompt_tokens_details") if isinstance(usage, dict) else None, "cached_tokens")
    return _disjoint(asked, answered, total, cached)


def _disjoint(asked: int, answered: int, total: int, cached: int) -> Usage:
    """Return counts that have no token in common, as Bedrock's: OpenAI counts cached tokens as prompt tokens too.

    xAI and Google leave a reasoning model's thoughts out of the answer's tokens and bill them as such: they are in the
    total alone. So are cached tokens, where a server leaves them out of the prompt's: there were more of them.
    """
    apart = cached if cached > asked else 0
    return Usage(max(0, asked - cached), max(answered, total - asked - apart), cached)


class _Pieces:
    """Turns the chunks of one stream into deltas, and keeps what the last one needs."""

    def __init__(self, request: InferenceRequest) -> None:
        self._request = request
        self._finish: Any = None
        self._has_begun = self._is_whole = False
        self._refusal = ""
        self._usage: Usage | None = None
        self._model = request.model
        self._id = ""

    def take(self, chunk: Any) -> DeltaChunk | None:
        """Return the delta of a chunk; None when it has no text."""
        if not isinstance(chunk, dict):
            message = f"the server's stream for {self._request.model} is not JSON"
            raise ProviderUnavailable(message, possibly_billed=True)
        if chunk.get("usage"):
            self._usage = _usage(chunk["usage"])
        if chunk.get("error"):
            raise self._broken_off(chunk)
        self._model, self._id = str(chunk.get("model") or self._model), str(chunk.get("id") or self._id)
        choice = _first_choice(chunk)
        if choice is None:
            return None
        delta = _part(choice, "delta")
        if any(value for name, value in delta.items() if name != "role"):
            # Converters for Gemini give every piece a finish reason: only one without a piece is behind them all.
            self._has_begun, self._is_whole = True, False
        elif choice.get("finish_reason"):
            self._is_whole = self._has_begun
        if choice.get("error"):
            raise self._broken_off(choice)
        # Judged at the end: what a refusal has cost comes behind it.
        self._finish = choice.get("finish_reason") or self._finish
        self._refusal += str(delta.get("refusal") or "")
        text = _text(delta.get("content"))
        return DeltaChunk(text=text, model=self._model, response_id=self._id) if text else None

    @property
    def is_whole(self) -> bool:
        """Tell whether all of the answer has come, beyond doubt."""
        return self._is_whole

    def _broken_off(self, details: Any) -> PenstockError:
        return from_answer(details, self._request.model, self._usage or Usage(), has_begun=self._has_begun)

    def last(self) -> DeltaChunk:
        """Return the closing delta; a stream without a finish reason was cut off."""
        if self._finish is None and not self._refusal:
            message = f"the server's stream for {self._request.model} ended without a finish reason"
            raise ProviderUnavailable(message, possibly_billed=True)
        finish = finish_of(self._finish, self._refusal, self._request, self._usage or Usage())
        return DeltaChunk(finish_reason=finish, usage=self._usage, model=self._model, response_id=self._id)
