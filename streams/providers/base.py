"""The protocol between the invoke step and whoever serves models."""

import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, runtime_checkable
from urllib.parse import urlsplit

from contracts.errors import (
    CertificateRefused,
    ConfigError,
    ConfigurationFault,
    PenstockError,
    ProviderUnavailable,
    UnknownHost,
)
from contracts.payloads import DeltaChunk, InferenceAnswer, InferenceRequest, Usage

# Far above what any call can have.
MAX_TOKENS = 10**9
# A rate refills within a minute or some. What asks for a longer wait is a quota of the day by another name, as Azure's
# "retry after 86400 seconds": it meets every event, and would end one after the other as expired.
QUOTA_WAIT_S = 600.0
E = TypeVar("E", bound=Exception)
_NOTHING = Usage()


@runtime_checkable
class Provider(Protocol):
    """Serves models; safe for concurrent use by the tasks of one event loop.

    Lifecycle: the constructor does no network; `start` may, `aclose` ends every connection and thread it opened and is
    safe to call twice. A provider does not retry: deadlines, budgets and cost are the caller's (engine/retries).

    Errors, for both calls: Throttled, ProviderUnavailable, ProviderTimeout (the caller may try again), InvalidRequest,
    ContentBlocked, ContextTooLong (this event is done), AccessDenied, ModelNotFound, QuotaExhausted, UnknownHost,
    CertificateRefused (every event would fail: pause). Nothing else leaves a provider, except CancelledError; a
    cancelled call frees its connection. An error whose call the provider has counted tokens for says so: see `billed`.
    """

    @property
    def name(self) -> str:
        """The `gen_ai.provider.name`, a bounded metric label: `aws.bedrock`, `openai`, `embedded`, `fake`."""
        ...

    async def start(self) -> None:
        """Open what calls need; raise ConfigError when the settings cannot work."""
        ...

    async def aclose(self) -> None:
        """Close everything; calls in flight are cancelled."""
        ...

    async def invoke(self, request: InferenceRequest) -> InferenceAnswer:
        """Return the whole answer, at the latest after `request.timeout_s`; does not block the loop."""
        ...

    def stream(self, request: InferenceRequest) -> AsyncIterator[DeltaChunk]:
        """Yield pieces in order; the last one has a finish reason and, when the provider reports it, usage."""
        ...


class AnswerTooLong(ProviderUnavailable):
    """Raise when an answer is longer than what is taken; of a call for several events, fewer make it shorter."""


def carry_usage(error: E, spent: Usage | None) -> E:
    """Have an error say what was spent on its event, besides what it says already."""
    if spent is not None and spent != _NOTHING:
        error.usage = add_usage(carried_usage(error) or _NOTHING, spent)  # type: ignore[attr-defined]
    return error


def billed(error: E, usage: Usage) -> E:
    """Have an error say what the call has cost that failed with it, as the provider reports it: nobody has to guess."""
    if usage != _NOTHING:
        carry_usage(error, usage).is_booked = True  # type: ignore[attr-defined]
    return error


def carried_usage(error: Exception) -> Usage | None:
    """Return what was spent on an event by the time of an error; None for the ordinary case of nothing."""
    return getattr(error, "usage", None)


def add_usage(left: Usage, right: Usage) -> Usage:
    """Return the sum of two calls' tokens."""
    return Usage(
        left.input_tokens + right.input_tokens,
        left.output_tokens + right.output_tokens,
        left.cache_read_tokens + right.cache_read_tokens,
        left.cache_write_tokens + right.cache_write_tokens,
    )


def endpoint_fault(error: BaseException, where: str, proxy: str | None = None) -> ConfigurationFault | None:
    """Return the fault for which there is no connection to a provider; None for a failure that may pass by itself.

    A name counts as wrong when the name server says that it does not exist (NXDOMAIN, EAI_NONAME). Where it cannot tell
    (SERVFAIL, no answer: EAI_AGAIN, EAI_FAIL), it may be right in a minute.

    Args:
        error: of the attempt to connect, with its causes.
        where: host of the provider.
        proxy: URL of the one in between, whose name is the only one that is looked up here; None = there is none.
    """
    cause: BaseException | None = error
    refused = ""
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            # aiohttp's own error is one as well, and has these words in its cause alone.
            refused = getattr(cause, "verify_message", "") or str(cause)
        if isinstance(cause, socket.gaierror) and cause.errno == socket.EAI_NONAME:
            named = f"proxy {urlsplit(proxy).netloc}" if proxy else where
            return UnknownHost(f"{named}: there is no host of this name: {error}")
        cause = cause.__cause__ or cause.__context__
    return CertificateRefused(f"{where}: its certificate is refused: {refused}") if refused else None


class NotAsked(Exception):
    """Raise where the server never had the request: the call is to be made as if this one had not been."""


class Waiter(Protocol):
    """What gets the answer to a call; a future is one."""

    def done(self) -> bool:
        """Tell whether nothing is wanted any more."""
        ...

    def set_result(self, result: Any, /) -> None:
        """Take what came."""
        ...

    def set_exception(self, exception: Any, /) -> None:
        """Take why nothing came."""
        ...

    def cancel(self) -> object:
        """Know that the provider was closed."""
        ...


@runtime_checkable
class Direct(Protocol):
    """What a provider can do besides: calls of chat models without a task; one that does keeps each call's time limit.

    The metrics, limits and errors are those of `Provider.invoke`.
    """

    def begin(self, request: InferenceRequest, waiter: Waiter) -> bool:
        """Make a call whose outcome the waiter gets, for `read`; False when it would have to wait for something."""
        ...

    def read(self, outcome: Any, request: InferenceRequest, took_s: float) -> InferenceAnswer:
        """Return the answer out of an outcome; to be called once for every call that was begun.

        Args:
            outcome: what the waiter got, an exception as well; None when it was cancelled.
            request: of the call.
            took_s: seconds from its beginning to its outcome.

        Raises:
            NotAsked: see there.
            PenstockError: as `Provider.invoke`.
        """
        ...


def direct_of(provider: object) -> Direct | None:
    """Return a started provider, or a wrapper of one, as one that calls without a task; None when it cannot."""
    found = getattr(provider, "direct", None)
    return found if isinstance(found, Direct) else None


class Arrivals:
    """Answers that have come whose calls have not gone on yet.

    What a model does for a call is over when the answer is there. Who bounds the calls in flight counts these as ended,
    so that the model is not left without work while answers wait for their turn.

    Attributes:
        count: how many there are.
        listeners: called in their order, a moment after one or several have been added.
        senders: write the requests of calls that were made in this turn of the loop, where that is of use.
    """

    __slots__ = ("count", "listeners", "senders")

    def __init__(self) -> None:
        self.count = 0
        self.listeners: list[Callable[[], object]] = []
        self.senders: list[Callable[[], object]] = []

    def send(self) -> None:
        """Have requests written now; each is by itself in the loop's next turn, behind the answers that it reads."""
        for sender in self.senders:
            sender()


def arrivals_of(provider: object) -> Arrivals:
    """Return where a provider or a wrapper counts answers that have come; of one that does not, what stays at 0."""
    found = getattr(provider, "arrivals", None)
    return found if isinstance(found, Arrivals) else Arrivals()


@dataclass(frozen=True)
class Several:
    """The answer to several requests that were made as one call.

    Attributes:
        answers: one per request, in their order, without usage of their own; an error where the provider refused that
            one; None where nothing in the answer belongs to the request beyond doubt: that is never guessed.
        usage: of the whole call.
    """

    answers: tuple[InferenceAnswer | PenstockError | None, ...]
    usage: Usage


@runtime_checkable
class Placing(Protocol):
    """What a wrapper that bounds calls can do besides: give a place for a call whose content is decided last."""

    @property
    def is_full(self) -> bool:
        """Tell whether the next call would wait for a place."""
        ...

    def place(self, event_id: str, timeout_s: float) -> AbstractAsyncContextManager[Provider]:
        """Yield the provider for one call in a place of its own, once there is one.

        Raises:
            ProviderTimeout: there was none within `timeout_s`; nothing was asked.
        """
        ...


def is_full(provider: object) -> bool:
    """Tell whether the next call at a provider would wait for a place; never where nothing bounds its calls."""
    return bool(getattr(provider, "is_full", False))


def place_of(provider: Provider, event_id: str, timeout_s: float) -> AbstractAsyncContextManager[Provider]:
    """Return how to get a place for one call at a provider; at once where nothing bounds its calls."""
    return provider.place(event_id, timeout_s) if isinstance(provider, Placing) else contextlib.nullcontext(provider)


@runtime_checkable
class SeveralInputs(Protocol):
    """What a provider can do besides: one call for several completions or embeddings."""

    async def invoke_many(self, requests: Sequence[InferenceRequest], timeout_s: float) -> Several:
        """Return the answers, at the latest after `timeout_s`; errors as `Provider.invoke`, for the whole call.

        All requests are for one model and one task, with the same limits.
        """
        ...


def several_inputs(provider: Provider) -> SeveralInputs:
    """Return the provider as one that takes several inputs per call.

    Raises:
        ConfigError: it does not.
    """
    if isinstance(provider, SeveralInputs):
        return provider
    message = f"provider {provider.name} takes one input per call; the route's batch.kind cannot be inputs"
    raise ConfigError(message)


def counts(usage: Any, *names: str) -> tuple[int, ...]:
    """Return counts of tokens by their names in a provider's usage block; 0 for what is no count.

    Every provider reads its block with this: the answer beside it is paid for, and stands however odd the block is.
    """
    found = usage if isinstance(usage, dict) else {}
    return tuple(_count(found.get(name)) for name in names)


def _count(value: Any) -> int:
    if isinstance(value, bool):
        return 0
    try:
        # A proxy may write a string, or a number with a point.
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        return 0
    return number if 0 <= number <= MAX_TOKENS else 0
