"""Looks for one old outcome on the result topics, from the ticket's time on.

Reads: result topics. Blocking: runs in an executor, about `limit_s` at most.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from confluent_kafka import Consumer, KafkaError, TopicPartition

from contracts.codec import Position
from contracts.kafka_config import headers_of
from gateways.egress.outcomes import Outcome, Repetition, event_name, read_outcome, read_repetition
from gateways.egress.reading import offset_since, partitions_of, translated_errors, watermarks

_CALL_TIMEOUT_S = 2.0
_POLL_S = 0.2
_POLL_RECORDS = 500
# The outcome is stamped after its event, but perhaps by a clock that is behind.
_CLOCK_MARGIN_MS = 60_000


class Wanted(NamedTuple):
    """What is looked for: an outcome, and the event that it is of, whose partition and time say where it can be."""

    result_id: str
    position: Position
    owner: str = ""

    @property
    def name(self) -> str:
        """Return by what the event is known."""
        return event_name(self.result_id, self.owner)

    @property
    def partition(self) -> int:
        """Return the partition that it must be in."""
        return self.position.partition

    @property
    def since_ms(self) -> int:
        """Return when its event was accepted."""
        return self.position.timestamp_ms

    def is_met_by(self, outcome: Outcome) -> bool:
        """Tell whether an outcome can be the one: not of another event, also under the same id."""
        return outcome.name == self.name and not outcome.is_of_another(self.position)


class Scanned(NamedTuple):
    """What a scan found, and how far it got.

    Attributes:
        outcome: the first one, or of an event that was put back from the dead letters the newest.
        next_offsets: by topic, where the next scan for the same outcome goes on.
        is_complete: False when the time ran out before the end of the topics.
        repetition: the event has no outcome of its own, because it repeats an earlier one.
    """

    outcome: Outcome | None
    next_offsets: Mapping[str, int]
    is_complete: bool
    repetition: Repetition | None = None


def scan(
    config: dict[str, Any],
    topics: Sequence[str],
    wanted: Wanted,
    from_offsets: Mapping[str, int],
    limit_s: float,
    is_cancelled: Callable[[], bool] = lambda: False,
) -> Scanned:
    """Read one partition of each topic until the outcome is found, the end is reached or the time is up.

    Behind a dead letter's marker it reads on, since the event may have been put back.

    Raises:
        LogUnavailable: Kafka did not answer.
    """
    give_up_s = time.monotonic() + limit_s
    found: Outcome | None = None
    with translated_errors():
        consumer = Consumer(config)
        try:
            open_topics = _assign(consumer, topics, wanted, from_offsets)
            next_offsets = dict(from_offsets) | open_topics
            while open_topics and time.monotonic() < give_up_s and not is_cancelled():
                for message in consumer.consume(_POLL_RECORDS, _POLL_S):
                    topic = message.topic() or ""
                    error = message.error()
                    if error is not None:
                        if error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - the client's public constant
                            open_topics.pop(topic, None)
                        continue
                    next_offsets[topic] = (message.offset() or 0) + 1
                    headers = headers_of(message)
                    outcome = read_outcome(headers, message.value(), message.timestamp()[1])
                    if outcome is not None and wanted.is_met_by(outcome):
                        found = outcome if found is None or outcome.redrives > found.redrives else found
                        if found.status != "dead_letter":
                            return Scanned(found, next_offsets, is_complete=True)
                    repetition = read_repetition(headers, message.value()) if outcome is None else None
                    if repetition is not None and repetition.position == wanted.position:
                        return Scanned(None, next_offsets, is_complete=True, repetition=repetition)
            return Scanned(found, next_offsets, is_complete=not open_topics)
        finally:
            consumer.close()


def _assign(
    consumer: Consumer, topics: Sequence[str], wanted: Wanted, from_offsets: Mapping[str, int]
) -> dict[str, int]:
    """Assign the partition of every topic that has it and something to read; return the topics' start offsets."""
    starts: dict[str, int] = {}
    for topic in topics:
        if wanted.partition not in partitions_of(consumer, topic, _CALL_TIMEOUT_S):
            continue
        low, high = watermarks(consumer, topic, wanted.partition, _CALL_TIMEOUT_S)
        start = from_offsets.get(topic)
        if start is None:
            since_ms = wanted.since_ms - _CLOCK_MARGIN_MS
            start = offset_since(consumer, topic, wanted.partition, since_ms, _CALL_TIMEOUT_S)
        # Also where the topic was made anew and the offset of an earlier scan means nothing.
        start = low if start is None or start > high else max(low, start)
        if start < high:
            starts[topic] = start
    consumer.assign([TopicPartition(topic, wanted.partition, start) for topic, start in starts.items()])
    return starts
