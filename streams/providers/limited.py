"""Bounds how many calls a provider serves at a time; further ones wait."""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec

from contracts.errors import ProviderTimeout, as_unsent
from contracts.metrics import FM_CONCURRENCY_LIMIT
from contracts.payloads import DeltaChunk, InferenceAnswer, InferenceRequest
from streams.providers.base import Direct, Provider, Several, Waiter, arrivals_of, direct_of, several_inputs


class Limited:
    """A provider with at most `max_in_flight` calls; the wait counts against the request's timeout."""

    def __init__(self, provider: Provider, max_in_flight: int) -> None:
        self._provider = provider
        self._max_in_flight = max_in_flight
        self.arrivals = arrivals_of(provider)
        # Calls whose answer has come are counted here and in `arrivals`.
        self._taken = 0
        self._direct: Direct | None = None
        self._waiters: deque[asyncio.Future[None]] = deque()
        self.arrivals.listeners.append(self._let_in)

    @property
    def name(self) -> str:
        """The wrapped provider's name."""
        return self._provider.name

    async def start(self) -> None:
        """Start the wrapped provider."""
        FM_CONCURRENCY_LIMIT.labels(self.name).set(self._max_in_flight)
        await self._provider.start()
        self._direct = direct_of(self._provider)

    async def aclose(self) -> None:
        """Close the wrapped provider."""
        await self._provider.aclose()

    async def invoke(self, request: InferenceRequest) -> InferenceAnswer:
        """Return the wrapped provider's answer, once there is a slot."""
        if self._waiters or not self._has_room:
            async with self._slot(request) as remaining:
                return await self._provider.invoke(remaining)
        # The ordinary case, without a timer: there is a slot.
        self._taken += 1
        try:
            return await self._provider.invoke(request)
        finally:
            self._give_back()

    @property
    def direct(self) -> Direct | None:
        """Return this wrapper where the wrapped provider, once started, calls without a task."""
        return self if self._direct is not None else None

    def begin(self, request: InferenceRequest, waiter: Waiter) -> bool:
        """Have the wrapped provider make a call, if there is a slot; see Direct."""
        if self._direct is None or self._waiters or not self._has_room or not self._direct.begin(request, waiter):
            return False
        self._taken += 1
        return True

    def read(self, outcome: Any, request: InferenceRequest, took_s: float) -> InferenceAnswer:
        """Return the wrapped provider's answer."""
        assert self._direct is not None  # noqa: S101 - for the type checker: a call was begun
        self._give_back()
        return self._direct.read(outcome, request, took_s)

    async def invoke_many(self, requests: Sequence[InferenceRequest], timeout_s: float) -> Several:
        """Return the wrapped provider's answers, once there is a slot; they take one."""
        async with self._slot(msgspec.structs.replace(requests[0], timeout_s=timeout_s)) as remaining:
            return await several_inputs(self._provider).invoke_many(requests, remaining.timeout_s)

    async def stream(self, request: InferenceRequest) -> AsyncIterator[DeltaChunk]:
        """Yield the wrapped provider's pieces, once there is a slot."""
        async with self._slot(request) as remaining, contextlib.AsyncExitStack() as stack:
            pieces = self._provider.stream(remaining)
            close = getattr(pieces, "aclose", None)
            if close is not None:
                stack.push_async_callback(close)
            async for piece in pieces:
                yield piece

    @contextlib.asynccontextmanager
    async def place(self, event_id: str, timeout_s: float) -> AsyncIterator[Provider]:
        """Yield the wrapped provider, once there is a slot; see Placing."""
        await self._take_within(event_id, timeout_s)
        try:
            yield self._provider
        finally:
            self._give_back()

    @contextlib.asynccontextmanager
    async def _slot(self, request: InferenceRequest) -> AsyncIterator[InferenceRequest]:
        """Yield the request with the time that is left once it has a slot."""
        began_at_s = time.monotonic()
        await self._take_within(request.event_id, request.timeout_s)
        try:
            left_s = request.timeout_s - (time.monotonic() - began_at_s)
            yield msgspec.structs.replace(request, timeout_s=max(left_s, 0.001))
        finally:
            self._give_back()

    async def _take_within(self, event_id: str, timeout_s: float) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                await self._take()
        except TimeoutError as error:
            message = f"event {event_id}: no free slot of {self._max_in_flight} within {timeout_s:g} s"
            raise ProviderTimeout(message, possibly_billed=False) from error

    async def _take(self) -> None:
        """Take a slot, in the order of arrival."""
        if not self._waiters and self._has_room:
            self._taken += 1
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        self._let_in()
        try:
            await waiter
        except asyncio.CancelledError as cancelled:
            as_unsent(cancelled)
            if waiter.done() and not waiter.cancelled():
                # The slot was handed over in the same moment.
                self._give_back()
            raise

    @property
    def is_full(self) -> bool:
        """Tell whether the next call would wait for a place: nobody overtakes who waits."""
        return bool(self._waiters) or not self._has_room

    @property
    def _has_room(self) -> bool:
        return self._taken - self.arrivals.count < self._max_in_flight

    def _give_back(self) -> None:
        self._taken -= 1
        if self._waiters:
            self._let_in()

    def _let_in(self) -> None:
        """Hand free places to who waits longest; an answer that comes makes one free, too."""
        while self._waiters and self._has_room:
            waiter = self._waiters.popleft()
            if not waiter.done():
                self._taken += 1
                waiter.set_result(None)
