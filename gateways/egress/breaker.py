"""Stops deliveries to a destination that fails, and lets one through from time to time to see whether it is back."""

from collections.abc import Callable

from contracts.settings.egress import Breaker as BreakerSettings

# A destination that asks for more is looked at once in this time all the same.
_MAX_RETRY_AFTER_S = 3600.0


class Breaker:
    """One destination's.

    Args:
        settings: when it opens, and for how long.
        clock: monotonic seconds.
    """

    def __init__(self, settings: BreakerSettings, clock: Callable[[], float]) -> None:
        self._settings = settings
        self._clock = clock
        self._failures = 0
        self._wait_s = settings.base_s
        self._open_until_s: float | None = None

    @property
    def is_open(self) -> bool:
        """Tell whether deliveries are stopped, but for the one that tries."""
        return self._open_until_s is not None

    @property
    def is_pristine(self) -> bool:
        """Tell whether it would be no loss to forget it."""
        return self._failures == 0 and not self.is_open

    @property
    def retry_at_s(self) -> float:
        """Return when a delivery may try, on the breaker's clock; the past when it is closed."""
        return float("-inf") if self._open_until_s is None else self._open_until_s

    def succeeded(self) -> None:
        """Note that the destination answered as it should: it closes."""
        self._failures = 0
        self._wait_s = self._settings.base_s
        self._open_until_s = None

    def failed(self, retry_after_s: float | None = None, *, opens: bool = False) -> None:
        """Note a failed delivery.

        Args:
            retry_after_s: wait asked for by the destination: it opens for as long.
            opens: it opens whatever the count says.
        """
        self._failures += 1
        now_s = self._clock()
        if self._open_until_s is not None and now_s < self._open_until_s:
            # Stragglers that began before it opened say nothing new.
            return
        if self.is_open or opens or retry_after_s or self._failures >= self._settings.failures:
            self._open_until_s = now_s + max(self._wait_s, min(retry_after_s or 0.0, _MAX_RETRY_AFTER_S))
            self._wait_s = min(self._settings.max_s, 2 * self._wait_s)
