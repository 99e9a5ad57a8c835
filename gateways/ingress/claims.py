"""What this process knows of accepted events: a claim per event, pending until the broker's ack, released on failure.

A fast path: it spares the log most repetitions, and their senders a second place to look at. It forgets at a restart,
is bounded, and knows nothing of other gateways; the worker that owns the partition decides (docs/adr/0021).
Not thread-safe: one event loop uses it.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Literal

from contracts.codec import Position
from contracts.metrics import CLAIMS, CLAIMS_BYTES, CLAIMS_DROPPED
from contracts.repetition import Identity

# Measured on CPython 3.11 with tracemalloc: claim, keys, position and the entries of both tables.
ENTRY_BYTES = 700


class Claim:
    """One event that was accepted, or is being produced.

    Attributes:
        event_id: as the first delivery called it.
        position: where its record lies; None until the broker's ack.
        is_conflict: its id was known, with another body.
        size_bytes: what it counts against the limit.
    """

    __slots__ = (
        "_settled",
        "event_id",
        "expires_s",
        "is_conflict",
        "key",
        "name",
        "position",
        "size_bytes",
        "window_s",
    )

    def __init__(self, identity: Identity, event_id: str, *, is_conflict: bool) -> None:
        self.key = identity.key
        self.name = identity.name
        self.window_s = identity.window_s
        self.event_id = event_id
        self.is_conflict = is_conflict
        self.position: Position | None = None
        self.expires_s = 0.0
        self.size_bytes = ENTRY_BYTES + len(event_id)
        self._settled: asyncio.Future[BaseException | None] | None = None

    async def outcome(self) -> BaseException | None:
        """Wait for the broker's ack; return None, or why there is none."""
        if self._settled is None:
            self._settled = asyncio.get_running_loop().create_future()
        return await asyncio.shield(self._settled)

    def settle(self, error: BaseException | None) -> None:
        """Tell the copies that wait."""
        if self._settled is not None and not self._settled.done():
            self._settled.set_result(error)


class Claims:
    """The claims of one process.

    Args:
        max_entries: claims at most; the oldest acknowledged ones go first, pending ones never.
        max_bytes: their memory at most.
        clock: monotonic seconds.
    """

    def __init__(self, max_entries: int, max_bytes: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._clock = clock
        self._pending: dict[bytes, Claim] = {}
        self._acked: OrderedDict[bytes, Claim] = OrderedDict()
        self._names: dict[bytes, bytes] = {}
        self.held_bytes = 0

    def __len__(self) -> int:
        """Return the number of claims."""
        return len(self._pending) + len(self._acked)

    def find(self, identity: Identity) -> Claim | None:
        """Return the claim that a delivery repeats; None for a new one."""
        key = identity.key
        claim = self._pending.get(key) or self._acked.get(key)
        if claim is not None and claim.position is not None and self._clock() >= claim.expires_s:
            self._drop(claim, "expired")
            return None
        return claim

    def is_reused(self, identity: Identity) -> bool:
        """Tell whether the id of a delivery that `find` does not know is known with another body."""
        other = self._names.get(identity.name, identity.key)
        claim = None if other == identity.key else self._pending.get(other) or self._acked.get(other)
        return claim is not None and (claim.position is None or self._clock() < claim.expires_s)

    def begin(self, identity: Identity, event_id: str) -> Claim | None:
        """Claim an event that `find` does not know; None where there is no room: whether it is new is not known."""
        self._expire()
        # The id may be known with another body.
        other = self._names.get(identity.name)
        claim = Claim(identity, event_id, is_conflict=other is not None and other != identity.key)
        while (
            len(self._pending) + len(self._acked) >= self._max_entries
            or self.held_bytes + claim.size_bytes > self._max_bytes
        ):
            if not self._acked:
                return None
            self._drop(next(iter(self._acked.values())), "full")
        self._pending[claim.key] = claim
        self._names[claim.name] = claim.key
        self.held_bytes += claim.size_bytes
        return claim

    def acknowledge(self, claim: Claim, position: Position) -> None:
        """Note that the event is durable: from now on its repetitions are answered without a record."""
        del self._pending[claim.key]
        claim.position = position
        claim.expires_s = self._clock() + claim.window_s
        self._acked[claim.key] = claim
        claim.settle(None)

    def release(self, claim: Claim, error: BaseException) -> None:
        """Give a claim back: the event is not known to be durable, and whoever brings it again is the first."""
        del self._pending[claim.key]
        self._forget(claim)
        claim.settle(error)

    def _expire(self) -> None:
        """Drop what is over at the old end; windows differ, so that some stay a while longer, within the limits."""
        now_s = self._clock()
        while self._acked:
            oldest = next(iter(self._acked.values()))
            if now_s < oldest.expires_s:
                return
            self._drop(oldest, "expired")

    def _drop(self, claim: Claim, reason: Literal["expired", "full"]) -> None:
        del self._acked[claim.key]
        self._forget(claim)
        CLAIMS_DROPPED.labels(reason).inc()

    def _forget(self, claim: Claim) -> None:
        self.held_bytes -= claim.size_bytes
        if self._names.get(claim.name) == claim.key:
            del self._names[claim.name]

    def gauge(self) -> None:
        """Set the gauges; from time to time."""
        CLAIMS.set(len(self))
        CLAIMS_BYTES.set(self.held_bytes)
