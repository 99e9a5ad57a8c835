"""Counts and times a provider's calls."""

import contextlib
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

from contracts.errors import PenstockError
from contracts.metrics import FM_DURATION, FM_INFLIGHT, FM_REQUESTS, FM_TOKENS
from contracts.payloads import DeltaChunk, InferenceAnswer, InferenceRequest, Usage
from contracts.tallies import Tally
from streams.providers.base import (
    Arrivals,
    Direct,
    Provider,
    Several,
    Waiter,
    arrivals_of,
    carried_usage,
    direct_of,
    several_inputs,
)

_requests = Tally(FM_REQUESTS, FM_DURATION)
_tokens = Tally(FM_TOKENS, adds=True)
# Calls in flight by provider, and of how many of them the answer has come; the gauge looks here when it is read.
_calling: Counter[str] = Counter()
_arrivals: defaultdict[str, list[Arrivals]] = defaultdict(list)


def _in_flight(name: str) -> int:
    return _calling[name] - sum(arrivals.count for arrivals in _arrivals[name])


class Measured:
    """A provider whose calls appear in the fm_* metrics; models are labels, so they must come from configuration."""

    def __init__(self, provider: Provider, clock: Callable[[], float] = time.monotonic) -> None:
        self._provider = provider
        self._clock = clock
        self._name = name = provider.name
        self._direct: Direct | None = None
        self.arrivals = arrivals_of(provider)
        _arrivals[name].append(self.arrivals)
        FM_INFLIGHT.labels(name).set_function(lambda: _in_flight(name))

    @property
    def name(self) -> str:
        """The wrapped provider's name."""
        return self._name

    async def start(self) -> None:
        """Start the wrapped provider."""
        await self._provider.start()
        self._direct = direct_of(self._provider)

    async def aclose(self) -> None:
        """Close the wrapped provider."""
        await self._provider.aclose()

    async def invoke(self, request: InferenceRequest) -> InferenceAnswer:
        """Return the wrapped provider's answer."""
        outcome = "cancelled"
        began_at_s = self._begin()
        try:
            answer = await self._provider.invoke(request)
            outcome = "ok"
        except PenstockError as error:
            outcome = error.reason
            self._count_spent(request, error)
            raise
        finally:
            self._end(request, outcome, began_at_s)
        self._count_tokens(request, answer.usage)
        return answer

    @property
    def direct(self) -> Direct | None:
        """Return this wrapper where the wrapped provider, once started, calls without a task."""
        return self if self._direct is not None else None

    def begin(self, request: InferenceRequest, waiter: Waiter) -> bool:
        """Have the wrapped provider make a call; see Direct."""
        if self._direct is None or not self._direct.begin(request, waiter):
            return False
        _calling[self._name] += 1
        return True

    def read(self, outcome: Any, request: InferenceRequest, took_s: float) -> InferenceAnswer:
        """Return the wrapped provider's answer."""
        assert self._direct is not None  # noqa: S101 - for the type checker: a call was begun
        _calling[self._name] -= 1
        try:
            answer = self._direct.read(outcome, request, took_s)
        except PenstockError as error:
            _requests[self._name, request.model, error.reason].append(took_s)
            self._count_spent(request, error)
            raise
        _requests[self._name, request.model, "ok"].append(took_s)
        self._count_tokens(request, answer.usage)
        return answer

    async def invoke_many(self, requests: Sequence[InferenceRequest], timeout_s: float) -> Several:
        """Return the wrapped provider's answers; they count as one call."""
        with self._measure(requests[0]):
            several = await several_inputs(self._provider).invoke_many(requests, timeout_s)
        self._count_tokens(requests[0], several.usage)
        return several

    async def stream(self, request: InferenceRequest) -> AsyncIterator[DeltaChunk]:
        """Yield the wrapped provider's pieces."""
        with self._measure(request):
            async with contextlib.AsyncExitStack() as stack:
                pieces = self._provider.stream(request)
                close = getattr(pieces, "aclose", None)
                if close is not None:
                    stack.push_async_callback(close)
                async for piece in pieces:
                    if piece.usage is not None:
                        self._count_tokens(request, piece.usage)
                    yield piece

    @contextlib.contextmanager
    def _measure(self, request: InferenceRequest) -> Iterator[None]:
        outcome = "cancelled"
        began_at_s = self._begin()
        try:
            yield
            outcome = "ok"
        except PenstockError as error:
            outcome = error.reason
            self._count_spent(request, error)
            raise
        finally:
            self._end(request, outcome, began_at_s)

    def _begin(self) -> float:
        _calling[self._name] += 1
        return self._clock()

    def _end(self, request: InferenceRequest, outcome: str, began_at_s: float) -> None:
        _calling[self._name] -= 1
        _requests[self._name, request.model, outcome].append(self._clock() - began_at_s)

    def _count_spent(self, request: InferenceRequest, error: PenstockError) -> None:
        if (usage := carried_usage(error)) is not None:
            self._count_tokens(request, usage)

    def _count_tokens(self, request: InferenceRequest, usage: Usage) -> None:
        # Written out: a loop over four pairs costs twice as much.
        name, model = self._name, request.model
        if usage.input_tokens:
            _tokens[name, model, "input"].append(usage.input_tokens)
        if usage.output_tokens:
            _tokens[name, model, "output"].append(usage.output_tokens)
        if usage.cache_read_tokens:
            _tokens[name, model, "cache_read"].append(usage.cache_read_tokens)
        if usage.cache_write_tokens:
            _tokens[name, model, "cache_write"].append(usage.cache_write_tokens)
