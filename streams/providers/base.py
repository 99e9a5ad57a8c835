"""The protocol between the invoke step and whoever serves models."""

from collections.abc import AsyncIterator
from typing import Protocol, runtime_checkable

from contracts.payloads import DeltaChunk, InferenceAnswer, InferenceRequest


@runtime_checkable
class Provider(Protocol):
    """Serves models; safe for concurrent use by the tasks of one event loop.

    Lifecycle: the constructor does no network; `start` may, `aclose` ends every connection and thread it opened and is
    safe to call twice. A provider does not retry: deadlines, budgets and cost are the caller's (engine/retries).

    Errors, for both calls: Throttled, ProviderUnavailable, ProviderTimeout (the caller may try again), InvalidRequest,
    ContentBlocked, ContextTooLong (this event is done), AccessDenied, ModelNotFound, QuotaExhausted (every event would
    fail: pause). Nothing else leaves a provider, except CancelledError; a cancelled call frees its connection.
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
