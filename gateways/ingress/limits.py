"""Limits per source and per address, in front of a source's verifier and behind it. See: docs/adr/0022.

A verified event is counted against the limits of its source and its address, an unverified one never is: a stranger
cannot use up a sender's limit. Requests without a good signature have budgets of their own. An address that has spent
much of its budget is a suspect: it is still verified, since a good sender may stand behind the same address, but only
so many bytes of suspects are held and verified at a time, and nothing else is done for them.
"""

import time
from collections import OrderedDict
from collections.abc import Callable

from contracts.errors import BadSignature, Busy, PenstockError, RateLimited, Rejected
from contracts.logs import QUIET_S
from contracts.metrics import RATE_LIMITED
from contracts.settings.overload import OverloadSettings, RateLimit
from gateways.ingress.admission import Admission, PartOf
from gateways.ingress.bad_signatures import BadBudget
from gateways.ingress.buckets import Bucket

# Of the bytes in flight, so much may be bodies of suspects.
_SUSPECTS_SHARE = 1 / 8
_BYTES_BURST_S = 10.0
_LONGEST_RETRY_S = 60.0
# When somebody who has too much open may have closed some of it.
_PLACE_RETRY_S = 5.0


class Rate:
    """The buckets of a rate limit: events, and bytes where they are limited."""

    __slots__ = ("_bytes", "_events")

    def __init__(self, limit: RateLimit, now_s: float) -> None:
        per_s = limit.bytes_per_s
        self._events = Bucket(limit.events_per_s, limit.burst, now_s)
        self._bytes = Bucket(per_s, _BYTES_BURST_S * per_s, now_s) if per_s else None

    def spent(self, now_s: float) -> tuple[str, float] | None:
        """Return which bucket is empty, and for how long; None when there is room for an event."""
        if wait_s := self._events.wait_s(now_s):
            return "events", wait_s
        if self._bytes is not None and (wait_s := self._bytes.wait_s(now_s)):
            return "bytes", wait_s
        return None

    def spend(self, now_s: float, size_bytes: int) -> None:
        """Count an event."""
        self._events.spend(now_s)
        if self._bytes is not None:
            self._bytes.spend(now_s, size_bytes)


class Places:
    """What is open at a time, in all and by name; not thread-safe, one event loop uses it.

    Args:
        limit: in all; no limit when None.

    Attributes:
        taken: in all.
    """

    def __init__(self, limit: int | None = None) -> None:
        self.limit = limit
        self.taken = 0
        # Of names that have one: as many as are open.
        self._by_name: dict[str, int] = {}

    def take(self, name: str, most: int | None, what: str) -> None:
        """Take one.

        Args:
            name: whose it is.
            most: that this name may have.
            what: the limit, for the refusal.

        Raises:
            RateLimited: the name has as many as it may.
            Busy: all are taken.
        """
        taken = self._by_name.get(name, 0)
        if most is not None and taken >= most:
            raise over_limit(what, _PLACE_RETRY_S)
        if self.limit is not None and self.taken >= self.limit:
            message = f"{self.taken} are open, the limit of {what}"
            raise Busy(message, retry_after_s=_PLACE_RETRY_S)
        self._by_name[name] = taken + 1
        self.taken += 1

    def give_back(self, name: str) -> None:
        """Give one back."""
        self.taken -= 1
        left = self._by_name.pop(name) - 1
        if left:
            self._by_name[name] = left


class Limits:
    """The limits of one gateway process; not thread-safe, one event loop uses it.

    Attributes:
        limits_peers: addresses have a limit.
        open: requests being answered and WebSockets, by address.
        max_open_per_peer: of these; nothing is counted when None.

    Args:
        settings: of all sources.
        admission: bytes in flight of all requests.
        clock: monotonic seconds.
    """

    def __init__(
        self, settings: OverloadSettings, admission: Admission, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock = clock
        self._admission = admission
        self._suspects = PartOf(admission, int(admission.limit_bytes * _SUSPECTS_SHARE))
        # By name, with the limit that it was made for: a reload may bring another one.
        self._sources: dict[str, tuple[RateLimit, Rate]] = {}
        self._per_peer = settings.per_peer
        self.limits_peers = settings.per_peer is not None
        self.max_open_per_peer = settings.max_open_per_peer
        self.open = Places()
        self._max_peers = settings.max_peers
        self._peers: OrderedDict[str, Rate] = OrderedDict()
        self._quiet: OrderedDict[tuple[str, str], tuple[float, int]] = OrderedDict()
        self.bad = BadBudget(settings.bad_signatures, settings.max_peers, clock)

    def enter(self, source: str, peer: str, limit: RateLimit | None = None) -> "Visit":
        """Begin a request of which no more than the headers has been read.

        Args:
            source: a configured one.
            peer: the sender's address.
            limit: of the source, as it is configured now.

        Raises:
            RateLimited: it would be refused even if its signature were good, or it comes from a suspect and no more of
                those is read now.
        """
        rate = None if limit is None else self._rate_of_source(source, limit)
        if rate is not None and (spent := rate.spent(self._clock())):
            raise _refusal(source, f"source_{spent[0]}", spent[1])
        is_suspect = self.bad.has_any and self.bad.is_suspect(source, peer)
        if is_suspect and (wait_s := self.bad.reading_wait_s()):
            raise _refusal(source, "suspect_bytes", wait_s)
        admission = self._suspects if is_suspect else self._admission
        return Visit(self, source, peer, rate, admission, is_suspect=is_suspect)

    def spend(self, source: str, peer: str, rate_of_source: Rate | None, size_bytes: int) -> None:
        """Count a verified event.

        Raises:
            RateLimited: its source or its address is over its limit; nothing was counted.
        """
        now_s = self._clock()
        rates = (("source", rate_of_source), ("peer", self._rate_of_peer(peer, now_s)))
        for kind, rate in rates:
            if rate is not None and (spent := rate.spent(now_s)):
                raise _refusal(source, f"{kind}_{spent[0]}", spent[1])
        for _, rate in rates:
            if rate is not None:
                rate.spend(now_s, size_bytes)

    def left_out(self, source: str, peer: str) -> int | None:
        """Return how many log lines about an address were left out before this one; None when this one is, too.

        As `contracts.logs.Repetitions`, with as many addresses as are limited, the longest unheard of forgotten first.
        """
        now_s, place = self._clock(), (source, peer)
        said_at_s, left_out = self._quiet.get(place, (float("-inf"), 0))
        if now_s - said_at_s < QUIET_S:
            self._quiet[place] = said_at_s, left_out + 1
            return None
        self._quiet[place] = now_s, 0
        self._quiet.move_to_end(place)
        if len(self._quiet) > self._max_peers:
            self._quiet.popitem(last=False)
        return left_out

    def _rate_of_source(self, source: str, limit: RateLimit) -> Rate:
        known = self._sources.get(source)
        if known is None or known[0] != limit:
            known = self._sources[source] = limit, Rate(limit, self._clock())
        return known[1]

    def _rate_of_peer(self, peer: str, now_s: float) -> Rate | None:
        if self._per_peer is None:
            return None
        rate = self._peers.get(peer)
        if rate is None:
            rate = self._peers[peer] = Rate(self._per_peer, now_s)
        self._peers.move_to_end(peer)
        if len(self._peers) > self._max_peers:
            self._peers.popitem(last=False)
        return rate


class Visit:
    """One request, from its headers to its verdict.

    Attributes:
        peer: the sender's address.
        admission: where its body counts.
        is_suspect: its address has sent many bad signatures; nothing beyond verifying is due.
    """

    __slots__ = ("_is_verified", "_limits", "_rate", "_source", "admission", "is_suspect", "peer")

    def __init__(
        self, limits: Limits, source: str, peer: str, rate: Rate | None, admission: Admission, *, is_suspect: bool
    ) -> None:
        self._limits = limits
        self._rate = rate
        self._source = source
        self._is_verified = False
        self.peer = peer
        self.admission = admission
        self.is_suspect = is_suspect

    def read(self, size_bytes: int) -> None:
        """Count the body of a suspect, before it is verified."""
        if self.is_suspect:
            self._limits.bad.note_read(size_bytes)

    def verified(self, size_bytes: int) -> None:
        """Count a request whose signature is good.

        Raises:
            RateLimited: its source or its address is over its limit.
        """
        self._is_verified = True
        self._limits.bad.note_good(self._source, self.peer)
        if self._rate is not None or self._limits.limits_peers:
            self._limits.spend(self._source, self.peer, self._rate, size_bytes)

    def refused(self, error: PenstockError) -> None:
        """Count a request that is refused, if it has no good signature.

        What is wrong with a request that never got as far as its signature counts as a bad one, such as a body that
        does not come.

        Raises:
            RateLimited: it is one bad signature too many.
        """
        if self._is_verified or not isinstance(error, Rejected):
            return
        wait_s = self._limits.bad.count(self._source, self.peer)
        if wait_s and isinstance(error, BadSignature):
            raise _refusal(self._source, "bad_signatures", wait_s) from error


def over_limit(limit: str, wait_s: float) -> RateLimited:
    """Return the refusal of what is over a limit, and when to come again."""
    return RateLimited(f"over its limit: {limit}", retry_after_s=min(wait_s, _LONGEST_RETRY_S))


def _refusal(source: str, limit: str, wait_s: float) -> RateLimited:
    RATE_LIMITED.labels(source, limit).inc()
    return over_limit(limit, wait_s)
