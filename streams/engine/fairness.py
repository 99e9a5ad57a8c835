"""Who comes next among items that could run: tenants by weight, and within a tenant the earliest deadline first.

Between tenants: start-time fair queueing, one model call = one unit of service. A tenant that was away gets no credit
for it, one that had more than its share waits until the others have caught up.
Source: P. Goyal, H. Vin, H. Cheng, "Start-Time Fair Queueing", SIGCOMM 1996.
"""

import heapq
import itertools
from collections.abc import Iterator, Mapping

from streams.engine.item import Item

_Entry = tuple[float, int, Item]
# Tenants without anything ready whose last service is remembered at most.
_MAX_REMEMBERED = 1024


class FairQueue:
    """The ready items of one lane.

    Args:
        weights: tenant -> share relative to the others; 1 for those not named.

    Attributes:
        count: the same as `len()`, for who asks several times per event.
    """

    def __init__(self, weights: Mapping[str, float] | None = None) -> None:
        self._weights = weights or {}
        self._items: dict[str, list[_Entry]] = {}
        self._starts: list[tuple[float, int, str]] = []
        self._finishes: dict[str, float] = {}
        self._virtual = 0.0
        self.count = 0
        self._serial = itertools.count()

    def __len__(self) -> int:
        return self.count

    @property
    def tenants(self) -> int:
        """Return the number of tenants that have something ready."""
        return len(self._items)

    def push(self, item: Item) -> None:
        """Add an item."""
        entry = (item.deadline, next(self._serial), item)
        self.count += 1
        waiting = self._items.get(item.tenant)
        if waiting is not None:
            heapq.heappush(waiting, entry)
            return
        self._items[item.tenant] = [entry]
        start = max(self._virtual, self._finishes.pop(item.tenant, 0.0))
        heapq.heappush(self._starts, (start, next(self._serial), item.tenant))

    def pop(self) -> Item:
        """Take the item whose turn it is.

        Raises:
            IndexError: there is none.
        """
        start, _, tenant = self._starts[0]
        waiting = self._items[tenant]
        item = heapq.heappop(waiting)[2]
        self.count -= 1
        self._virtual = max(self._virtual, start)
        finish = start + 1.0 / self._weights.get(tenant, 1.0)
        if waiting:
            heapq.heapreplace(self._starts, (finish, next(self._serial), tenant))
        else:
            heapq.heappop(self._starts)
            del self._items[tenant]
            self._remember(tenant, finish)
        return item

    def _remember(self, tenant: str, finish: float) -> None:
        self._finishes[tenant] = finish
        if len(self._finishes) > _MAX_REMEMBERED:
            # Whoever is forgotten comes back as a newcomer: then newcomers begin where he would have. Else so many
            # tenants with an event each, now and then, would come before the second event of any other, for ever.
            self._virtual = max(self._virtual, min(self._finishes.values()))
            self._finishes = {name: end for name, end in self._finishes.items() if end > self._virtual}

    def clear(self) -> Iterator[Item]:
        """Take everything, in no particular order."""
        entries = [entry for waiting in self._items.values() for entry in waiting]
        self._items.clear()
        self._starts.clear()
        self.count = 0
        return (entry[2] for entry in entries)
