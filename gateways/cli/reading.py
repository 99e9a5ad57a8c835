"""Reads records of our topics for people: the whole topic or only what is new, without a consumer group.

Reads: any of our topics. Blocking: `start` up to 5 s a topic, `poll` up to its timeout.
"""

import contextlib
import time
from collections.abc import Iterable
from typing import NamedTuple, Self

from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_END,
    TIMESTAMP_NOT_AVAILABLE,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)
from confluent_kafka.admin import ClusterMetadata

from contracts.errors import LogUnavailable
from contracts.kafka_config import bytes_of, headers_of
from contracts.settings import KafkaSettings
from contracts.signals import killable
from producers.kafka_client import NO_GROUP, client_config

METADATA_LIMIT_S = 5.0
# How long a reader of what there is waits for the next record, as `penstock dlq` does.
SILENCE_LIMIT_S = 20.0
_ALL_BROKERS_DOWN = KafkaError._ALL_BROKERS_DOWN  # noqa: SLF001 - confluent-kafka names its own codes so


class Read(NamedTuple):
    """One record as it lies on its topic."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]


class Heard:
    """What a client says about its connections: `error_cb` of its configuration, since it comes with no record.

    Attributes:
        is_cut_off: the last broker was lost.
        why: text of the last failure: refused, an unknown host, a wrong password.
    """

    def __init__(self) -> None:
        self.is_cut_off = False
        self.why = ""

    def __call__(self, error: KafkaError) -> None:
        """Take note of an error."""
        if error.code() == _ALL_BROKERS_DOWN:
            self.is_cut_off = True
        else:
            self.why = error.str()

    def unreachable(self, kafka: KafkaSettings, client: Consumer, error: KafkaException) -> LogUnavailable:
        """Return the error for a question that nobody answered; of the question itself is known only that it failed."""
        # Errors are told when a client is polled.
        client.poll(0)
        servers = ",".join(kafka.bootstrap_servers)
        return LogUnavailable(f"no Kafka broker answers at {servers} ({self.why or error.args[0].str()})")


class TopicReader:
    """Reads all partitions of some topics; a context manager.

    Args:
        kafka: where.
        topics: which; on the embedded broker they appear when they are asked for.
        from_beginning: all there is, else only what comes from now on.
        patience_s: nothing may come for so long before the end is reached; None = for ever.
    """

    def __init__(
        self, kafka: KafkaSettings, topics: Iterable[str], *, from_beginning: bool, patience_s: float | None = None
    ) -> None:
        self._kafka = kafka
        self._topics = tuple(topics)
        self._from_beginning = from_beginning
        self._patience_s = patience_s
        self._waited_s = 0.0
        self._heard = Heard()
        self._open: set[tuple[str, int]] = set()
        self._consumer = Consumer(
            client_config(kafka)
            | {
                # Never joined and nothing is committed: librdkafka wants a name.
                "group.id": "penstock-cli",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "allow.auto.create.topics": kafka.embedded,
                # Failures are told by us, with what to do about them.
                "log_level": 0,
                "error_cb": self._heard,
            }
        )

    def __enter__(self) -> Self:
        """Start it."""
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Close the connection."""
        self._consumer.close()

    def start(self) -> None:
        """Find the partitions and place the reader.

        Raises:
            LogUnavailable: no broker answers, or a topic does not exist.
        """
        places = [
            TopicPartition(topic, partition, OFFSET_BEGINNING if self._from_beginning else OFFSET_END)
            for topic in self._topics
            for partition in self._partitions(topic)
        ]
        self._open = {(place.topic, place.partition) for place in places}
        self._consumer.assign(places)

    def broker_count(self) -> int:
        """Return how many brokers the cluster has.

        Raises:
            LogUnavailable: none answers.
        """
        return len(self._metadata(None).brokers)

    def _metadata(self, topic: str | None) -> ClusterMetadata:
        try:
            which = {} if topic is None else {"topic": topic}
            with killable():
                found: ClusterMetadata = self._consumer.list_topics(**which, timeout=METADATA_LIMIT_S)
        except KafkaException as error:
            raise self._heard.unreachable(self._kafka, self._consumer, error) from error
        return found

    def _partitions(self, topic: str) -> list[int]:
        deadline_s = time.monotonic() + METADATA_LIMIT_S
        while True:
            found = self._metadata(topic).topics[topic]
            if found.error is None and found.partitions:
                return sorted(found.partitions)
            # On the embedded broker the first question makes the topic, and a later one finds it.
            if not self._kafka.embedded or time.monotonic() > deadline_s:
                message = f"topic {topic} does not exist; `penstock topics create` makes it"
                raise LogUnavailable(message)
            time.sleep(0.05)

    @property
    def at_end(self) -> bool:
        """True once every partition has been read to its end; new records may have come since."""
        return not self._open

    @property
    def is_cut_off(self) -> bool:
        """True from when the last broker was lost until one answers."""
        return self._heard.is_cut_off

    def poll(self, timeout_s: float) -> Read | None:
        """Return the next record; None when there is none within the timeout, or twice that while it is cut off.

        Raises:
            LogUnavailable: the broker reports an error that does not pass by itself, or patience is over.
        """
        message = self._consumer.poll(timeout_s)
        if message is None:
            self._bear_silence(timeout_s)
            return None
        error = message.error()
        if error is None:
            self._has_come()
            return as_read(message)
        if error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - confluent-kafka names its own codes so
            self._has_come()
            self._open.discard((message.topic() or "", message.partition() or 0))
        elif not error.retriable() and error.code() not in {KafkaError._TRANSPORT, _ALL_BROKERS_DOWN, NO_GROUP}:  # noqa: SLF001 - same
            text = f"cannot read: {error.str()}"
            raise LogUnavailable(text)
        return None

    def _has_come(self) -> None:
        self._waited_s, self._heard.is_cut_off = 0.0, False

    def _bear_silence(self, timeout_s: float) -> None:
        if self._heard.is_cut_off:
            # Where nothing new comes, no record says that a broker is back.
            with contextlib.suppress(KafkaException):
                self._consumer.list_topics(self._topics[0], timeout=timeout_s)
                self._heard.is_cut_off = False
        # Only the time that was spent in here: what the caller does meanwhile, such as wait for a pager, is its own.
        self._waited_s += timeout_s
        if self._patience_s is not None and self._waited_s > self._patience_s and not self.at_end:
            servers = ",".join(self._kafka.bootstrap_servers)
            message = (
                f"nothing came for {self._patience_s:g} s from Kafka at {servers}, "
                f"and not all was read of {', '.join(self._topics)}"
            )
            raise LogUnavailable(message)


def as_read(message: Message) -> Read:
    """Return a consumed message as our record."""
    kind, timestamp_ms = message.timestamp()
    return Read(
        topic=message.topic() or "",
        partition=message.partition() or 0,
        offset=message.offset() or 0,
        timestamp_ms=0 if kind == TIMESTAMP_NOT_AVAILABLE else timestamp_ms,
        key=bytes_of(message.key()),
        value=bytes_of(message.value()),
        # Such a record is none of ours, and is shown as such.
        headers=headers_of(message, unreadable=[("(headers that cannot be read)", None)]),
    )
