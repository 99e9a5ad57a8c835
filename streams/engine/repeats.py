"""Which events of one partition repeat an earlier one of it: a bounded window over the partition's own log.

A pure function of the log, but for its bound: an event repeats another one when that lies at a lower offset, within the
window of its own header, and not below the floor. So any worker, at any time, decides alike; and since the first one is
on the log and ends in an outcome of its own, the two can never both be lost. See docs/adr/0021.
"""

import struct
from typing import NamedTuple

from contracts.metrics import ID_CONFLICTS
from contracts.repetition import Identity

_PLACE = struct.Struct(">QQ")


class First(NamedTuple):
    """The event that is repeated.

    Attributes:
        event_id: empty where it is that of the repetition.
    """

    offset: int
    timestamp_ms: int
    event_id: str


class Repeats:
    """The window of one partition.

    Two generations, so that forgetting costs nothing: at least half of the limit is remembered, and at most all of it.

    Args:
        limit: events remembered at most; 0 = none, and nothing is ever a repetition.
    """

    __slots__ = ("_half", "_names", "_old_names", "_older", "_seen")

    def __init__(self, limit: int = 0) -> None:
        self._half = (limit + 1) // 2
        self._seen: dict[bytes, bytes] = {}
        self._older: dict[bytes, bytes] = {}
        self._names: dict[bytes, bytes] = {}
        self._old_names: dict[bytes, bytes] = {}

    def __len__(self) -> int:
        """Return how many events are remembered."""
        return len(self._seen) + len(self._older)

    def meet(self, identity: Identity, offset: int, timestamp_ms: int) -> First | None:
        """Return the event that this one repeats; None for a new one, which is remembered."""
        if not self._half:
            return None
        key = identity.key
        packed = self._seen.get(key) or self._older.get(key)
        if packed is not None:
            first = _unpacked(packed)
            if first.offset == offset:
                # The same record, delivered again.
                return None
            if first.offset < offset and timestamp_ms - first.timestamp_ms <= identity.window_s * 1000:
                return first
        elif self._names.get(identity.name) or self._old_names.get(identity.name):
            ID_CONFLICTS.inc()
        self._remember(identity, key, _PLACE.pack(offset, max(0, timestamp_ms)) + identity.event_id.encode())
        return None

    def _remember(self, identity: Identity, key: bytes, packed: bytes) -> None:
        if len(self._seen) >= self._half:
            self._older, self._seen = self._seen, {}
            self._old_names, self._names = self._names, {}
        self._seen[key] = packed
        self._names[identity.name] = key

    def clear(self) -> None:
        """Forget everything: the offsets have started again, and what was seen is on another log."""
        for table in (self._seen, self._older, self._names, self._old_names):
            table.clear()


def _unpacked(packed: bytes) -> First:
    offset, timestamp_ms = _PLACE.unpack_from(packed)
    return First(offset, timestamp_ms, packed[_PLACE.size :].decode())
