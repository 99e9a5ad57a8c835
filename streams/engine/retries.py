"""How long a failed attempt waits, and how many may be made again: an overload must not feed itself.

Full jitter: a wait is drawn between zero and min(max_s, base_s * 2^(attempt-1)); a provider's Retry-After is a lower
bound. Source: M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.

    base_s 0.5, max_s 30:  attempt 1 2 3 4 5 6 7   upper bound 0.5 1 2 4 8 16 30 s

The retry budget of a model: retries are at most a share of its calls. Sources: B. Beyer et al., "Site Reliability
Engineering", O'Reilly 2016, chapter 21 "Handling Overload" (a client-wide budget of retries besides the one per
request); Finagle's RetryBudget (20 % of requests and 10 a second at least, over 10 s). Where they give up, we wait: an
event is not dead-lettered because others fail too.
"""

import random
from collections.abc import Callable

from streams.engine.window import SlidingCounts


def backoff_s(
    attempt: int,
    base_s: float,
    max_s: float,
    retry_after_s: float | None = None,
    uniform: Callable[[float, float], float] = random.uniform,
) -> float:
    """Return how long to wait after a failed attempt (1-based), seconds."""
    # The exponent is capped so that a large attempt number cannot overflow a float.
    wait_s = uniform(0.0, min(max_s, base_s * 2.0 ** min(attempt - 1, 60)))
    if retry_after_s is None:
        return wait_s
    # Everybody was told the same instant: spread over another base_s so that not all come back at once. A server that
    # asks for no wait, time after time, does not make the waits shorter: the attempts would be used up in a moment.
    return max(wait_s, retry_after_s + uniform(0.0, base_s))


class RetryBudget:
    """Says whether a retry may be made now.

    Args:
        share: retries per first call.
        min_per_s: retries a second that are always allowed.
        window_s: over which both are measured.
        clock: loop time, seconds.
    """

    def __init__(self, share: float, min_per_s: float, window_s: float, clock: Callable[[], float]) -> None:
        self._share = share
        self._always = max(1.0, min_per_s * window_s)
        self._counts = SlidingCounts(window_s, clock)

    def first_call(self) -> None:
        """Note an event's first call, which earns a share of a retry."""
        self._counts.add(first=1)

    def take(self) -> bool:
        """Spend a retry; False when the budget is used up."""
        calls, retries = self._counts.sums()
        if retries + 1 > self._always + self._share * calls:
            return False
        self._counts.add(second=1)
        return True
