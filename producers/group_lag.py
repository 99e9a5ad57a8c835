"""Reads how far a consumer group is behind, from outside the group: it is never joined, and nothing is committed.

Blocking: `read`, up to three times the limit given to the constructor. Not thread-safe.
"""

from typing import Any

from confluent_kafka import ConsumerGroupTopicPartitions, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from contracts.errors import LogUnavailable
from contracts.kafka_config import librdkafka_config
from contracts.settings import KafkaSettings
from producers.kafka_client import error_of

# Slack for the answer of a request whose limit the client counts itself.
_ANSWER_SLACK_S = 1.0
_TRIES = 5
# Without annotations upstream.
_Spec: Any = OffsetSpec


class GroupLag:
    """Lag of one group.

    Args:
        kafka: the brokers.
        group_id: of the group.
        timeout_s: limit of one request.
    """

    def __init__(self, kafka: KafkaSettings, group_id: str, timeout_s: float = 3.0) -> None:
        config: dict[str, Any] = {**librdkafka_config(kafka), "client.id": "penstock-lag", "log_level": 0}
        self._client = AdminClient(config)
        self._group_id = group_id
        self._timeout_s = timeout_s

    def read(self, topic: str) -> int | None:
        """Return how many records of a topic the group has not committed; None when it never committed any of it.

        A partition without a commit counts from its beginning, as soon as another one of the topic has a commit.

        Raises:
            LogUnavailable: Kafka does not say.
        """
        try:
            committed = self._committed(topic)
            if not committed:
                return None
            numbers = sorted(self._client.list_topics(topic, timeout=self._timeout_s).topics[topic].partitions)
            ends = self._offsets(topic, numbers, _Spec.latest())
            unknown = [number for number in numbers if number not in committed]
            committed |= self._offsets(topic, unknown, _Spec.earliest()) if unknown else {}
        except (KafkaException, TimeoutError) as error:
            text = error_of(error).str() if isinstance(error, KafkaException) else "no answer in time"
            message = f"the lag of group {self._group_id} cannot be read: {text}"
            raise LogUnavailable(message) from error
        return sum(max(0, ends[number] - committed[number]) for number in numbers)

    def _committed(self, topic: str) -> dict[int, int]:
        for left in reversed(range(_TRIES)):
            request = ConsumerGroupTopicPartitions(self._group_id)
            asked = self._client.list_consumer_group_offsets([request], request_timeout=self._timeout_s)
            try:
                found = asked[self._group_id].result(self._timeout_s + _ANSWER_SLACK_S)
            except UnicodeDecodeError:
                # confluent-kafka 2.16 reads the metadata of commits past its end; another try gets other bytes.
                if left:
                    continue
                break
            return {part.partition: part.offset for part in found.topic_partitions if _is_commit(part, topic)}
        message = f"the commits of group {self._group_id} cannot be read"
        raise LogUnavailable(message)

    def _offsets(self, topic: str, numbers: list[int], spec: Any) -> dict[int, int]:
        wanted = {TopicPartition(topic, number): spec for number in numbers}
        asked = self._client.list_offsets(wanted, request_timeout=self._timeout_s)
        limit_s = self._timeout_s + _ANSWER_SLACK_S
        return {part.partition: future.result(limit_s).offset for part, future in asked.items()}


def _is_commit(part: TopicPartition, topic: str) -> bool:
    return part.topic == topic and part.offset >= 0
