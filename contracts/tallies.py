"""Counts what happens thousands of times a second: noted at once for the price of an append, counted later together.

A counter's and a histogram's update take some twenty calls. Whoever reads the registry gets everything noted so far.
"""

from bisect import bisect_right
from collections import deque
from itertools import repeat

from prometheus_client import Counter, Histogram

from contracts.metrics import REGISTRY

_all: "list[Tally]" = []


class Tally(dict[tuple[str, ...], deque[float]]):
    """What was noted, by the counter's label values: `tally[values].append(amount)`; may be counted by any thread.

    Somebody has to call `flush` (of this one or of all) now and then, or what was noted grows without bound.

    Args:
        counter: counts how many were noted; None where the histogram's own count says it.
        histogram: observes the amounts; its labels are the first ones.
        adds: the counter counts up by the amounts, not by how many there are.
    """

    def __init__(self, counter: Counter | None, histogram: Histogram | None = None, *, adds: bool = False) -> None:
        super().__init__()
        self._counter = counter
        self._histogram = histogram
        self._adds = adds
        _all.append(self)

    def __missing__(self, values: tuple[str, ...]) -> deque[float]:
        """Begin at the first use."""
        # So that there is a child at once, as with `labels()`.
        self._children(values)
        return self.setdefault(values, deque())

    def flush(self) -> None:
        """Count what was noted."""
        for values, noted in list(self.items()):
            if noted:
                amounts = list(map(deque.popleft, repeat(noted, len(noted))))
                counter, histogram = self._children(values)
                if counter is not None:
                    counter.inc(sum(amounts) if self._adds else len(amounts))
                if histogram is not None:
                    _observe(histogram, amounts)

    def _children(self, values: tuple[str, ...]) -> tuple[Counter | None, Histogram | None]:
        counter, histogram = self._counter, self._histogram
        return (
            None if counter is None else counter.labels(*values),
            None if histogram is None else histogram.labels(*values[: len(histogram._labelnames)]),  # noqa: SLF001
        )


def flush() -> None:
    """Count what was noted anywhere."""
    for tally in _all:
        tally.flush()


def _observe(histogram: Histogram, amounts: list[float]) -> None:
    """As `observe` of every amount, with one update per bucket."""
    bounds, buckets = histogram._upper_bounds, histogram._buckets  # noqa: SLF001 - a test holds it against `observe`
    histogram._sum.inc(sum(amounts))  # noqa: SLF001
    amounts.sort()
    before = 0
    # Where the bounds lie among the amounts, since there are fewer of them. One that is no number sorts anywhere.
    for bound, bucket in zip(bounds, buckets, strict=True):
        upto = bisect_right(amounts, bound, lo=before)
        if upto > before:
            bucket.inc(upto - before)
        if upto == len(amounts):
            return
        before = upto


REGISTRY.before_reading.append(flush)
