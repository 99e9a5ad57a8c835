"""The retry budget of a model: retries are at most a share of its calls, so that an overload does not feed itself.

Sources: B. Beyer et al., "Site Reliability Engineering", O'Reilly 2016, chapter 21 "Handling Overload" (a client-wide
budget of retries besides the one per request); Finagle's RetryBudget (20 % of requests and 10 a second at least, over
10 s). Where they give up, we wait: an event is not dead-lettered because others fail too.
"""

from collections.abc import Callable

from streams.engine.window import SlidingCounts


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
