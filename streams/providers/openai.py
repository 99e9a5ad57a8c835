"""Serves models of any OpenAI-compatible server: OpenAI, vLLM, Ollama, llama.cpp, a LiteLLM proxy.

Blocking: nothing. Proxies of the environment are not used and redirects are not followed: prompts go where the
configuration says, nowhere else.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import msgspec

from contracts.errors import ConfigError, PenstockError, ProviderTimeout, ProviderUnavailable
from contracts.logs import logger
from contracts.payloads import DeltaChunk, InferenceAnswer, InferenceRequest, Usage
from contracts.settings.models import OpenAIProvider
from streams.providers import openai_batch
from streams.providers.base import MAX_TOKENS, Arrivals, Direct, NotAsked, Several, Waiter, endpoint_fault
from streams.providers.openai_errors import LIMIT_NAMES, error_of, finish_of, from_answer, from_status, parse, renamed
from streams.providers.sse import EventSplitter
from streams.providers.transport.base import (
    BrokenOff,
    ConnectFailed,
    Limits,
    Reply,
    Response,
    TimedOut,
    Transport,
    TransportError,
)
from streams.providers.transport.choice import create_transport
from streams.providers.transport.lean import Lean

# An answer of 64k tokens is about 256 kB of text; escaped and framed it stays far below.
_MAX_ANSWER_BYTES = 16 * 2**20
_MAX_ERROR_BYTES = 64 * 1024
_MAX_EVENT_BYTES = 2**20
# Servers write the end of the body right behind the last event, but apart from it; one that never does costs this much.
_END_S = 0.1
_Count = Annotated[int, msgspec.Meta(ge=0, le=MAX_TOKENS)]
# OpenAI has deprecated max_tokens and its newer models refuse it, wherever they are; other servers know nothing else,
# and some ignore what they do not know: then nothing would limit the answer.
_NEWER_NAMES = ("api.openai.com", ".openai.azure.com")
_LEAST_S = 0.001
_OK = 200
_log = logger("provider")


class OpenAI:
    """Calls /chat/completions, /completions and /embeddings over one pool of connections."""

    name = "openai"

    def __init__(self, settings: OpenAIProvider, api_key: bytes | None = None) -> None:
        self._settings = settings
        self._headers = {"Content-Type": "application/json"}
        if api_key:
            self._headers["Authorization"] = f"Bearer {api_key.decode('ascii', 'replace')}"
        host, told = urlsplit(settings.base_url).hostname or "", settings.max_tokens_field
        self._limit_name = LIMIT_NAMES[host.endswith(_NEWER_NAMES)] if told == "auto" else told
        # By model, where its server has refused that one.
        self._limit_names: dict[str, str] = {}
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
            response = await self._send(request, openai_batch.body_of([request]))
            return openai_batch.single(_parse(response.body), request)
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
        return transport.begin(
            openai_batch.PATHS["chat"], body, openai_batch.headers_of(request), request.timeout_s, waiter
        )

    def read(self, outcome: Any, request: InferenceRequest, took_s: float) -> InferenceAnswer:  # noqa: ARG002 - as Direct
        """Return the chat completion that came."""
        if isinstance(outcome, BrokenOff) and not outcome.possibly_billed:
            raise NotAsked
        if isinstance(outcome, TransportError):
            raise self._translate_error(outcome, request) from outcome
        if outcome is None:
            message = f"event {request.event_id}: the connections to {self._host} were closed"
            raise ProviderUnavailable(message, possibly_billed=True)
        if outcome.status != _OK and any(self._renamed({name: 0}, request, outcome) for name in LIMIT_NAMES):
            # The other way tries the other name. By now the model's may be another than the one that was sent.
            raise NotAsked
        self._check(outcome, request)
        return _plain(outcome.body, request) or _answer(_parse(outcome.body), request)

    async def invoke_many(self, requests: Sequence[InferenceRequest], timeout_s: float) -> Several:
        """Return the completions or vectors of a list."""
        first = msgspec.structs.replace(requests[0], timeout_s=timeout_s)
        response = await self._send(first, openai_batch.body_of(requests))
        return openai_batch.several(_parse(response.body), requests)

    async def stream(self, request: InferenceRequest) -> AsyncIterator[DeltaChunk]:
        """Yield the pieces of the chat completion."""
        body = self._body(request) | {"stream": True, "stream_options": {"include_usage": True}}
        pieces = _Pieces(request)
        try:
            async with contextlib.AsyncExitStack() as stack:
                reply = await self._opened(stack, request, body)
                async for data in _events(reply):
                    if data.strip() == b"[DONE]":
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

    async def _opened(self, stack: contextlib.AsyncExitStack, request: InferenceRequest, body: dict[str, Any]) -> Reply:
        """Post and return the answer that has begun."""
        path, headers, ends_at = openai_batch.PATHS[request.task], openai_batch.headers_of(request), _ends_at(request)
        is_first = True
        while True:
            sent = self._running().open(path, msgspec.json.encode(body), headers, _left_s(ends_at))
            reply = await stack.enter_async_context(sent)
            if reply.status == _OK:
                break
            refusal = b"".join([piece async for piece in reply.pieces()])
            other = self._renamed(body, request, Response(reply.status, reply.headers, refusal)) if is_first else None
            if other is None:
                raise from_status(reply.status, reply.headers, refusal, request.model)
            body, is_first = other, False
        self._learn(request, body)
        return reply

    async def _send(self, request: InferenceRequest, body: dict[str, Any]) -> Response:
        """Post and check the status."""
        path, headers, ends_at = openai_batch.PATHS[request.task], openai_batch.headers_of(request), _ends_at(request)
        is_first = True
        while True:
            try:
                response = await self._running().post(path, msgspec.json.encode(body), headers, _left_s(ends_at))
            except TransportError as error:
                raise self._translate_error(error, request) from error
            other = self._renamed(body, request, response) if is_first else None
            if other is None:
                break
            body, is_first = other, False
        self._check(response, request)
        self._learn(request, body)
        return response

    def _renamed(self, body: dict[str, Any], request: InferenceRequest, answer: Response) -> dict[str, Any] | None:
        """Return what to ask instead where a server knows the limit by its other name; None where that is not it."""
        is_ours = self._settings.max_tokens_field == "auto" and request.task == "chat"
        return renamed(body, answer.status, answer.body) if is_ours else None

    def _learn(self, request: InferenceRequest, body: dict[str, Any]) -> None:
        """Note under which name a model has taken its limit."""
        if request.task == "chat" and (name := self._limit_of(request)) not in body:
            (self._limit_names[request.model],) = set(LIMIT_NAMES) - {name}
            _log.info("provider.limit_renamed", host=self._host, model=request.model, refused=name)

    def _limit_of(self, request: InferenceRequest) -> str:
        return self._limit_names.get(request.model, self._limit_name)

    @staticmethod
    def _check(response: Response, request: InferenceRequest) -> None:
        if response.status != _OK:
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
        if isinstance(error, ConnectFailed) and (fault := endpoint_fault(error, self._host, self._settings.proxy)):
            return fault
        return openai_batch.unavailable(self._host, error)

    def _body(self, request: InferenceRequest) -> dict[str, Any]:
        system = ({"role": "system", "content": request.system},) if request.system else ()
        body: dict[str, Any] = {
            "model": request.model,
            # A turn is written as its fields are named.
            "messages": (*system, *request.messages),
            self._limit_of(request): request.max_tokens,
        }
        if request.temperature is not None:
            body["temperature"] = request.temperature
        if request.stop:
            body["stop"] = list(request.stop)
        if request.output_schema is not None and self._settings.structured_output:
            schema = {"name": "answer", "schema": request.output_schema}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        return body


def _ends_at(request: InferenceRequest) -> float:
    return asyncio.get_running_loop().time() + request.timeout_s


def _left_s(ends_at: float) -> float:
    return max(ends_at - asyncio.get_running_loop().time(), _LEAST_S)


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
    prompt_cache_hit_tokens: _Count | None = None
    cached_tokens: _Count | None = None


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
    cached = cached or max(tokens.prompt_cache_hit_tokens or 0, tokens.cached_tokens or 0)
    return InferenceAnswer(
        text=choice.message.content,
        model=found.model or request.model,
        finish_reason=choice.finish_reason,
        usage=openai_batch.disjoint(tokens.prompt_tokens, tokens.completion_tokens, tokens.total_tokens or 0, cached),
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
    choice = openai_batch.first_choice(body)
    if choice is None and error_of(body):
        # Routers have answered 200 by the time their upstream fails.
        spent = openai_batch.usage_of(body.get("usage") if isinstance(body, dict) else None)
        raise from_answer(body, request.model, spent)
    if choice is None:
        message = f"the answer for {request.model} is not a chat completion; is base_url right?"
        raise ProviderUnavailable(message, possibly_billed=True)
    said, usage = openai_batch.part(choice, "message"), openai_batch.usage_of(body.get("usage"))
    if error_of(choice):
        raise from_answer(choice, request.model, usage, has_begun=bool(openai_batch.content_text(said.get("content"))))
    return InferenceAnswer(
        text=openai_batch.content_text(said.get("content")),
        model=str(body.get("model") or request.model),
        finish_reason=finish_of(choice.get("finish_reason"), said.get("refusal"), request, usage),
        usage=usage,
        response_id=str(body.get("id") or ""),
    )


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
            self._usage = openai_batch.usage_of(chunk["usage"])
        if error_of(chunk):
            raise self._broken_off(chunk)
        self._model, self._id = str(chunk.get("model") or self._model), str(chunk.get("id") or self._id)
        choice = openai_batch.first_choice(chunk)
        if choice is None:
            return None
        delta = openai_batch.part(choice, "delta")
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
        text = openai_batch.content_text(delta.get("content"))
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
