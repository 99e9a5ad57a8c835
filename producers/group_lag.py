"""Reads how far a consumer group is behind, from outside the group: it is never joined, and nothing is committed.

A consumer asks, not an AdminClient: librdkafka 2.16 ends the process (SIGSEGV in rd_kafka_cgrp_op) when an AdminClient
asks for a group's commits while the group's coordinator is loading or has moved; a consumer has what that code needs.
Blocking: `read`, up to the limit given to the constructor and again for each partition. Not thread-safe.
"""

from collections.abc import Sequence
from typing import Any

from confluent_kafka import Consumer, KafkaException, TopicPartition

from contracts.errors import LogUnavailable
from contracts.kafka_config import self_watching
from contracts.settings import KafkaSettings
from producers.kafka_client import client_config, error_of, made

_TRIES = 10


class GroupLag:
    """Lag of one group.

    Args:
        kafka: the brokers.
        group_id: of the group.
        timeout_s: limit of one request.
    """

    def __init__(self, kafka: KafkaSettings, group_id: str, timeout_s: float = 3.0) -> None:
        own: dict[str, Any] = {
            "client.id": "penstock-lag",
            # Without a subscription it does not join.
            "group.id": group_id,
            "enable.auto.commit": False,
            "log_level": 0,
        }
        self._config = client_config(kafka) | own
        self._consumer = self._made()
        self._group_id = group_id
        self._timeout_s = timeout_s

    def read(self, topic: str) -> int | None:
        """Return how many records of a topic the group has not committed; None when it never committed any of it.

        A partition without a commit counts from its beginning, as soon as another one of the topic has a commit.

        Raises:
            LogUnavailable: Kafka does not say.
        """
        try:
            self._look()
            partitions = self._consumer.list_topics(topic, timeout=self._timeout_s).topics[topic].partitions
            numbers = sorted(partitions or ())
            found = committed(self._consumer, topic, numbers, self._timeout_s)
            commits = {part.partition: part.offset for part in found}
            return sum(self._lag(topic, n, commits.get(n, 0)) for n in numbers) if commits else None
        except KafkaException as error:
            message = f"the lag of group {self._group_id} cannot be read: {error_of(error).str()}"
            raise LogUnavailable(message) from error

    def close(self) -> None:
        """Let go of the connections."""
        self._consumer.close()

    def _made(self) -> Consumer:
        return made(lambda: Consumer(self._config | self_watching()))

    def _look(self) -> None:
        """Make another consumer when this one has lost all its brokers."""
        try:
            # Nothing is assigned to it.
            self._consumer.poll(0)
        except LogUnavailable:
            # First the other one: where none can be made now, this one is asked again, and must not be closed.
            former, self._consumer = self._consumer, self._made()
            former.close()

    def _lag(self, topic: str, number: int, offset: int) -> int:
        part = TopicPartition(topic, number)
        first, end = self._consumer.get_watermark_offsets(part, timeout=self._timeout_s, cached=False)
        return max(0, end - max(first, offset))


def committed(consumer: Consumer, topic: str, numbers: Sequence[int], timeout_s: float) -> list[TopicPartition]:
    """Return what the consumer's group has committed, with its metadata; without partitions it never committed.

    Raises:
        LogUnavailable: the commits cannot be read.
        KafkaException: Kafka does not answer.
    """
    if not numbers:
        return []
    for _ in range(_TRIES):
        try:
            found = consumer.committed([TopicPartition(topic, number) for number in numbers], timeout=timeout_s)
        except UnicodeDecodeError:
            # confluent-kafka 2.16 reads the metadata of commits past its end; another try gets other bytes.
            continue
        for part in found:
            if part.error is not None:
                raise KafkaException(part.error)
        return [part for part in found if part.offset >= 0]
    message = f"the commits of {topic} cannot be read"
    raise LogUnavailable(message)
