"""What `POST /v1/invoke` and the long poll have in common: a budget, waiting within it, a last look at its end."""

import asyncio
import contextlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from contracts.codec import Position
from contracts.envelope import Event
from contracts.errors import Busy, LogUnavailable, UnknownResult
from contracts.settings import GatewaySettings
from gateways.asgi import Request
from gateways.egress.outcomes import Outcome
from gateways.egress.waiting import Waiter
from gateways.endpoints.preferences import preferences
from gateways.ingress.header_lines import HeaderLines
from gateways.parts import Parts

Header = tuple[bytes, bytes]


@dataclass(frozen=True)
class Budget:
    """How long one request may wait.

    Attributes:
        ends_s: when waiting ends, on the clock.
        applied: what of the caller's preferences was honoured, for its header; empty when it stated none.
        is_async: the caller does not want to wait.
    """

    ends_s: float
    applied: bytes = b""
    is_async: bool = False
    clock: Callable[[], float] = time.monotonic

    @property
    def left_s(self) -> float:
        """Return what is left."""
        return max(0.0, self.ends_s - self.clock())

    @property
    def headers(self) -> tuple[Header, ...]:
        """Return the header that says what was honoured."""
        return ((b"preference-applied", self.applied),) if self.applied else ()


def budget_of(
    settings: GatewaySettings,
    headers: HeaderLines,
    usual_s: float | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Budget:
    """Return the budget of a request that has just arrived: the configured one, or less where the caller says so.

    Args:
        settings: with the limit of what stands in front of us.
        headers: of the request.
        usual_s: for a caller that does not say; as long as possible when None.
        clock: monotonic seconds.
    """
    wanted = preferences(headers)
    most_s = settings.sync_budget_s - settings.sync_margin_s
    if wanted.is_async:
        return Budget(clock(), b"respond-async", is_async=True, clock=clock)
    if wanted.wait_s is None:
        return Budget(clock() + (most_s if usual_s is None else usual_s), clock=clock)
    wait_s = min(float(wanted.wait_s), most_s)
    return Budget(clock() + wait_s, b"wait=%d" % math.floor(wait_s), clock=clock)


async def wait_for_outcome(request: Request, waiter: Waiter, budget: Budget) -> tuple[Outcome | None, bool]:
    """Return (outcome or None, whether the client is still there).

    A client that hangs up gives back its place at once; its event is on the log and goes on.
    """
    waiting = asyncio.ensure_future(waiter.outcome(budget.left_s))
    gone = asyncio.ensure_future(request.gone())
    try:
        await asyncio.wait({waiting, gone}, return_when=asyncio.FIRST_COMPLETED)
        return (waiting.result(), True) if waiting.done() else (None, False)
    finally:
        waiting.cancel()
        gone.cancel()


async def look(parts: Parts, event: Event, position: Position, limit_s: float) -> Outcome | None:
    """Look for an outcome where every outcome can be found; None also when that is not possible right now."""
    with contextlib.suppress(TimeoutError, Busy, LogUnavailable, UnknownResult):
        async with asyncio.timeout(limit_s):
            return await parts.results.outcome_of(event.source, event.id, position, event.owner)
    return None
