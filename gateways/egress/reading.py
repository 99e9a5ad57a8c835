"""What the gateway's readers of result topics have in common: client settings, start offsets, translated errors.

Blocking: every function here asks a broker, never longer than the timeout it is given.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from contracts.errors import LogUnavailable
from contracts.kafka_config import librdkafka_config
from contracts.settings import KafkaSettings

# Bounds what a client holds in front of us: a queue, and one answer of each broker on its way into it.
QUEUE_LIMITS: dict[str, Any] = {
    "queued.max.messages.kbytes": 4 * 1024,
    # An answer goes into the queue as a whole, however full that is, and it comes compressed: of small results that are
    # alike, the usual 50 MB (1 MB a partition) were 170,000 records and 200 MB of memory (measured, 12 partitions).
    "fetch.max.bytes": 2**20,
    # A full queue is empty again sooner than the client would look by itself, after a second.
    "fetch.queue.backoff.ms": 20,
}
# No offsets are committed under this name: partitions are assigned by hand.
_GROUP = "penstock-gateway-reader"


def reader_config(kafka: KafkaSettings, client_id: str) -> dict[str, Any]:
    """Return the settings of a consumer that belongs to no group and says when it has reached the end.

    Raises:
        ConfigError: the Kafka settings cannot be used.
    """
    own = {
        "client.id": client_id,
        "group.id": _GROUP,
        "enable.auto.commit": False,
        "enable.partition.eof": True,
        "auto.offset.reset": "earliest",
        "allow.auto.create.topics": False,
        # Requests queue behind a waiting fetch on the same connection: metadata would take half a second each.
        "fetch.wait.max.ms": 100,
        "log.connection.close": False,
        # Critical ones only: while brokers are away the client writes dozens of lines a second; we say it once.
        "log_level": 2,
        "logger": logging.getLogger("penstock.gateway.reader"),
    }
    return librdkafka_config(kafka) | QUEUE_LIMITS | own


@contextmanager
def translated_errors() -> Iterator[None]:
    """Turn the client's errors into ours.

    Raises:
        LogUnavailable: Kafka did not answer, or not with what was asked for.
    """
    try:
        yield
    except KafkaException as error:
        message = f"Kafka cannot be read: {error.args[0] if error.args else error}"
        raise LogUnavailable(message, retry_after_s=2.0) from error


def partitions_of(consumer: Consumer, topic: str, timeout_s: float) -> tuple[int, ...]:
    """Return the topic's partitions; none when it does not exist (yet).

    Raises:
        LogUnavailable: no answer in time, or it may not be read.
    """
    with translated_errors():
        found = consumer.list_topics(topic, timeout=timeout_s).topics.get(topic)
    if found is not None and found.error is not None and found.error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
        message = f"{topic}: {found.error.str()}"
        raise LogUnavailable(message, retry_after_s=2.0)
    return () if found is None or found.error is not None else tuple(sorted(found.partitions))


def watermarks(consumer: Consumer, topic: str, partition: int, timeout_s: float) -> tuple[int, int]:
    """Return the first offset and the one behind the last.

    Raises:
        LogUnavailable: no answer in time.
    """
    with translated_errors():
        low_high: tuple[int, int] | None = consumer.get_watermark_offsets(
            TopicPartition(topic, partition), timeout=timeout_s
        )
    if low_high is None:
        message = f"no offsets of {topic} [{partition}] in time"
        raise LogUnavailable(message, retry_after_s=2.0)
    return low_high


def offset_since(consumer: Consumer, topic: str, partition: int, since_ms: int, timeout_s: float) -> int | None:
    """Return the first offset that is not older than an instant; None when the broker cannot tell, or none is.

    The embedded broker may not answer this request at all; callers then start at the first offset they may.
    """
    try:
        (found,) = consumer.offsets_for_times([TopicPartition(topic, partition, max(0, since_ms))], timeout=timeout_s)
    except KafkaException:
        return None
    return found.offset if found.error is None and found.offset >= 0 else None
