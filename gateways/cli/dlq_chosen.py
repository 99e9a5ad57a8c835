"""Which letters of the topic are open, resolved, and meant: nine bytes per offset, whatever the records weigh.

One pass finds them, because what became of a letter lies behind it on its own partition.
"""

import heapq
from array import array
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from contracts.payloads import Resolution
from gateways.cli.dlq_letters import Letter
from gateways.cli.dlq_topic import Span

_NOT_MEANT, OPEN, REDRIVEN, DISCARDED = range(4)
STATES = {OPEN: "open", REDRIVEN: "redriven", DISCARDED: "discarded"}
_BY_NAME = {name: state for state, name in STATES.items()}


class Place(NamedTuple):
    """A letter on the topic; sorts by age."""

    timestamp_ms: int
    partition: int
    offset: int


class _Part:
    """One partition's span."""

    def __init__(self, span: Span) -> None:
        self.start = span.start
        self.states = bytearray(span.end - span.start)
        self.stamps = array("q", bytes(8 * (span.end - span.start)))


class Chosen:
    """The letters that are meant.

    Args:
        spans: where they can be.
    """

    def __init__(self, spans: Iterable[Span]) -> None:
        self._parts = {span.partition: _Part(span) for span in spans}

    def add(self, letter: Letter) -> None:
        """Note a letter that is meant; it is open until something else is heard."""
        part = self._parts[letter.record.partition]
        part.states[letter.record.offset - part.start] = OPEN
        part.stamps[letter.record.offset - part.start] = letter.record.timestamp_ms

    def resolve(self, partition: int, resolved: Resolution) -> None:
        """Note what became of a letter of the same partition; one that is not meant, or not the same, stays as is."""
        part = self._parts.get(partition)
        at = resolved.offset - part.start if part else -1
        if part is None or resolved.partition != partition or not 0 <= at < len(part.states):
            return
        # Offset alone does not survive a recreated topic. The first word counts.
        if part.states[at] == OPEN and part.stamps[at] == resolved.timestamp_ms:
            part.states[at] = _BY_NAME[resolved.state]

    def state(self, letter: Letter) -> str | None:
        """Return what became of a letter; None when it is not meant."""
        part = self._parts.get(letter.record.partition)
        at = letter.record.offset - part.start if part else -1
        return STATES.get(part.states[at]) if part and 0 <= at < len(part.states) else None

    def places(self, *, resolved: bool = False) -> Iterator[Place]:
        """Yield the open letters, or all of them; those of a partition in order."""
        for partition, part in self._parts.items():
            for at, state in enumerate(part.states):
                if state == OPEN or (resolved and state):
                    yield Place(part.stamps[at], partition, part.start + at)

    def count(self, *, resolved: bool = False) -> int:
        """Return how many letters are open, or how many there are."""
        parts = self._parts.values()
        return sum(part.states.count(state) for part in parts for state in STATES if resolved or state == OPEN)

    def newest(self, limit: int, *, resolved: bool = False) -> set[Place]:
        """Return the newest open letters, or the newest of all."""
        return set(heapq.nlargest(limit, self.places(resolved=resolved)))

    def oldest(self, limit: int) -> set[Place]:
        """Return the oldest open letters."""
        return set(heapq.nsmallest(limit, self.places()))

    def keep(self, places: set[Place]) -> None:
        """Forget every other letter."""
        for partition, part in self._parts.items():
            for at, state in enumerate(part.states):
                if state and Place(part.stamps[at], partition, part.start + at) not in places:
                    part.states[at] = _NOT_MEANT

    def spans(self, *, resolved: bool = False) -> list[Span]:
        """Return the least that must be read to see the open letters, or all."""
        bounds: dict[int, tuple[int, int]] = {}
        for _, partition, offset in self.places(resolved=resolved):
            first, last = bounds.get(partition, (offset, offset))
            bounds[partition] = (min(first, offset), max(last, offset))
        return [Span(partition, first, last + 1) for partition, (first, last) in bounds.items()]
