"""The best that is possible under key order with so many slots: what a run with stragglers is compared with.

An event starts when a slot is free and the event before it of its key has ended; among those that may start, the one
that came first. Latencies are not known in advance, to nobody: so first come, first served is the ideal here.
"""

import heapq
from collections import deque
from collections.abc import Hashable, Iterable, Sequence


def makespan(events: Iterable[tuple[Hashable, float]], slots: int) -> float:
    """Return the seconds from the first start to the last end of events (key, latency), in their order."""
    waiting: dict[Hashable, deque[tuple[int, float]]] = {}
    ready: list[tuple[int, float, Hashable]] = []
    for number, (key, latency_s) in enumerate(events):
        if key in waiting:
            waiting[key].append((number, latency_s))
        else:
            waiting[key] = deque()
            heapq.heappush(ready, (number, latency_s, key))
    running: list[tuple[float, int, Hashable]] = []
    now = 0.0
    while ready or running:
        while ready and len(running) < slots:
            number, latency_s, key = heapq.heappop(ready)
            heapq.heappush(running, (now + latency_s, number, key))
        now, _, key = heapq.heappop(running)
        if waiting[key]:
            number, latency_s = waiting[key].popleft()
            heapq.heappush(ready, (number, latency_s, key))
    return now


def in_turn(latencies: Sequence[float], keys: int) -> list[tuple[int, float]]:
    """Give event n the key n % keys, as the benchmarks do."""
    return [(number % keys, latency_s) for number, latency_s in enumerate(latencies)]
