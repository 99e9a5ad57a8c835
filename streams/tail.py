"""Reads the tail of the result topics: which events are answered already.

Reads: results. Blocking: runs in a thread; measured 0.03-0.3 s for up to 100,000 small results (docs/pay-once.md).
"""

import contextlib
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import confluent_kafka

from contracts.codec import source_position
from contracts.errors import LogUnavailable
from contracts.kafka_config import headers_of, librdkafka_config
from contracts.logs import logger
from contracts.settings import KafkaSettings
from producers.admin import TopicAdmin
from streams.engine.item import TP, ResultRef

_REQUEST_TIMEOUT_S = 10.0
# The books wait for it, and can do without; it takes 20-35 ms on one broker of our own (measured).
_IDS_TIMEOUT_S = 2.0
_NOT_THERE = frozenset(
    {
        confluent_kafka.KafkaError._UNKNOWN_PARTITION,  # noqa: SLF001 - the client's public constants
        confluent_kafka.KafkaError._UNKNOWN_TOPIC,  # noqa: SLF001
        confluent_kafka.KafkaError.UNKNOWN_TOPIC_OR_PART,
    }
)
_IDLE_TIMEOUT_S = 20.0
_BATCH = 500

T = TypeVar("T")


@dataclass
class Tail:
    """What a scan found for one source partition.

    Attributes:
        answered: (offset, timestamp_ms) of events -> where their terminal record lies.
        starts, ends: per result topic, the scanned range of the matching partition.
        log: where the source partition begins and ends.
    """

    answered: dict[tuple[int, int], ResultRef] = field(default_factory=dict)
    starts: dict[str, int] = field(default_factory=dict)
    ends: dict[str, int] = field(default_factory=dict)
    log: tuple[int, int] = (0, 2**63 - 1)


def ask(
    kafka: KafkaSettings, name: str, isolation: str, what: str, question: Callable[[confluent_kafka.Consumer], T]
) -> T:
    """Return what a consumer outside any group finds out.

    Args:
        kafka: connection.
        name: required by the client as a group, never joined: partitions are assigned.
        isolation: of aborted records and open transactions.
        what: is read, for the message.
        question: is asked.

    Raises:
        LogUnavailable: a broker did not answer, or the consumer could not be made.
    """
    config = librdkafka_config(kafka) | {
        "group.id": name,
        "enable.auto.commit": "false",
        "enable.partition.eof": "false",
        "auto.offset.reset": "error",
        "isolation.level": isolation,
    }
    try:
        # Also a client fails that cannot be made: its threads cannot be started, say.
        consumer = confluent_kafka.Consumer(config, logger=logging.getLogger("penstock.tail"))
        try:
            return question(consumer)
        finally:
            consumer.close()
    except confluent_kafka.KafkaException as error:
        message = f"{what} cannot be read: {error.args[0]}"
        raise LogUnavailable(message) from error


def read_ranges(
    consumer: confluent_kafka.Consumer,
    starts: Mapping[TP, int],
    ends: Mapping[TP, int],
    take: Callable[[confluent_kafka.Message], None],
) -> None:
    """Read each partition from its start to its end.

    Raises:
        LogUnavailable: no progress was made.
        KafkaException: a broker's answer.
    """
    consumer.assign([confluent_kafka.TopicPartition(tp.topic, tp.partition, start) for tp, start in starts.items()])
    open_partitions = set(starts)
    idle_s = 0.0
    while open_partitions:
        messages = consumer.consume(_BATCH, timeout=0.5)
        for message in messages:
            if message.error() is not None:
                raise confluent_kafka.KafkaException(message.error())
            take(message)
        # Positions, not the last message's offset: a partition may end with transaction markers.
        at = consumer.position([confluent_kafka.TopicPartition(*tp) for tp in open_partitions])
        open_partitions -= {TP(p.topic, p.partition) for p in at if p.offset >= ends[TP(p.topic, p.partition)]}
        idle_s = 0.0 if messages else idle_s + 0.5
        if idle_s >= _IDLE_TIMEOUT_S:
            message_text = f"partitions cannot be read to their end: {sorted(open_partitions)}"
            raise LogUnavailable(message_text)


def _bounds(consumer: confluent_kafka.Consumer, tp: TP) -> tuple[int, int] | None:
    """Return where a source partition begins and ends; None when its topic is not there (any more)."""
    try:
        bounds: tuple[int, int] = consumer.get_watermark_offsets(
            confluent_kafka.TopicPartition(*tp), timeout=_REQUEST_TIMEOUT_S
        )
    except confluent_kafka.KafkaException as error:
        if error.args[0].code() in _NOT_THERE:
            return None
        raise
    return bounds


class TailReader:
    """Scans result partitions with a consumer of its own, outside any group.

    Args:
        kafka: connection.
        app_id: only terminal records of this application count.
        result_topics: all of them.

    Attributes:
        result_topics: all of them.
    """

    def __init__(self, kafka: KafkaSettings, app_id: str, result_topics: frozenset[str]) -> None:
        self._kafka = kafka
        self._app_id = app_id
        self.result_topics = result_topics
        self._is_told = False

    def ids(self, topics: Iterable[str]) -> dict[str, int]:
        """Return which log each topic is: its id, another one when it is made anew; without those that are not known.

        The embedded broker has none.
        """
        wanted = frozenset(topics)
        found: dict[str, int] = {}
        if not self._kafka.embedded:
            # One that cannot be made knows none; it is no reason to end the worker.
            with contextlib.suppress(confluent_kafka.KafkaException, LogUnavailable):
                found = TopicAdmin(self._kafka, _IDS_TIMEOUT_S).ids(wanted)
        if not (self._is_told or self._kafka.embedded) and (unknown := sorted(wanted - found.keys())):
            self._is_told = True
            detail = "when such a topic is made anew, a commit of the former one may be taken for one of the new"
            logger("worker").info("topics.unidentified", topics=unknown, detail=detail)
        return found

    def read(self, wanted: Mapping[TP, tuple[int, dict[str, int] | None]]) -> dict[TP, Tail]:
        """Scan for several source partitions at once.

        Args:
            wanted: per source partition, committed offset and marks; marks None = skip nothing, only find the ends.

        Raises:
            LogUnavailable: a broker did not answer, or the scan made no progress.
        """
        return self._ask(lambda consumer: self._scan(consumer, wanted))

    def ends(self, tps: Iterable[TP]) -> dict[TP, dict[str, int]]:
        """Return, per source partition, where the matching partition of each result topic ends now.

        Raises:
            LogUnavailable: a broker did not answer.
        """
        return self._ask(lambda consumer: {tp: self._ends(consumer, tp.partition) for tp in tps})

    def _ends(self, consumer: confluent_kafka.Consumer, partition: int) -> dict[str, int]:
        places = (confluent_kafka.TopicPartition(topic, partition) for topic in self.result_topics)
        return {place.topic: consumer.get_watermark_offsets(place, timeout=_REQUEST_TIMEOUT_S)[1] for place in places}

    def _ask(self, question: Callable[[confluent_kafka.Consumer], T]) -> T:
        # A transaction that somebody else leaves open on a result topic would hide our answers behind it.
        return ask(self._kafka, f"{self._app_id}-tail", "read_uncommitted", "result topics", question)

    def _scan(
        self, consumer: confluent_kafka.Consumer, wanted: Mapping[TP, tuple[int, dict[str, int] | None]]
    ) -> dict[TP, Tail]:
        for topic in self.result_topics:
            # Where topics appear on first use (the embedded broker), this makes it; elsewhere it was found at start.
            consumer.list_topics(topic, timeout=_REQUEST_TIMEOUT_S)
        tails = {tp: Tail() for tp in wanted}
        assignments: dict[TP, int] = {}
        for tp, (_, marks) in wanted.items():
            for topic in self.result_topics:
                partition = confluent_kafka.TopicPartition(topic, tp.partition)
                low, high = consumer.get_watermark_offsets(partition, timeout=_REQUEST_TIMEOUT_S)
                start = high if marks is None else min(max(marks.get(topic, high), low), high)
                tails[tp].starts[topic], tails[tp].ends[topic] = start, high
                if start < high:
                    result = TP(topic, tp.partition)
                    assignments[result] = min(start, assignments.get(result, start))
        for tp, tail in tails.items():
            # Behind the results: an event that is answered there lies before this end, or its broker has lost it.
            tail.log = _bounds(consumer, tp) or tail.log
        if assignments:
            ends = {TP(topic, tp.partition): end for tp, tail in tails.items() for topic, end in tail.ends.items()}
            self._read(consumer, assignments, ends, wanted, tails)
        return tails

    def _read(
        self,
        consumer: confluent_kafka.Consumer,
        starts: dict[TP, int],
        ends: dict[TP, int],
        wanted: Mapping[TP, tuple[int, dict[str, int] | None]],
        tails: dict[TP, Tail],
    ) -> None:
        read_ranges(consumer, starts, ends, lambda message: self._note(message, wanted, tails))

    def _note(
        self,
        message: confluent_kafka.Message,
        wanted: Mapping[TP, tuple[int, dict[str, int] | None]],
        tails: dict[TP, Tail],
    ) -> None:
        found = source_position(headers_of(message))
        if found is None or found[0] != self._app_id:
            return
        position = found[1]
        tp = TP(position.topic, position.partition)
        request = wanted.get(tp)
        if request is not None and request[1] is not None and position.offset >= request[0]:
            ref = ResultRef(message.topic() or "", message.offset() or 0)
            tails[tp].answered[(position.offset, position.timestamp_ms)] = ref
