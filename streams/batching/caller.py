"""Between pipeline and provider: makes one event's request part of a call for several, as its route says.

Each event gets its own answer, error and share of the usage, so that nothing behind it knows about batches.
"""

import asyncio
import functools
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from contracts.errors import ConfigurationFault, PenstockError, ProviderTimeout, Retryable
from contracts.metrics import FM_BATCH_EVENTS, FM_BATCH_SPLITS, FM_TOKENS_SAVED
from contracts.payloads import InferenceAnswer, InferenceRequest, Usage
from contracts.settings import RouteSettings
from streams.engine.batcher import Batcher, Limits, Unmatched
from streams.providers.base import Provider, Several
from streams.steps.invoke import add_usage, invoke, invoke_many, share_out
from streams.steps.pack import Packer, spared_share, unpack

Caller = Callable[[InferenceRequest], Awaitable[InferenceAnswer]]
Many = Callable[[Sequence[InferenceRequest], float], Awaitable[Several]]
# The call's own time limit, when it is the same, is to be heard first: it knows better what happened.
_GRACE_S = 1.0
_LEAST_S = 0.001
_NOTHING = Usage()


def create_caller(route: RouteSettings, provider: Provider, schema: dict[str, Any] | None) -> Caller:
    """Return how the route's requests reach the provider.

    Args:
        route: its settings.
        provider: started.
        schema: of the route's output; packing needs one.
    """
    match route.batch.kind:
        case "none":
            return functools.partial(invoke, provider)
        case "inputs":
            return Batched(route, provider, functools.partial(invoke_many, provider))
        case "pack":
            packer = Packer(schema or {}, route.batch.max_answer_tokens)
            return Batched(route, provider, functools.partial(_invoke_packed, route.name, provider, packer))


async def _invoke_packed(
    route: str, provider: Provider, packer: Packer, requests: Sequence[InferenceRequest], timeout_s: float
) -> Several:
    packed, ids = packer.pack(requests, timeout_s)
    answer = await invoke(provider, packed)
    usage = answer.usage
    spared = spared_share(packed, requests) * (usage.input_tokens + usage.cache_read_tokens + usage.cache_write_tokens)
    FM_TOKENS_SAVED.labels(route).inc(max(0.0, spared))
    return Several(unpack(answer, ids), usage)


@dataclass(eq=False)
class _Entry:
    request: InferenceRequest
    ends_at: float
    size_bytes: int
    spent: Usage = _NOTHING
    is_sent: bool = False


class Batched:
    """Calls the provider for several requests at a time.

    Args:
        route: its name and its batch section.
        provider: for calls of one request.
        many: makes the call for several.
    """

    def __init__(self, route: RouteSettings, provider: Provider, many: Many) -> None:
        batch = route.batch
        self._route = route.name
        self._provider = provider
        self._many = many
        limits = Limits(batch.max_events, batch.max_bytes, batch.max_wait_s, batch.max_calls)
        self._batcher: Batcher[_Entry, InferenceAnswer] = Batcher(self._call, limits, _is_divisible)

    async def __call__(self, request: InferenceRequest) -> InferenceAnswer:
        """Return the event's own answer; its usage is its share of every call that was made for it.

        Raises:
            PenstockError: as `Provider.invoke`; `usage` is what calls that did not fail have cost before.
        """
        ends_at = asyncio.get_running_loop().time() + request.timeout_s
        size_bytes = sum(len(message.content.encode("utf-8", "replace")) for message in request.messages)
        entry = _Entry(request, ends_at, size_bytes)
        try:
            return await self._patiently(entry)
        except PenstockError as error:
            if entry.spent != _NOTHING:
                error.usage = entry.spent  # type: ignore[attr-defined]
            raise

    async def _patiently(self, entry: _Entry) -> InferenceAnswer:
        limit_s = entry.request.timeout_s
        # A question about an earlier answer is a dialogue of its own.
        is_alone = len(entry.request.messages) > 1
        try:
            async with asyncio.timeout(limit_s + _GRACE_S):
                return await self._batcher.submit(entry, entry.size_bytes, alone=is_alone)
        except TimeoutError as error:
            raise _too_late(entry) from error

    async def _call(self, entries: Sequence[_Entry]) -> Sequence[InferenceAnswer | Exception]:
        now_s = asyncio.get_running_loop().time()
        live = [entry for entry in entries if entry.ends_at > now_s]
        # The wait for others can outlast an event's own time, and what comes behind that would be paid for.
        outcomes = iter(await self._call_for(live) if live else ())
        return [next(outcomes) if entry.ends_at > now_s else _too_late(entry) for entry in entries]

    async def _call_for(self, entries: Sequence[_Entry]) -> Sequence[InferenceAnswer | Exception]:
        FM_BATCH_EVENTS.labels(self._route).observe(len(entries))
        # The most patient one decides: each of the others leaves when its own time is over.
        left_s = max(entry.ends_at for entry in entries) - asyncio.get_running_loop().time()
        timeout_s = max(left_s, _LEAST_S)
        for entry in entries:
            entry.is_sent = True
        if len(entries) == 1:
            return [await self._alone(entries[0], timeout_s)]
        try:
            several = await self._many([entry.request for entry in entries], timeout_s)
        except Exception as error:
            if _is_divisible(error):
                self._split(getattr(error, "reason", "internal"))
            raise
        return self._each(entries, several)

    async def _alone(self, entry: _Entry, timeout_s: float) -> InferenceAnswer | Exception:
        """Return the outcome of an entry that is left of its batch: a failure is its own, and nothing to split."""
        try:
            return await self._single(entry, timeout_s)
        except Exception as error:  # noqa: BLE001 - every failure is this event's outcome
            return error

    async def _single(self, entry: _Entry, timeout_s: float) -> InferenceAnswer:
        answer = await invoke(self._provider, msgspec.structs.replace(entry.request, timeout_s=timeout_s))
        return msgspec.structs.replace(answer, usage=add_usage(entry.spent, answer.usage))

    def _each(self, entries: Sequence[_Entry], several: Several) -> list[InferenceAnswer | Exception]:
        answered = [len(one.text) if isinstance(one, InferenceAnswer) else 0 for one in several.answers]
        shares = share_out(several.usage, [entry.size_bytes for entry in entries], answered)
        for entry, share in zip(entries, shares, strict=True):
            entry.spent = add_usage(entry.spent, share)
        if any(one is None for one in several.answers):
            self._split("unmatched")
        if all(one is None for one in several.answers):
            raise Unmatched
        return [_outcome(entry, one) for entry, one in zip(entries, several.answers, strict=True)]

    def _split(self, reason: str) -> None:
        FM_BATCH_SPLITS.labels(self._route, reason).inc()


def _too_late(entry: _Entry) -> ProviderTimeout:
    what = "was not answered" if entry.is_sent else "found no free call"
    message = f"event {entry.request.event_id} {what} within {entry.request.timeout_s:g} s"
    return ProviderTimeout(message, possibly_billed=entry.is_sent)


def _outcome(entry: _Entry, answer: InferenceAnswer | PenstockError | None) -> InferenceAnswer | Exception:
    if answer is None:
        return Unmatched()
    return msgspec.structs.replace(answer, usage=entry.spent) if isinstance(answer, InferenceAnswer) else answer


def _is_divisible(error: Exception) -> bool:
    """Tell whether one event may have caused it: also a bug may show with one event only."""
    return not isinstance(error, Retryable | ConfigurationFault)


def usage_before(error: PenstockError) -> Usage | None:
    """Return what was spent on an event before its last call failed; None for the ordinary case of nothing."""
    return getattr(error, "usage", None)
