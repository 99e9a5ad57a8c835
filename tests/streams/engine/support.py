"""Builds items for tests of the engine."""

from collections.abc import Hashable, Mapping

from contracts.codec import Position
from streams.engine.item import TP, Item, ResultRef
from streams.engine.ledger import Answers

TOPIC = "t.events.standard.v1"
RESULTS = "t.results.v1"
TP0 = TP(TOPIC, 0)


def make_item(
    offset: int,
    chain: Hashable | None = None,
    *,
    lane: str = "standard",
    partition: int = 0,
    size_bytes: int = 10,
    timestamp_ms: int = 1_000,
) -> Item:
    """Return an item whose work names it by its offset."""
    return Item(Position(TOPIC, partition, offset, timestamp_ms + offset), chain, lane, size_bytes, offset)


def answers(found: Mapping[tuple[int, int], ResultRef], limit: int = 2**63) -> Answers:
    """Return what a scan has found, in this order."""
    kept = Answers(limit)
    for (offset, timestamp_ms), ref in found.items():
        kept.add(offset, timestamp_ms, ref)
    return kept
