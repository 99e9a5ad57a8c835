"""Token buckets, and a bounded table of them."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Name = TypeVar("Name", bound=Hashable)


class Bucket:
    """Fills at a rate up to a size; not thread-safe, one event loop uses it.

    Args:
        per_s: what flows in, per second.
        size: what it holds; it begins full.
        now_s: monotonic seconds.
    """

    __slots__ = ("_at_s", "_level", "_per_s", "_size")

    def __init__(self, per_s: float, size: float, now_s: float) -> None:
        self._per_s = per_s
        self._size = size
        self._level = size
        self._at_s = now_s

    def wait_s(self, now_s: float, needed: float = 1.0) -> float:
        """Return how long until it holds as much as is needed, seconds; 0.0 when it does."""
        self._fill(now_s)
        return 0.0 if self._level >= needed else (needed - self._level) / self._per_s

    def spend(self, now_s: float, amount: float = 1.0) -> None:
        """Take something out; what is larger than its content leaves a debt, so that nothing is too large for ever."""
        self._fill(now_s)
        self._level -= amount

    def _fill(self, now_s: float) -> None:
        if now_s > self._at_s:
            self._level = min(self._size, self._level + (now_s - self._at_s) * self._per_s)
            self._at_s = now_s


class Buckets(Generic[Name]):
    """A bucket per name; of too many names those used longest ago are forgotten, and begin anew with a full bucket.

    Args:
        make: a new bucket.
        max_names: size of the table.
    """

    def __init__(self, make: Callable[[], Bucket], max_names: int) -> None:
        self._make = make
        self._max_names = max_names
        self._buckets: OrderedDict[Name, Bucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def find(self, name: Name) -> Bucket | None:
        """Return a name's bucket; None when it has never been used."""
        return self._buckets.get(name)

    def use(self, name: Name) -> Bucket:
        """Return a name's bucket, made at its first use."""
        bucket = self._buckets.get(name)
        if bucket is None:
            bucket = self._buckets[name] = self._make()
            if len(self._buckets) > self._max_names:
                self._buckets.popitem(last=False)
        else:
            self._buckets.move_to_end(name)
        return bucket
