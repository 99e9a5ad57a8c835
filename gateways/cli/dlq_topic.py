"""Reads the dead-letter topic from one offset to another: bounded, however much is added meanwhile.

Reads: dead-letters, committed records only. Blocking: until the end that was asked for; gives up after 20 s of silence.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, Self

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from contracts.errors import LogUnavailable
from contracts.settings import KafkaSettings
from contracts.signals import killable
from gateways.cli.reading import METADATA_LIMIT_S, Heard, Read, as_read
from producers.kafka_client import NO_GROUP, QUEUE_LIMITS, client_config

_BATCH = 500
_POLL_S = 0.05
# We read to an end that is known: waiting there for more would only make a command slow.
_FETCH_WAIT_MS = 50
_SILENCE_LIMIT_S = 20.0
# What waits in the client, so that a topic of large records does not fill the memory. Kafka's 50 MB a fetch, and a
# second of rest when the queue is full, made 1,000,000 letters 320 MB, or slow.
_FETCH_BYTES = 4 * 2**20
_PASSING = frozenset({KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN, NO_GROUP})  # noqa: SLF001 - so named


class Span(NamedTuple):
    """Part of a partition: from `start` up to, not including, `end`."""

    partition: int
    start: int
    end: int


class LetterTopic:
    """The dead-letter topic; a context manager.

    Args:
        kafka: where.
        name: of the topic.
    """

    def __init__(self, kafka: KafkaSettings, name: str) -> None:
        self._kafka = kafka
        self.name = name
        self._heard = Heard()
        self._consumer = Consumer(
            client_config(kafka)
            | {
                # Never joined and nothing is committed: librdkafka wants a name.
                "group.id": "penstock-cli",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                # Retention may take the first offset that is wanted while a question stands or a slow --rate runs:
                # librdkafka would go on at the partition's end, and skip the letters that are still there.
                "auto.offset.reset": "earliest",
                # A redrive that was cut off leaves an aborted transaction: it did not happen.
                "isolation.level": "read_committed",
                **QUEUE_LIMITS,
                "fetch.max.bytes": _FETCH_BYTES,
                "fetch.wait.max.ms": _FETCH_WAIT_MS,
                "allow.auto.create.topics": kafka.embedded,
                "log_level": 0,
                "error_cb": self._heard,
            }
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._consumer.close()

    def partitions(self, topic: str | None = None) -> list[int]:
        """Return the partitions of this topic, or of another one.

        Raises:
            LogUnavailable: no broker answers, or there is no such topic.
        """
        topic = topic or self.name
        deadline_s = time.monotonic() + METADATA_LIMIT_S
        while True:
            try:
                with killable():
                    found = self._consumer.list_topics(topic, timeout=METADATA_LIMIT_S).topics[topic]
            except KafkaException as error:
                raise self._heard.unreachable(self._kafka, self._consumer, error) from error
            if found.error is None and found.partitions:
                return sorted(found.partitions)
            # On the embedded broker the first question makes the topic, and a later one finds it.
            if not self._kafka.embedded or time.monotonic() > deadline_s:
                message = f"topic {topic} does not exist; `penstock topics create` makes it"
                raise LogUnavailable(message)
            time.sleep(0.05)

    def spans(self, since_ms: int | None = None, partition: int | None = None) -> list[Span]:
        """Return what the topic holds now, from a record timestamp on at the latest.

        Raises:
            LogUnavailable: no broker answers.
        """
        wanted = [number for number in self.partitions() if partition in (None, number)]
        try:
            spans = [self._whole(number) for number in wanted]
            # The embedded broker answers every question for a time with "nothing as young": whoever reads sorts out.
            return spans if since_ms is None or self._kafka.embedded else self._from(since_ms, spans)
        except KafkaException as error:
            message = f"topic {self.name} cannot be read: {error.args[0].str()}"
            raise LogUnavailable(message) from error

    def _whole(self, partition: int) -> Span:
        low, high = self._consumer.get_watermark_offsets(TopicPartition(self.name, partition), METADATA_LIMIT_S)
        return Span(partition, low, high)

    def _from(self, since_ms: int, spans: list[Span]) -> list[Span]:
        asked = [TopicPartition(self.name, span.partition, since_ms) for span in spans]
        found = {place.partition: place.offset for place in self._consumer.offsets_for_times(asked, METADATA_LIMIT_S)}
        # Negative: nothing as young.
        return [
            Span(
                span.partition,
                span.end if found[span.partition] < 0 else max(found[span.partition], span.start),
                span.end,
            )
            for span in spans
        ]

    def read(self, spans: Iterable[Span], advance: Callable[[int], None] = lambda _: None) -> Iterator[list[Read]]:
        """Yield the records of these spans, those of a partition in order; empty lists while nothing comes.

        Args:
            spans: at most one per partition.
            advance: is told how many records more have been read.

        Raises:
            LogUnavailable: a broker reports an error that does not pass, or nothing came for 20 s.
        """
        left = {span.partition: span for span in spans if span.start < span.end}
        self._consumer.assign([TopicPartition(self.name, span.partition, span.start) for span in left.values()])
        heard_s = time.monotonic()
        while left:
            records = self._consume(left)
            advance(len(records))
            if not records and left and time.monotonic() - heard_s > _SILENCE_LIMIT_S:
                message = f"topic {self.name}: nothing came for {_SILENCE_LIMIT_S:g} s"
                raise LogUnavailable(message)
            yield records
            # After the caller: the time that it took is not the broker's.
            heard_s = time.monotonic() if records else heard_s
        self._consumer.unassign()

    def _consume(self, left: dict[int, Span]) -> list[Read]:
        """Return some records, and take them, and partitions that were read to their end, out of what is left."""
        records = []
        for message in self._consumer.consume(_BATCH, _POLL_S):
            error = message.error()
            partition, offset = message.partition() or 0, message.offset() or 0
            if error is None:
                span = left.get(partition)
                # Below its start: a log that was cut off is begun again, and what was read has been acted upon.
                if span and span.start <= offset < span.end:
                    records.append(as_read(message))
                    left[partition] = Span(partition, offset + 1, span.end)
                if span and offset + 1 >= span.end:
                    del left[partition]
            elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - confluent-kafka names its own codes so
                # Offsets up to the end may be transaction markers or compacted away.
                left.pop(partition, None)
            elif not error.retriable() and error.code() not in _PASSING:
                text = f"cannot read {self.name}: {error.str()}"
                raise LogUnavailable(text)
        return records
