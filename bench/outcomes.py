"""What a run left on the result topic, and the figures that follow from it; reads and writes nothing itself."""

import statistics
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from bench.processes import Sample

# Between them a run is steady: no longer starting, not yet running out of keys.
_FROM, _TO = 0.15, 0.85


@dataclass
class Outcomes:
    """Results in the order in which their partitions have them.

    Attributes:
        keys: event n has the key n % keys.
    """

    keys: int
    counts: Counter[int] = field(default_factory=Counter)
    refused: set[int] = field(default_factory=set)
    stamps: list[float] = field(default_factory=list)
    healthy_stamps: list[float] = field(default_factory=list)
    disorder: int = 0
    _newest: dict[int, int] = field(default_factory=dict)

    def note(self, number: int, at: float, *, healthy: bool = True) -> None:
        """Count a result of an event, written at a wall-clock time; only first results count for order and rate."""
        self.counts[number] += 1
        if self.counts[number] > 1:
            return
        self.stamps.append(at)
        if healthy:
            self.healthy_stamps.append(at)
        key = number % self.keys
        self.disorder += self._newest.get(key, -1) > number
        self._newest[key] = max(number, self._newest.get(key, -1))

    @property
    def duplicates(self) -> int:
        """Return how many results are not the first of their event."""
        return self.counts.total() - len(self.counts)


@dataclass(frozen=True)
class Steady:
    """The steady part of a run: events per second, CPU microseconds per event, median resident MB."""

    rate: float
    cpu_us: float
    rss_mb: float


def steady(stamps: Sequence[float], samples: Sequence[Sample]) -> Steady:
    """Work out the steady part from when results were written and what the process used."""
    ordered = sorted(stamps)
    first, last = int(len(ordered) * _FROM), int(len(ordered) * _TO)
    begin, end, count = ordered[first], ordered[last], last - first
    within = [sample.rss_bytes for sample in samples if begin <= sample.at <= end]
    return Steady(
        rate=count / max(1e-9, end - begin),
        cpu_us=1e6 * (cpu_at(samples, end) - cpu_at(samples, begin)) / max(1, count),
        rss_mb=statistics.median(within or [samples[-1].rss_bytes]) / 2**20,
    )


def cpu_at(samples: Sequence[Sample], at: float) -> float:
    """Return the CPU seconds used until a time, between two samples in proportion."""
    right = bisect_left([sample.at for sample in samples], at)
    if right == 0 or right == len(samples):
        return samples[min(right, len(samples) - 1)].cpu_s
    before, after = samples[right - 1], samples[right]
    part = (at - before.at) / (after.at - before.at)
    return before.cpu_s + part * (after.cpu_s - before.cpu_s)


def longest_gap(stamps: Sequence[float]) -> float:
    """Return the longest time in seconds without a new result."""
    ordered = sorted(stamps)
    return max((late - early for early, late in pairwise(ordered)), default=0.0)
