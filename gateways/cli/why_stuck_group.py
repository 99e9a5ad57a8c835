"""Looks at the consumer group from outside, for what no worker tells: what it has committed, and what comes next.

Reads: event topics, one record per partition. Blocking: up to 10 s a request. Kafka does not tell when a commit was
made; the age of the record at the commit point says how far behind the group is.
"""

import time
from collections.abc import Iterator
from typing import Any

import msgspec
from confluent_kafka import (
    Consumer,
    ConsumerGroupState,
    KafkaError,
    KafkaException,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient

from contracts.errors import LogUnavailable
from contracts.settings import Settings
from contracts.topics import Topics
from gateways.cli.reading import Read, as_read
from gateways.cli.wording import attribute, printable
from producers.group_lag import committed
from producers.kafka_client import client_config

_LIMIT_S = 10.0
_NO_BROKER = frozenset({KafkaError._TIMED_OUT, KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN})  # noqa: SLF001 - so named


class GroupPartition(msgspec.Struct, frozen=True, kw_only=True):
    """A partition as the group left it.

    Attributes:
        committed: None where the group never committed.
        first, end: offsets of the partition.
        next_id, next_type, next_age_s: of the record at the commit point; None where there is none.
    """

    topic: str
    partition: int
    committed: int | None
    first: int
    end: int
    next_offset: int | None = None
    next_id: str | None = None
    next_type: str | None = None
    next_age_s: float | None = None

    @property
    def lag(self) -> int:
        """Return how many offsets are not committed."""
        return max(0, self.end - max(self.first, self.committed or 0))


class GroupReport(msgspec.Struct, frozen=True, kw_only=True):
    """The group: its state in Kafka's words, and its members as `client at host: number of partitions`.

    Attributes:
        partitions: those that were asked for.
    """

    app_id: str
    state: str
    members: tuple[str, ...]
    partitions: tuple[GroupPartition, ...]


def look(settings: Settings, told: frozenset[tuple[str, int]] = frozenset()) -> GroupReport:
    """Ask Kafka about the group of the workers.

    Args:
        settings: the whole configuration.
        told: topic and number of partitions that are not looked at, because a worker tells of them.

    Raises:
        LogUnavailable: it does not answer.
    """
    config: dict[str, Any] = {**client_config(settings.kafka), "log_level": 0}
    try:
        return _look(settings, config, told)
    except (KafkaException, TimeoutError) as error:
        servers = ",".join(settings.kafka.bootstrap_servers)
        message = f"no Kafka broker answers at {servers} within {_LIMIT_S:g} s"
        # Which of them it is depends on who notices first: librdkafka or who waits for it.
        if isinstance(error, KafkaException) and error.args[0].code() not in _NO_BROKER:
            message = f"Kafka does not say how the group is: {error.args[0].str()}"
        raise LogUnavailable(message) from error


def _look(settings: Settings, config: dict[str, Any], told: frozenset[tuple[str, int]]) -> GroupReport:
    group_id = settings.worker.app_id
    admin = AdminClient(config)
    described = admin.describe_consumer_groups([group_id], request_timeout=_LIMIT_S)[group_id].result(_LIMIT_S)
    # The workers' group, to ask for its commits: without a subscription it is not joined, and nothing is committed.
    # An AdminClient that asks ends the process while the group's coordinator is loading (see producers/group_lag.py).
    consumer = Consumer(config | {"group.id": group_id, "enable.auto.commit": False})
    try:
        topics = Topics(settings.kafka.topic_prefix)
        names = [*(topics.events(lane) for lane in settings.worker.lanes), topics.retries]
        partitions = tuple(part for name in names for part in _partitions(consumer, name, told))
    finally:
        consumer.close()
    state = ConsumerGroupState(described.state).name.lower()
    members = tuple(
        printable(f"{one.client_id} at {one.host}: {len(one.assignment.topic_partitions)} partitions")
        for one in described.members
    )
    return GroupReport(app_id=group_id, state=state, members=members, partitions=partitions)


def _partitions(consumer: Consumer, topic: str, told: frozenset[tuple[str, int]]) -> Iterator[GroupPartition]:
    found = consumer.list_topics(topic, timeout=_LIMIT_S).topics[topic].partitions or ()
    numbers = sorted(number for number in found if (topic, number) not in told)
    commits = {one.partition: one.offset for one in committed(consumer, topic, numbers, _LIMIT_S)} if numbers else {}
    for number in numbers:
        first, end = consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=_LIMIT_S)
        point = commits.get(number)
        start = max(first, point or 0)
        record = _record_at(consumer, topic, number, start) if start < end else None
        yield GroupPartition(
            topic=topic,
            partition=number,
            committed=point,
            first=first,
            end=end,
            next_offset=record.offset if record else None,
            next_id=printable(attribute(record, "id"))[:256] if record else None,
            next_type=printable(attribute(record, "type"))[:256] if record else None,
            next_age_s=round(time.time() - record.timestamp_ms / 1000, 1) if record and record.timestamp_ms else None,
        )


def _record_at(consumer: Consumer, topic: str, partition: int, offset: int) -> Read | None:
    consumer.assign([TopicPartition(topic, partition, offset)])
    message = consumer.poll(_LIMIT_S / 2)
    consumer.unassign()
    return as_read(message) if message is not None and message.error() is None else None
