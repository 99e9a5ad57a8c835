"""Knows whether this process lives and whether it should get traffic."""

import asyncio
import time
from collections.abc import Callable

from contracts.errors import LogUnavailable
from gateways.clock import ClockWatch
from gateways.ingress.admission import Admission
from producers.base import Producer

# A probe per scrape of every load balancer would be a load of its own.
_PROBE_VALID_S = 3.0
_PROBE_TIMEOUT_S = 2.0
# Not ready above 80 % of a buffer (its `is_full`), ready again below this: a load balancer must not flap with the load.
_READY_AGAIN_SHARE = 0.5


class Health:
    """Liveness and readiness.

    Args:
        producer: probed for Kafka.
        admission: bodies in flight.
        results_alive: whether the results are still followed.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        producer: Producer,
        admission: Admission,
        *,
        results_alive: Callable[[], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._producer = producer
        self._admission = admission
        self._results_alive = results_alive
        self._clock = clock
        self._lock = asyncio.Lock()
        self._probed_at_s = float("-inf")
        self._is_log_reachable = False
        self._was_full = False
        self.is_shutting_down = False
        self.is_config_refused = False
        self.clock = ClockWatch()

    def broken(self) -> list[str]:
        """Return what only a restart can mend."""
        return [] if self._results_alive() else ["results_view_ended"]

    async def unready(self) -> list[str]:
        """Return why this process should get no traffic; empty when it should."""
        reasons = []
        if self.is_shutting_down:
            reasons.append("shutting_down")
        if self._is_full():
            reasons.append("buffer_full")
        if self._producer.is_stalled or not await self._probe():
            reasons.append("log_unavailable")
        return reasons

    def _is_full(self) -> bool:
        # The admission lets in as many bytes as the producer may hold.
        low_bytes = _READY_AGAIN_SHARE * self._admission.limit_bytes
        is_high = self._producer.is_full or self._admission.is_full
        is_low = self._producer.buffered_bytes <= low_bytes and self._admission.held_bytes <= low_bytes
        self._was_full = is_high or (self._was_full and not is_low)
        return self._was_full

    def warnings(self) -> list[str]:
        """Return what should be looked into while traffic goes on."""
        found = {"clock_stepped": self.clock.has_stepped, "config_refused": self.is_config_refused}
        return [name for name, is_so in found.items() if is_so]

    async def _probe(self) -> bool:
        async with self._lock:
            if self._clock() - self._probed_at_s >= _PROBE_VALID_S:
                try:
                    await self._producer.probe(_PROBE_TIMEOUT_S)
                    self._is_log_reachable = True
                except LogUnavailable:
                    self._is_log_reachable = False
                self._probed_at_s = self._clock()
            return self._is_log_reachable
