"""Who wrote a record: the producer id of its batch, which no client shows, read from the segments of a broker.

A dead letter or an expired event names no worker, but shares its producer's id with results that do.
Source of the layout: Kafka protocol, "Record Batch", format 2.
"""

import struct
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from tests.chaos.ledger import Outcome

# baseOffset, batchLength, leader epoch, magic, crc, attributes, lastOffsetDelta, two timestamps, producerId.
_HEAD = struct.Struct(">qiibIhiqqq")
# What batchLength does not count: itself and the offset before it.
_UNCOUNTED_BYTES = 12
_FORMAT = 2


def producer_ids(segment: bytes) -> Iterator[tuple[range, int]]:
    """Yield the offsets of each batch of a segment, and its producer's id; ends at what is not yet whole."""
    at = 0
    while at + _HEAD.size <= len(segment):
        base, length, _, magic, _, _, last, _, _, producer = _HEAD.unpack_from(segment, at)
        at += _UNCOUNTED_BYTES + length
        if magic != _FORMAT or at > len(segment):
            return
        yield range(base, base + last + 1), producer


def with_writers(outcomes: Iterable[Outcome], data: Sequence[Path]) -> list[Outcome]:
    """Return the outcomes, those without a writer with that of their producer, where it has just one.

    Args:
        outcomes: of one topic.
        data: folders of the brokers, which may be running.
    """
    outcomes = list(outcomes)
    producers: dict[tuple[str, int, int], int] = {}
    for topic, partition in {(outcome.topic, outcome.partition) for outcome in outcomes}:
        for path in sorted(path for folder in data for path in folder.glob(f"{topic}-{partition}/*.log")):
            for offsets, producer in producer_ids(path.read_bytes()):
                producers.update(((topic, partition, offset), producer) for offset in offsets)
    writers: dict[int | None, set[str]] = defaultdict(set)
    for outcome in outcomes:
        if outcome.writer:
            writers[producers.get(_place(outcome))].add(outcome.writer)
    writers.pop(None, None)
    return [outcome if outcome.writer else _named(outcome, writers, producers) for outcome in outcomes]


def _place(outcome: Outcome) -> tuple[str, int, int]:
    return outcome.topic, outcome.partition, outcome.offset


def _named(
    outcome: Outcome, writers: dict[int | None, set[str]], producers: dict[tuple[str, int, int], int]
) -> Outcome:
    found = writers.get(producers.get(_place(outcome)), set())
    return replace(outcome, writer=next(iter(found))) if len(found) == 1 else outcome
