"""Reads what the log has of one event's deltas already, for watchers that come later or come back.

Reads: deltas, one partition, from about the event's time on. Blocking: runs in an executor, about `limit_s` at most.
"""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from contracts.deltas import read_delta
from contracts.errors import Undecodable
from contracts.kafka_config import headers_of
from gateways.egress.feed import Feed, delta_name
from gateways.egress.reading import partitions_of, translated_errors, watermarks

_CALL_TIMEOUT_S = 2.0
_POLL_S = 0.2
_POLL_RECORDS = 1000
# Deltas are stamped after their event, but perhaps by a clock that is behind.
_CLOCK_MARGIN_MS = 15_000


class Place(NamedTuple):
    """Where deltas are looked for: of which event, in which partition, since when.

    Attributes:
        from_offset: goes on there; None begins at `since_ms`.
    """

    name: str
    partition: int
    since_ms: int
    from_offset: int | None = None


class CaughtUp(NamedTuple):
    """How far a look-up got.

    Attributes:
        next_offset: the first one not read.
        is_complete: False when the time ran out before the end of the partition.
    """

    next_offset: int
    is_complete: bool


def catch_up(
    config: dict[str, Any],
    topic: str,
    place: Place,
    feed: Feed,
    limit_s: float,
    is_cancelled: Callable[[], bool] = lambda: False,
) -> CaughtUp:
    """Give a feed the event's deltas up to the end of the partition as it is now.

    Raises:
        LogUnavailable: Kafka did not answer.
    """
    give_up_s = time.monotonic() + limit_s
    with translated_errors():
        consumer = Consumer(config)
        try:
            if place.partition not in partitions_of(consumer, topic, _CALL_TIMEOUT_S):
                return CaughtUp(0, is_complete=True)
            low, end = watermarks(consumer, topic, place.partition, _CALL_TIMEOUT_S)
            at = max(low, _start(consumer, topic, place, end)) if low < end else end
            if at < end:
                consumer.assign([TopicPartition(topic, place.partition, at)])
            while at < end and time.monotonic() < give_up_s and not is_cancelled():
                at = _read(consumer, place.name, feed, at, end)
            return CaughtUp(at, is_complete=at >= end)
        finally:
            consumer.close()


def _start(consumer: Consumer, topic: str, place: Place, end: int) -> int:
    if place.from_offset is not None:
        return min(place.from_offset, end)
    since = TopicPartition(topic, place.partition, max(0, place.since_ms - _CLOCK_MARGIN_MS))
    try:
        (found,) = consumer.offsets_for_times([since], timeout=_CALL_TIMEOUT_S)
        if found.offset < 0 and found.error is None:
            # Nothing is as young, or the broker cannot tell: the embedded one then says so of the oldest record too.
            oldest = TopicPartition(topic, place.partition, 0)
            (oldest,) = consumer.offsets_for_times([oldest], timeout=_CALL_TIMEOUT_S)
            return end if oldest.offset >= 0 else 0
    except KafkaException:
        return 0
    return 0 if found.error is not None else min(found.offset, end)


def _read(consumer: Consumer, wanted: str, feed: Feed, at: int, end: int) -> int:
    """Read some records; return the first offset that was not read."""
    first = consumer.poll(_POLL_S)
    for message in [] if first is None else [first, *consumer.consume(_POLL_RECORDS, 0)]:
        error = message.error()
        if error is not None:
            if error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - the client's public constant
                return max(at, end)
            continue
        offset = message.offset() or 0
        if offset >= end:
            return end
        at = offset + 1
        if delta_name(headers_of(message)) == wanted:
            take(feed, message.value())
    return at


def take(feed: Feed, value: bytes | None) -> None:
    """Give a feed the value of a record; one that no worker of ours wrote is dropped."""
    try:
        feed.take(read_delta(value))
    except Undecodable:
        return
