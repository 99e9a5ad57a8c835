"""Between pipeline and provider: makes a call for one event, or its request part of one for several, as its route says.

Each event gets its own answer, error and share of the usage, so that nothing behind it knows about batches.
"""

import asyncio
import functools
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from contracts.errors import ConfigurationFault, PenstockError, ProviderTimeout, Retryable, Throttled, as_unsent
from contracts.metrics import FM_BATCH_EVENTS, FM_BATCH_SPLITS, FM_TOKENS_SAVED
from contracts.payloads import InferenceAnswer, InferenceRequest, Usage
from contracts.settings import RouteSettings
from streams.engine.batcher import Batcher, Limits, Unmatched, as_echo, as_shared
from streams.engine.calls import asked_for
from streams.providers.base import (
    AnswerTooLong,
    Provider,
    Several,
    add_usage,
    carried_usage,
    carry_usage,
    is_full,
    place_of,
)
from streams.steps.invoke import invoke, invoke_many, share_out
from streams.steps.pack import Packer, spared_share, unpack

Caller = Callable[[InferenceRequest], Awaitable[InferenceAnswer]]
One = Callable[[Provider, InferenceRequest], Awaitable[InferenceAnswer]]
Many = Callable[[Provider, Sequence[InferenceRequest], float], Awaitable[Several]]
# The call's own time limit, when it is the same, is to be heard first: it knows better what happened.
_GRACE_S = 1.0
_LEAST_S = 0.001
_NOTHING = Usage()


class RouteCaller(Protocol):
    """Makes the calls of a route's events."""

    async def __call__(self, request: InferenceRequest, is_wanted: Callable[[], bool] = ...) -> InferenceAnswer:
        """Return the event's own answer.

        Args:
            request: the event's.
            is_wanted: asked right before a call that had to wait for something: nobody may want it any more.

        Raises:
            PenstockError: as `Provider.invoke`.
        """
        ...


def create_caller(route: RouteSettings, provider: Provider, schema: dict[str, Any] | None) -> RouteCaller:
    """Return how the route's requests reach the provider.

    Args:
        route: its settings.
        provider: started.
        schema: of the route's output; packing needs one.
    """
    match route.batch.kind:
        case "none":
            return functools.partial(call_one, provider, invoke)
        case "inputs":
            return Batched(route, provider, invoke_many)
        case "pack":
            packer = Packer(schema or {}, route.batch.max_answer_tokens)
            return Batched(route, provider, functools.partial(_invoke_packed, route.name, packer))


async def call_one(
    provider: Provider, call: One, request: InferenceRequest, is_wanted: Callable[[], bool] = lambda: True
) -> InferenceAnswer:
    """Make a call for one event, but for one that nobody wants any more when the provider has a place for it.

    Raises:
        PenstockError: as `Provider.invoke`.
    """
    if not is_full(provider):
        return await call(provider, request)
    ends_at = asyncio.get_running_loop().time() + request.timeout_s
    async with place_of(provider, request.event_id, request.timeout_s) as placed:
        if not is_wanted():
            message = f"event {request.event_id} was given up before there was a place for its call"
            # It is no failure of the provider.
            raise as_echo(ProviderTimeout(message, possibly_billed=False))
        left_s = max(ends_at - asyncio.get_running_loop().time(), _LEAST_S)
        return await call(placed, msgspec.structs.replace(request, timeout_s=left_s))


async def _invoke_packed(
    route: str, packer: Packer, provider: Provider, requests: Sequence[InferenceRequest], timeout_s: float
) -> Several:
    packed, ids = packer.pack(requests, timeout_s)
    answer = await invoke(provider, packed)
    usage, answers = answer.usage, unpack(answer, ids)
    # The others are called again.
    answered = [request for request, one in zip(requests, answers, strict=True) if one is not None]
    spared = spared_share(packed, answered) * (usage.input_tokens + usage.cache_read_tokens + usage.cache_write_tokens)
    FM_TOKENS_SAVED.labels(route).inc(max(0.0, spared))
    return Several(answers, usage)


@dataclass(eq=False)
class _Sent:
    """One call under way, and how many of its events wait for it."""

    waiting: int


@dataclass(eq=False)
class _Entry:
    """One event's request.

    Attributes:
        patience: ends the event's wait; None when it does not wait any more.
        sent: the call that it is in; None while there is none.
        shared_by: for how many events the newest call was made that it was in; 0 = there was none yet.
    """

    request: InferenceRequest
    ends_at: float
    size_bytes: int
    is_wanted: Callable[[], bool]
    spent: Usage = _NOTHING
    patience: asyncio.Timeout | None = None
    sent: _Sent | None = None
    shared_by: int = 0


class Batched:
    """Calls the provider for several requests at a time.

    Args:
        route: its name and its batch section.
        provider: of all calls.
        many: makes a call for several, with the provider that it is given.
    """

    def __init__(self, route: RouteSettings, provider: Provider, many: Many) -> None:
        batch = route.batch
        self._route = route.name
        self._provider = provider
        self._many = many
        limits = Limits(batch.max_events, batch.max_bytes, batch.max_wait_s, batch.max_calls)
        self._batcher: Batcher[_Entry, InferenceAnswer] = Batcher(self._call, limits, _is_divisible)

    async def __call__(
        self, request: InferenceRequest, is_wanted: Callable[[], bool] = lambda: True, *, alone: bool = False
    ) -> InferenceAnswer:
        """Return the event's own answer; its usage is its share of every call that was made for it.

        Args:
            request: the event's.
            is_wanted: asked right before a call is made for it: nobody may want it any more.
            alone: it must not share a call.

        Raises:
            PenstockError: as `Provider.invoke`; `usage` is what is known to have been spent on the event by then.
        """
        ends_at = asyncio.get_running_loop().time() + request.timeout_s
        entry = _Entry(request, ends_at, _size_bytes(request), is_wanted)
        try:
            return await self._patiently(entry, alone=alone)
        except asyncio.CancelledError as cancelled:
            if not entry.shared_by:
                as_unsent(cancelled)
            raise
        except Exception as error:
            if entry.shared_by > 1 and isinstance(error, Retryable) and not isinstance(error, Throttled):
                as_shared(error)
            carry_usage(error, entry.spent)
            raise

    async def _patiently(self, entry: _Entry, *, alone: bool) -> InferenceAnswer:
        limit_s = entry.request.timeout_s
        # A question about an earlier answer is a dialogue of its own.
        is_alone = alone or len(entry.request.messages) > 1
        try:
            async with asyncio.timeout(limit_s + _GRACE_S) as entry.patience:
                return await self._batcher.submit(entry, entry.size_bytes, alone=is_alone)
        except TimeoutError as error:
            raise _too_late(entry) from error
        finally:
            entry.patience = None
            if entry.sent is not None:
                entry.sent.waiting -= 1

    async def _call(self, entries: Sequence[_Entry]) -> Sequence[InferenceAnswer | Exception]:
        # The most patient one decides: each of the others leaves when its own time is over.
        limit_s = max(entry.ends_at for entry in entries) - asyncio.get_running_loop().time()
        if limit_s <= 0:
            return [_too_late(entry) for entry in entries]
        async with place_of(self._provider, entries[0].request.event_id, limit_s) as provider:
            # Not before there is a place: the wait for it can outlast an event's own time, as that for others can.
            live = _live(entries)
            outcomes = iter(await self._call_for(live, provider) if live else ())
        sent = set(live)
        return [next(outcomes) if entry in sent else _too_late(entry) for entry in entries]

    async def _call_for(self, entries: Sequence[_Entry], provider: Provider) -> Sequence[InferenceAnswer | Exception]:
        FM_BATCH_EVENTS.labels(self._route).observe(len(entries))
        left_s = max(entry.ends_at for entry in entries) - asyncio.get_running_loop().time()
        timeout_s = max(left_s, _LEAST_S)
        sent = _Sent(len(entries))
        for entry in entries:
            entry.sent, entry.shared_by = sent, len(entries)
        try:
            if len(entries) == 1:
                return [await self._alone(entries[0], provider, timeout_s)]
            return self._each(entries, await self._several(entries, provider, timeout_s))
        except asyncio.CancelledError as cancelled:
            # One that nobody has asked for is a failure, and the call's: each event would take it for one of its own.
            raise asked_for(cancelled) from None
        finally:
            for entry in entries:
                entry.sent = None

    async def _several(self, entries: Sequence[_Entry], provider: Provider, timeout_s: float) -> Several:
        try:
            return await self._many(provider, [entry.request for entry in entries], timeout_s)
        except Exception as error:
            if (spent := carried_usage(error)) is not None:
                # Each event tells of its share: the error of one is a copy of another's, or nobody's when it is split.
                del error.usage  # type: ignore[attr-defined]
                self._share(entries, spent, [0] * len(entries))
            if _is_divisible(error):
                self._split(getattr(error, "reason", "internal"))
            raise

    async def _alone(self, entry: _Entry, provider: Provider, timeout_s: float) -> InferenceAnswer | Exception:
        """Return the outcome of an entry that is left of its batch: a failure is its own, and nothing to split."""
        try:
            answer = await invoke(provider, msgspec.structs.replace(entry.request, timeout_s=timeout_s))
        except Exception as error:  # noqa: BLE001 - every failure is this event's outcome
            return error
        return msgspec.structs.replace(answer, usage=add_usage(entry.spent, answer.usage))

    def _each(self, entries: Sequence[_Entry], several: Several) -> list[InferenceAnswer | Exception]:
        sizes = [len(one.text) if isinstance(one, InferenceAnswer) else 0 for one in several.answers]
        self._share(entries, several.usage, sizes)
        if any(one is None for one in several.answers):
            self._split("unmatched")
        if all(one is None for one in several.answers):
            raise Unmatched
        return [_outcome(entry, one) for entry, one in zip(entries, several.answers, strict=True)]

    @staticmethod
    def _share(entries: Sequence[_Entry], usage: Usage, answered: Sequence[int]) -> None:
        """Add to each event its part of what a call has cost; `answered` are the sizes of the answers."""
        # Who has left has no share, which nobody would book: those of the others add up to what was reported.
        asked = [entry.size_bytes if entry.patience is not None else 0 for entry in entries]
        stayed = [size if entry.patience is not None else 0 for entry, size in zip(entries, answered, strict=True)]
        for entry, share in zip(entries, share_out(usage, asked, stayed), strict=True):
            entry.spent = add_usage(entry.spent, share)

    def _split(self, reason: str) -> None:
        FM_BATCH_SPLITS.labels(self._route, reason).inc()


def _size_bytes(request: InferenceRequest) -> int:
    """Return what an event adds to a call: with its instructions, where they go out with every prompt."""
    texts = [message.content for message in request.messages]
    if request.task == "completion":
        texts.append(request.system)
    return sum(len(text.encode("utf-8", "replace")) for text in texts)


def _live(entries: Sequence[_Entry]) -> list[_Entry]:
    """Return those that a call is to be made for now; the others are let go of, now and not behind that call.

    What comes behind an event's own time would be paid for and not waited for.
    """
    now_s, live = asyncio.get_running_loop().time(), []
    for entry in entries:
        if entry.patience is None or entry.patience.expired():
            continue
        if entry.ends_at > now_s and entry.is_wanted():
            live.append(entry)
        else:
            entry.patience.reschedule(now_s)
    return live


def _too_late(entry: _Entry) -> ProviderTimeout:
    sent = entry.sent
    what = "found no free call" if sent is None else "was not answered"
    message = f"event {entry.request.event_id} {what} within {entry.request.timeout_s:g} s"
    error = ProviderTimeout(message, possibly_billed=sent is not None)
    # What becomes of a call is told by those that stay to its end: it fails once.
    is_told = sent.waiting > 1 if sent is not None else not entry.is_wanted()
    return as_echo(error) if is_told else error


def _outcome(entry: _Entry, answer: InferenceAnswer | PenstockError | None) -> InferenceAnswer | Exception:
    if answer is None:
        return Unmatched()
    return msgspec.structs.replace(answer, usage=entry.spent) if isinstance(answer, InferenceAnswer) else answer


def _is_divisible(error: Exception) -> bool:
    """Tell whether fewer events may do better: one may have caused it, also a bug, or the answer was too long."""
    return isinstance(error, AnswerTooLong) or not isinstance(error, Retryable | ConfigurationFault)
