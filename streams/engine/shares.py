"""A limit that lanes share, with a part reserved for each: a full bulk lane leaves room for an interactive event."""

from collections.abc import Iterable

# A lane can always have this share of the limit; what is left is taken by whoever comes first.
_RESERVED_SHARE = 8


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

    @property
    def held(self) -> int:
        """Return what all lanes hold together."""
        return sum(self._held.values())

    def admits(self, lane: str, amount: int) -> bool:
        """Tell whether a lane may hold so much more; a lane that holds nothing may always have one."""
        before = self._held[lane]
        if before == 0:
            return True
        used = sum(max(0, held - self._reserved) for name, held in self._held.items() if name != lane)
        return used + max(0, before + amount - self._reserved) <= self._common

    def take(self, lane: str, amount: int) -> None:
        """Count in."""
        self._held[lane] += amount

    def give(self, lane: str, amount: int) -> None:
        """Count out."""
        self._held[lane] -= amount
