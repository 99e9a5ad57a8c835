"""A limit that lanes share, with a part reserved for each: a full bulk lane leaves room for an interactive event."""

from collections.abc import Iterable

from contracts.topics import RETRY_LANE

# A lane can always have this share of the limit; what is left is taken by whoever comes first.
_RESERVED_SHARE = 8
# The lane of events that only wait: it never takes what is common, or an hour of retries would slow all others.
_CONFINED = RETRY_LANE


class SharedLimit:
    """Counts what lanes hold of one limit.

    Args:
        limit: of all lanes together.
        lanes: their names.
    """

    def __init__(self, limit: int, lanes: Iterable[str]) -> None:
        self._held = dict.fromkeys(lanes, 0)
        self._reserved = limit // max(_RESERVED_SHARE, len(self._held))
        self._common = limit - self._reserved * len(self._held)
        # What lanes hold beyond their reserved parts; kept, not counted anew for every event.
        self._used = 0

    @property
    def held(self) -> int:
        """Return what all lanes hold together."""
        return sum(self._held.values())

    def admits(self, lane: str, amount: int) -> bool:
        """Tell whether a lane may hold so much more; a lane that holds nothing may always have one."""
        before = self._held[lane]
        # Its own part first, which is the usual case: this is asked of every event.
        beyond = before + amount - self._reserved
        if beyond <= 0 or before == 0:
            return True
        return lane != _CONFINED and self._used + min(amount, beyond) <= self._common

    def take(self, lane: str, amount: int) -> None:
        """Count in, or out where the amount is negative."""
        reserved, before = self._reserved, self._held[lane]
        after = self._held[lane] = before + amount
        if before > reserved:
            self._used += amount if after > reserved else reserved - before
        elif after > reserved:
            self._used += after - reserved
