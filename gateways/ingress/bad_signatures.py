"""The budget of requests without a good signature: per address and source, and per source. See: docs/adr/0022."""

from collections import OrderedDict
from collections.abc import Callable

from contracts.settings.overload import BadSignatures
from gateways.ingress.buckets import Bucket, Buckets

Place = tuple[str, str]
# Below this share of its budget an address is a suspect; so one stays it for a while when it stops.
_SUSPECT_SHARE = 0.5
# What the smallest request costs in CPU time, as bytes of HMAC.
_LEAST_BYTES = 1024


class BadBudget:
    """Counts bad requests; not thread-safe, one event loop uses it.

    Args:
        settings: rates and bursts; None counts nothing and suspects nobody.
        max_peers: addresses remembered.
        clock: monotonic seconds.

    Attributes:
        has_any: somebody has sent a bad one.
    """

    def __init__(self, settings: BadSignatures | None, max_peers: int, clock: Callable[[], float]) -> None:
        self._settings = settings
        self._clock = clock
        self._max_peers = max_peers
        self.has_any = False
        if settings is None:
            return
        self._places: Buckets[Place] = Buckets(
            lambda: Bucket(settings.per_peer_per_s, settings.per_peer_burst, clock()), max_peers
        )
        # By configured names only: bounded.
        self._sources: Buckets[str] = Buckets(
            lambda: Bucket(settings.per_source_per_s, settings.per_source_burst, clock()), max_peers
        )
        self._reading = Bucket(settings.suspect_bytes_per_s, settings.suspect_bytes_per_s, clock())
        # Filled by good signatures alone, so that no flood of bad ones pushes anybody out.
        self._good: OrderedDict[Place, None] = OrderedDict()

    def is_suspect(self, source: str, peer: str) -> bool:
        """Tell whether an address has spent much of its budget, or a stranger comes while the source's is spent."""
        settings = self._settings
        if settings is None or not self.has_any:
            return False
        now_s = self._clock()
        bucket = self._places.find((source, peer))
        if bucket is not None and bucket.wait_s(now_s, _SUSPECT_SHARE * settings.per_peer_burst):
            return True
        bucket = self._sources.find(source)
        if bucket is None or not bucket.wait_s(now_s, _SUSPECT_SHARE * settings.per_source_burst):
            return False
        return (source, peer) not in self._good

    def count(self, source: str, peer: str) -> float:
        """Count a bad request; return 0.0, or for how long the budget is spent, seconds."""
        if self._settings is None:
            return 0.0
        self.has_any = True
        now_s = self._clock()
        buckets = (self._places.use((source, peer)), self._sources.use(source))
        wait_s = max(bucket.wait_s(now_s) for bucket in buckets)
        if wait_s == 0.0:
            for bucket in buckets:
                bucket.spend(now_s)
        return wait_s

    def note_good(self, source: str, peer: str) -> None:
        """Remember that a good signature came from an address."""
        if self._settings is None:
            return
        self._good[source, peer] = None
        self._good.move_to_end((source, peer))
        if len(self._good) > self._max_peers:
            self._good.popitem(last=False)

    def reading_wait_s(self) -> float:
        """Return how long no more bodies of suspects may be read, seconds."""
        return 0.0 if self._settings is None else self._reading.wait_s(self._clock())

    def note_read(self, size_bytes: int) -> None:
        """Count the body of a suspect."""
        if self._settings is not None:
            self._reading.spend(self._clock(), max(size_bytes, _LEAST_BYTES))
