"""Serves scripted answers and faults, and counts the calls of each event: for tests, chaos runs and demos.

Steps are tried in order; the first that matches, is not used up and wins its dice serves the call. A call that no step
wants is answered by extraction from its prompt.
"""

import asyncio
import json
import random
import re
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Sequence
from typing import Any, Literal

import msgspec
import yaml
from pydantic import Field, ValidationError

from contracts.errors import (
    AccessDenied,
    CertificateRefused,
    ConfigError,
    ContentBlocked,
    ContextTooLong,
    InvalidRequest,
    ModelNotFound,
    PenstockError,
    ProviderTimeout,
    ProviderUnavailable,
    QuotaExhausted,
    Retryable,
    Throttled,
    UnknownHost,
)
from contracts.payloads import DeltaChunk, FinishReason, InferenceAnswer, InferenceRequest, Usage
from contracts.settings.models import FakeProvider
from contracts.settings.section import Section
from streams.providers.base import Several
from streams.providers.extract import embedding
from streams.providers.extract.answer import answer, cut, estimate_tokens

_MAX_COUNTED_EVENTS = 100_000
_MAX_SIZES = 10_000
_PIECE = re.compile(r"\s*\S+|\s+")
_KINDS: dict[str, type[PenstockError]] = {
    kind.reason: kind
    for kind in (
        Throttled, ProviderUnavailable, ProviderTimeout, InvalidRequest, ContentBlocked, ContextTooLong, AccessDenied,
        ModelNotFound, QuotaExhausted, UnknownHost, CertificateRefused,
    )
}  # fmt: skip
ErrorSlug = Literal[
    "throttled", "provider_unavailable", "provider_timeout", "invalid_request", "content_blocked", "context_too_long",
    "access_denied", "model_not_found", "quota_exhausted", "unknown_host", "certificate_refused",
]  # fmt: skip


class Step(Section):
    """What happens to the calls that this step serves."""

    match: str | None = None
    """Serves only calls whose event id this is, or whose prompt contains it; every call when absent."""
    times: int | None = Field(default=None, ge=1)
    """Serves so many calls in all; unlimited when absent."""
    times_per_event: int | None = Field(default=None, ge=1)
    """Serves so many calls of each event; unlimited when absent."""
    probability: float = Field(default=1.0, ge=0, le=1)
    """Serves this share of the calls it could, by the seed."""
    latency_s: float = Field(default=0.0, ge=0)
    """Time before the answer or the error, seconds."""
    hang: bool = False
    """Never answers: the call ends with its timeout."""
    error: ErrorSlug | None = None
    """Raises this kind of error instead of answering."""
    retry_after_s: float | None = Field(default=None, ge=0)
    """Wait that the error asks for, seconds."""
    possibly_billed: bool | None = None
    """What the error says about payment; its kind's default when absent."""
    answer: Any = None
    """Text, or a value that becomes JSON; an extract of the prompt when absent."""
    finish_reason: FinishReason = "stop"
    """How the answer says it ended."""


class Fake:
    """Plays a script.

    Attributes:
        calls: event id -> calls that arrived, errors and hangs included; the oldest of 100,000 events are forgotten.
        answered: event id -> calls that were answered, which a real provider would have billed.
        in_flight: calls at this moment.
        peak_in_flight: the most there were at a time.
        sizes: how many inputs each of the last 10,000 calls had, in their order.
    """

    name = "fake"

    def __init__(self, settings: FakeProvider) -> None:
        self._steps = _steps(settings)
        self._dice = random.Random(settings.seed)  # noqa: S311 - reproducible on purpose
        self._used = [0] * len(self._steps)
        self._used_by_event: OrderedDict[tuple[int, str], int] = OrderedDict()
        self.calls: OrderedDict[str, int] = OrderedDict()
        self.answered: OrderedDict[str, int] = OrderedDict()
        self.in_flight = 0
        self.peak_in_flight = 0
        self.sizes: deque[int] = deque(maxlen=_MAX_SIZES)
        self._waiting: set[asyncio.Task[Any]] = set()

    async def start(self) -> None:
        """Open nothing."""

    async def aclose(self) -> None:
        """Cancel calls in flight."""
        for call in list(self._waiting):
            call.cancel()

    async def invoke(self, request: InferenceRequest) -> InferenceAnswer:
        """Return what the script says."""
        self.sizes.append(1)
        _count(self.calls, request.event_id)
        step = self._choose(request)
        await self._play(step, request, request.timeout_s)
        return self._answer(step, request)

    async def invoke_many(self, requests: Sequence[InferenceRequest], timeout_s: float) -> Several:
        """Return what the script says to each; the call takes as long as its slowest, and fails with the first."""
        self.sizes.append(len(requests))
        steps = []
        for request in requests:
            _count(self.calls, request.event_id)
            steps.append(self._choose(request))
        deciding, asked = max(
            zip(steps, requests, strict=True),
            key=lambda pair: (pair[0].error is not None, pair[0].hang, pair[0].latency_s),
        )
        await self._play(deciding, asked, timeout_s)
        answers = [self._answer(step, request) for step, request in zip(steps, requests, strict=True)]
        usage = Usage(sum(one.usage.input_tokens for one in answers), sum(one.usage.output_tokens for one in answers))
        return Several(tuple(msgspec.structs.replace(one, usage=Usage()) for one in answers), usage)

    async def _play(self, step: Step, request: InferenceRequest, timeout_s: float) -> None:
        """Wait, and fail, as the step says."""
        call = asyncio.current_task()
        if call is not None:
            self._waiting.add(call)
        self.in_flight += 1
        self.peak_in_flight = max(self.peak_in_flight, self.in_flight)
        try:
            async with asyncio.timeout(timeout_s):
                await asyncio.sleep(step.latency_s)
                if step.hang:
                    await asyncio.Event().wait()
        except TimeoutError as error:
            message = f"event {request.event_id}: the script did not answer within {timeout_s:g} s"
            raise ProviderTimeout(message) from error
        finally:
            self.in_flight -= 1
            if call is not None:
                self._waiting.discard(call)
        if step.error is not None:
            raise _error(step, request)

    async def stream(self, request: InferenceRequest) -> AsyncIterator[DeltaChunk]:
        """Yield what the script says, word by word."""
        whole = await self.invoke(request)
        for piece in _PIECE.findall(whole.text):
            yield DeltaChunk(text=piece, model=whole.model, response_id=whole.response_id)
        yield DeltaChunk(
            finish_reason=whole.finish_reason, usage=whole.usage, model=whole.model, response_id=whole.response_id
        )

    def _choose(self, request: InferenceRequest) -> Step:
        prompt = "\n".join(message.content for message in request.messages)
        for index, step in enumerate(self._steps):
            seen = self._used_by_event.get((index, request.event_id), 0)
            is_used_up = self._used[index] == step.times or seen == step.times_per_event
            is_meant = step.match is None or step.match == request.event_id or step.match in prompt
            if is_meant and not is_used_up and self._dice.random() < step.probability:
                self._used[index] += 1
                _count(self._used_by_event, (index, request.event_id))
                return step
        return Step()

    def _answer(self, step: Step, request: InferenceRequest) -> InferenceAnswer:
        texts = [message.content for message in request.messages if message.role == "user"]
        is_vector = request.task == "embedding"
        if step.answer is None and is_vector:
            full = embedding.as_json("\n".join(texts))
        elif step.answer is None:
            full = answer(texts, request.output_schema)
        else:
            full = step.answer if isinstance(step.answer, str) else json.dumps(step.answer, ensure_ascii=False)
        text, is_cut = (full, False) if is_vector else cut(full, request.max_tokens)
        _count(self.answered, request.event_id)
        asked_tokens = estimate_tokens("\n".join([request.system, *texts]))
        return InferenceAnswer(
            text=text,
            model=request.model,
            finish_reason="length" if is_cut else step.finish_reason,
            usage=Usage(asked_tokens, 0 if is_vector else estimate_tokens(text)),
            response_id=f"fake-{request.event_id}-{self.calls.get(request.event_id, 1)}",
        )


def _count(counts: OrderedDict[Any, int], key: Any) -> None:
    counts[key] = counts.get(key, 0) + 1
    counts.move_to_end(key)
    if len(counts) > _MAX_COUNTED_EVENTS:
        counts.popitem(last=False)


def _error(step: Step, request: InferenceRequest) -> PenstockError:
    kind = _KINDS[str(step.error)]
    message = f"scripted {step.error} for event {request.event_id}"
    if not issubclass(kind, Retryable):
        return kind(message)
    if step.possibly_billed is None:
        return kind(message, retry_after_s=step.retry_after_s)
    return kind(message, retry_after_s=step.retry_after_s, possibly_billed=step.possibly_billed)


def _steps(settings: FakeProvider) -> list[Step]:
    raw: Any = list(settings.script)
    where = "script"
    if settings.script_file is not None:
        where = str(settings.script_file)
        try:
            raw = [*raw, *(yaml.safe_load(settings.script_file.read_text(encoding="utf-8")) or [])]
        except (OSError, ValueError, TypeError, yaml.YAMLError) as error:
            message = f"providers (fake): {where} is not a list of steps: {error}"
            raise ConfigError(message) from error
    steps = []
    for number, item in enumerate(raw, start=1):
        try:
            steps.append(Step.model_validate(item))
        except ValidationError as error:
            problem = error.errors()[0]
            field = ".".join(map(str, problem["loc"])) or "step"
            message = f"providers (fake): {where}, step {number}, {field}: {problem['msg']}"
            raise ConfigError(message) from error
    return steps
