"""Builds items for tests of the engine."""

from collections.abc import Hashable

from contracts.codec import Position
from streams.engine.item import TP, Item

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
