"""Limits per API key, by the buckets that webhook sources have. See: docs/adr/0022.

A key is known before anything is counted, so whoever has none uses up nobody's limit.
"""

import contextlib
import time
from collections.abc import Callable, Iterator

from contracts.errors import RateLimited
from contracts.metrics import CALLER_RATE_LIMITED, WEBSOCKETS
from contracts.settings.overload import CallerLimit
from gateways.ingress.admission import Admission, PartOf
from gateways.ingress.buckets import Bucket
from gateways.ingress.callers import Caller
from gateways.ingress.limits import Places, Rate, over_limit


class _InFlight(PartOf):
    """The bytes in flight of one key."""

    def __init__(self, whole: Admission, limit_bytes: int, caller: str) -> None:
        super().__init__(whole, limit_bytes)
        self._caller = caller

    def reserve(self, size_bytes: int) -> None:
        """As `PartOf`, and count a refusal."""
        try:
            super().reserve(size_bytes)
        except RateLimited:
            CALLER_RATE_LIMITED.labels(self._caller, "in_flight_bytes").inc()
            raise


class _Quota:
    """What one key may use, and has used."""

    def __init__(self, caller: str, limit: CallerLimit, admission: Admission, now_s: float) -> None:
        self.limit = limit
        per_s = limit.requests_per_s
        self.requests = Bucket(per_s, limit.requests_burst, now_s) if per_s else None
        self.events = Rate(limit.events, now_s) if limit.events else None
        most_bytes = limit.in_flight_bytes
        self.admission = _InFlight(admission, most_bytes, caller) if most_bytes else admission


class CallerLimits:
    """The limits of the API keys in one gateway process; not thread-safe, one event loop uses it.

    Args:
        admission: bytes in flight of all requests.
        clock: monotonic seconds.
        max_websockets: open at a time, of all keys and of whoever has a ticket; no limit when None.

    Attributes:
        websockets: those that are open.
    """

    def __init__(
        self,
        admission: Admission,
        clock: Callable[[], float] = time.monotonic,
        *,
        max_websockets: int | None = None,
    ) -> None:
        self._admission = admission
        self._clock = clock
        self.websockets = Places(max_websockets)
        # By id of the key, as many as are configured; made anew when a reload brings another limit.
        self._quotas: dict[str, _Quota] = {}

    def request(self, caller: Caller) -> None:
        """Count a request.

        Raises:
            RateLimited: one too many; it is not counted.
        """
        quota = self._quota(caller)
        if quota is None or quota.requests is None:
            return
        now_s = self._clock()
        if wait_s := quota.requests.wait_s(now_s):
            raise _refusal(caller, "requests", wait_s)
        quota.requests.spend(now_s)

    def posting(self, caller: Caller) -> Admission:
        """Return where the body of a request with an event counts.

        Raises:
            RateLimited: there is no room for an event, whatever is in it.
        """
        quota = self._quota(caller)
        if quota is None:
            return self._admission
        _check(caller, quota.events, self._clock())
        return quota.admission

    def event(self, caller: Caller, size_bytes: int) -> None:
        """Count an event that is about to be produced.

        Raises:
            RateLimited: others were quicker; it is not counted.
        """
        quota = self._quota(caller)
        if quota is None or quota.events is None:
            return
        now_s = self._clock()
        _check(caller, quota.events, now_s)
        quota.events.spend(now_s, size_bytes)

    @contextlib.contextmanager
    def websocket(self, caller: Caller | None) -> Iterator[None]:
        """Hold a place for a WebSocket: of a key, or of whoever has a ticket.

        Raises:
            RateLimited: the key has as many as it may.
            Busy: all are taken.
        """
        name, most = "", None
        if caller is not None:
            name, most = caller.id, caller.limit.websockets if caller.limit else None
        try:
            self.websockets.take(name, most, "websockets")
        except RateLimited:
            CALLER_RATE_LIMITED.labels(name, "websockets").inc()
            raise
        WEBSOCKETS.inc()
        try:
            yield
        finally:
            WEBSOCKETS.dec()
            self.websockets.give_back(name)

    def _quota(self, caller: Caller) -> _Quota | None:
        if caller.limit is None:
            return None
        quota = self._quotas.get(caller.id)
        if quota is None or quota.limit != caller.limit:
            quota = self._quotas[caller.id] = _Quota(caller.id, caller.limit, self._admission, self._clock())
        return quota


def _check(caller: Caller, events: Rate | None, now_s: float) -> None:
    if events is not None and (spent := events.spent(now_s)):
        raise _refusal(caller, *spent)


def _refusal(caller: Caller, limit: str, wait_s: float) -> RateLimited:
    CALLER_RATE_LIMITED.labels(caller.id, limit).inc()
    return over_limit(limit, wait_s)
