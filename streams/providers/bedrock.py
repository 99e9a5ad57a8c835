"""Serves Amazon Bedrock models through the Converse API of boto3.

Blocking: boto3 blocks, so every call has a thread of an own pool; the event loop waits at most the request's timeout.
A thread that is left behind by a timeout or a cancellation counts as busy until its read timeout lets it go.
"""

import asyncio
import contextlib
import functools
import json
import math
import re
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future
from typing import Any

import boto3
import msgspec
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import BotoCoreError

from contracts.errors import ConfigError, PenstockError, ProviderTimeout, ProviderUnavailable, Retryable
from contracts.payloads import DeltaChunk, FinishReason, InferenceAnswer, InferenceRequest, Usage
from contracts.settings.models import BedrockProvider
from producers.threads import DaemonPool
from streams.providers.base import billed, counts
from streams.providers.bedrock_errors import CALL_ERRORS, finish, translate, with_credentials

_MIN_READ_TIMEOUT_S = 1
# Source: botocore service model, shapes of requestMetadata (checked 2026-11): at most 16 entries of these characters.
_NOT_METADATA = re.compile(r"[^a-zA-Z0-9\s:_@$#=/+,.-]")
_MAX_METADATA = 16
_MAX_METADATA_CHARS = 256
# What botocore's parser raises where a value is of another type than its service model says; it wraps none of them.
_UNPARSED = (AttributeError, TypeError, ValueError)
_COUNTS = ("inputTokens", "outputTokens", "cacheReadInputTokens", "cacheWriteInputTokens")


class Bedrock:
    """Calls Converse and ConverseStream; boto3's own retries are off, since they bill one event several times."""

    name = "aws.bedrock"

    def __init__(self, settings: BedrockProvider, bearer_token: bytes | None = None, session: Any = None) -> None:
        self._settings = settings
        self._bearer_token = bearer_token.decode("ascii", "replace") if bearer_token else None
        self._session = session
        self._pool = DaemonPool(settings.max_in_flight, "bedrock")
        self._clients: dict[int, Any] = {}
        self._lock = threading.Lock()
        self._waiting: set[asyncio.Future[Any]] = set()

    async def start(self) -> None:
        """Load boto3's service model, so that the first event does not pay for it.

        Raises:
            ConfigError: the region, the endpoint or the bearer token cannot work.
        """
        if self._bearer_token and not all(" " < char <= "~" for char in self._bearer_token):
            message = "providers (bedrock): the bearer token has characters that an HTTP header cannot carry"
            raise ConfigError(message)
        await self._in_thread(functools.partial(self._client, 60.0), 60.0, "start")

    async def aclose(self) -> None:
        """Cancel waiting calls, close the connections; threads end by themselves."""
        for waiting in list(self._waiting):
            waiting.cancel()
        self._pool.close()
        with self._lock:
            clients, self._clients = list(self._clients.values()), {}
        for client in clients:
            client.close()

    async def invoke(self, request: InferenceRequest) -> InferenceAnswer:
        """Return Converse's answer."""
        call = functools.partial(self._converse, request)
        answer: InferenceAnswer = await self._in_thread(call, request.timeout_s, f"event {request.event_id}")
        return answer

    async def stream(self, request: InferenceRequest) -> AsyncIterator[DeltaChunk]:
        """Yield ConverseStream's text deltas."""
        loop = asyncio.get_running_loop()
        # Unbounded on purpose: it holds at most one answer, which max_tokens bounds.
        queue: asyncio.Queue[DeltaChunk | None] = asyncio.Queue()
        stopped = threading.Event()
        call = functools.partial(self._read_stream, request, loop, queue, stopped)
        whole = asyncio.ensure_future(self._in_thread(call, request.timeout_s, f"event {request.event_id}"))
        whole.add_done_callback(lambda _: queue.put_nowait(None))
        try:
            while (chunk := await queue.get()) is not None:
                yield chunk
            await whole
        finally:
            stopped.set()
            whole.cancel()
            # Looked at, or asyncio would complain about an error that nobody waits for any more.
            whole.add_done_callback(lambda task: task.cancelled() or task.exception())

    async def _in_thread(self, call: Callable[[], Any], timeout_s: float, what: str) -> Any:
        """Run a blocking call in the pool; give up waiting for it, not the thread, when the time is over."""
        try:
            future: Future[Any] = self._pool.submit(call)
        except RuntimeError as error:
            message = f"{what}: no thread for a call of Bedrock: {error}"
            raise ProviderUnavailable(message, possibly_billed=False) from error
        waiting = asyncio.wrap_future(future)
        self._waiting.add(waiting)
        try:
            async with asyncio.timeout(timeout_s):
                return await waiting
        except TimeoutError as error:
            # A call that no thread had begun has cost nothing.
            has_begun = not future.cancelled() and not future.cancel()
            message = f"{what}: Bedrock did not answer within {timeout_s:g} s"
            raise ProviderTimeout(message, possibly_billed=has_begun) from error
        finally:
            self._waiting.discard(waiting)

    def _converse(self, request: InferenceRequest) -> InferenceAnswer:
        arguments = self._arguments(request)
        with _translated(request.model):
            response = self._client(request.timeout_s).converse(**arguments)
        if "stopReason" not in response:
            raise _foreign(request.model)
        usage = usage_of(response.get("usage"))
        reason = _finish(response["stopReason"], request.model, usage)
        blocks = response.get("output", {}).get("message", {}).get("content", [])
        return InferenceAnswer(
            # Reasoning, citations and tool blocks are not the answer; a model may send several text blocks.
            text="".join(block["text"] for block in blocks if "text" in block),
            model=request.model,
            finish_reason=reason,
            usage=usage,
            response_id=response["ResponseMetadata"].get("RequestId", ""),
        )

    def _read_stream(
        self,
        request: InferenceRequest,
        loop: asyncio.AbstractEventLoop,
        queue: asyncio.Queue[DeltaChunk | None],
        stopped: threading.Event,
    ) -> None:
        """Hand the pieces of a stream to the loop until it ends or nobody wants more."""
        arguments = self._arguments(request)
        with _translated(request.model):
            for chunk in self._pieces(request, arguments, stopped):
                # The loop may be gone when a thread outlives its call.
                with contextlib.suppress(RuntimeError):
                    loop.call_soon_threadsafe(queue.put_nowait, chunk)

    def _pieces(
        self, request: InferenceRequest, arguments: dict[str, Any], stopped: threading.Event
    ) -> Iterator[DeltaChunk]:
        response = self._client(request.timeout_s).converse_stream(**arguments)
        response_id = response["ResponseMetadata"].get("RequestId", "")
        stop_reason: str | None = None
        usage: Usage | None = None
        has_begun = False
        with contextlib.closing(response["stream"]) as events:
            try:
                for event in events:
                    if stopped.is_set():
                        return
                    has_begun = True
                    text = event.get("contentBlockDelta", {}).get("delta", {}).get("text")
                    if text:
                        yield DeltaChunk(text=text, model=request.model, response_id=response_id)
                    stop_reason = event.get("messageStop", {}).get("stopReason", stop_reason)
                    if "metadata" in event:
                        usage = usage_of(event["metadata"].get("usage"))
            except (*CALL_ERRORS, *_UNPARSED) as error:
                # Behind the stop reason comes the usage alone: the answer is whole without it.
                if stop_reason is None:
                    raise _broken_off(error, request.model, has_begun=has_begun) from error
        if stop_reason is None:
            message = f"Bedrock's stream of {request.model} ended without a stop reason"
            raise ProviderUnavailable(message, possibly_billed=True)
        reason = _finish(stop_reason, request.model, usage or Usage())
        yield DeltaChunk(finish_reason=reason, usage=usage, model=request.model, response_id=response_id)

    def _arguments(self, request: InferenceRequest) -> dict[str, Any]:
        arguments = converse_arguments(request)
        if request.output_schema is not None and self._settings.structured_output:
            structure = {"jsonSchema": {"schema": json.dumps(request.output_schema, sort_keys=True), "name": "answer"}}
            arguments["outputConfig"] = {"textFormat": {"type": "json_schema", "structure": structure}}
        return arguments

    def _client(self, timeout_s: float) -> Any:
        """Return the client whose read timeout suits: a boto3 client has one for all its calls.

        Powers of two keep the clients few, and a thread outlives its call by at most the time the call had.
        """
        read_timeout_s = max(_MIN_READ_TIMEOUT_S, 2 ** math.ceil(math.log2(max(timeout_s, 0.001))))
        with self._lock:
            if read_timeout_s not in self._clients:
                self._clients[read_timeout_s] = self._create_client(read_timeout_s)
            return self._clients[read_timeout_s]

    def _create_client(self, read_timeout_s: int) -> Any:
        settings = self._settings
        config = Config(
            max_pool_connections=settings.max_in_flight,
            # Retries are ours: they know the deadline and what a call costs.
            retries={"total_max_attempts": 1, "mode": "standard"},
            connect_timeout=settings.connect_timeout_s,
            read_timeout=read_timeout_s,
            tcp_keepalive=True,
            signature_version=UNSIGNED if self._bearer_token else None,
        )
        try:
            self._session = self._session or boto3.session.Session()
            client = self._session.client(
                "bedrock-runtime",
                region_name=settings.region,
                endpoint_url=settings.endpoint_url,
                config=config,
                # Given ones keep boto3 from asking the machine's metadata service; unsigned requests do not use them.
                aws_access_key_id="unused" if self._bearer_token else None,
                aws_secret_access_key="unused" if self._bearer_token else None,
            )
        except (BotoCoreError, ValueError) as error:
            message = f"providers (bedrock): {error}"
            raise ConfigError(message) from error
        client.meta.events.register("before-parse.bedrock-runtime.Converse", _mend_usage)
        if self._bearer_token:
            client.meta.events.register("before-send.bedrock-runtime", self._authorize)
        return client

    def _authorize(self, request: Any, **_: Any) -> None:
        request.headers["Authorization"] = f"Bearer {self._bearer_token}"


def converse_arguments(request: InferenceRequest) -> dict[str, Any]:
    """Return Converse's arguments for a request, without the output schema."""
    inference: dict[str, Any] = {"maxTokens": request.max_tokens}
    if request.temperature is not None:
        inference["temperature"] = request.temperature
    if request.stop:
        inference["stopSequences"] = list(request.stop)
    arguments: dict[str, Any] = {
        "modelId": request.model,
        "messages": [{"role": turn.role, "content": [{"text": turn.content}]} for turn in request.messages],
        "inferenceConfig": inference,
        "requestMetadata": _metadata(request),
    }
    if request.system:
        arguments["system"] = [{"text": request.system}]
    return arguments


def _metadata(request: InferenceRequest) -> dict[str, str]:
    """Return what the invocation log says about the call, in the characters it allows; the event id comes first."""
    entries = {"event_id": request.event_id} | request.metadata
    return {
        _NOT_METADATA.sub("_", key)[:_MAX_METADATA_CHARS]: _NOT_METADATA.sub("_", value)[:_MAX_METADATA_CHARS]
        for key, value in list(entries.items())[:_MAX_METADATA]
        if key
    }


@contextlib.contextmanager
def _translated(model: str) -> Iterator[None]:
    """Raise what boto3 raises in our words."""
    try:
        with with_credentials():
            yield
    except CALL_ERRORS as error:
        raise translate(error, model) from error
    except _UNPARSED as error:
        raise _foreign(model) from error


def _finish(stop_reason: str, model: str, usage: Usage) -> FinishReason:
    """Return how a call ended, as `finish`; an error says what the call has cost all the same."""
    try:
        return finish(stop_reason, model)
    except PenstockError as error:
        raise billed(error, usage) from None


def _broken_off(error: Exception, model: str, *, has_begun: bool) -> PenstockError:
    """Return what to raise for a stream that ends with an error."""
    fault = translate(error, model) if isinstance(error, CALL_ERRORS) else _foreign(model)
    if has_begun and isinstance(fault, Retryable):
        # Whatever it is, the model has read its question and begun to answer.
        fault.possibly_billed = True
    return fault


def _foreign(model: str) -> ProviderUnavailable:
    message = f"the answer for {model} is not Converse's; is endpoint_url right?"
    return ProviderUnavailable(message, possibly_billed=True)


def usage_of(usage: Any) -> Usage:
    """Return the tokens of a call as Converse reports them."""
    return Usage(*counts(usage, *_COUNTS))


class _UsualUsage(msgspec.Struct, rename="camel"):
    input_tokens: float | None = None
    output_tokens: float | None = None
    cache_read_input_tokens: float | None = None
    cache_write_input_tokens: float | None = None
    total_tokens: float | None = None
    # Its entries have input tokens too.
    cache_details: "list[_UsualUsage] | None" = None


class _UsualAnswer(msgspec.Struct):
    usage: _UsualUsage | None = None


_usual_answers = msgspec.json.Decoder(_UsualAnswer)


def _mend_usage(response_dict: dict[str, Any], **_: Any) -> None:
    """Take what is no count out of an answer: botocore's parser would raise, and lose what is paid for."""
    try:
        _usual_answers.decode(response_dict["body"])
    except (ValueError, RecursionError):
        with contextlib.suppress(ValueError, RecursionError):
            answer = json.loads(response_dict["body"])
            if isinstance(answer, dict) and "usage" in answer:
                answer["usage"] = dict(zip(_COUNTS, counts(answer["usage"], *_COUNTS), strict=True))
                response_dict["body"] = json.dumps(answer).encode()
