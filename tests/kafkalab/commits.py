"""Reads what a group has committed, from outside the group; why not with an AdminClient: producers/group_lag.py."""

import contextlib
import re
from collections.abc import Iterable, Mapping, Sequence

from confluent_kafka import Consumer, TopicPartition

from contracts.errors import LogUnavailable
from producers.group_lag import committed

_LIMIT_S = 5.0
_TRIES = 20
# Not `decode_mark`: confluent-kafka 2.16 may add something at the end of the metadata.
_LOG = re.compile(r"^penstock1 (?:![a-z]+=\d+ )*?!log=(\d+) ")


class Commits:
    """The commits of one group.

    Args:
        bootstrap: of the brokers.
        group_id: of the group.
    """

    def __init__(self, bootstrap: str, group_id: str) -> None:
        # Without a subscription it does not join.
        config = {"bootstrap.servers": bootstrap, "group.id": group_id, "enable.auto.commit": False, "log_level": 0}
        self._consumer = Consumer(config)

    def read(
        self, topics: Iterable[str], numbers: Sequence[int], ids: Mapping[str, int] | None = None
    ) -> dict[tuple[str, int], int]:
        """Return the committed offsets by topic and partition, where there are some.

        Args:
            topics: which.
            numbers: of the partitions.
            ids: of the topics; a commit whose mark names another one is of a former log, and left out.

        Raises:
            LogUnavailable: they cannot be read.
            KafkaException: Kafka does not answer.
        """
        return {
            (one.topic, one.partition): one.offset
            for topic in topics
            for one in self._of(topic, numbers, (ids or {}).get(topic))
        }

    def _of(self, topic: str, numbers: Sequence[int], topic_id: int | None) -> list[TopicPartition]:
        for _ in range(_TRIES):
            found = committed(self._consumer, topic, numbers, _LIMIT_S)
            # confluent-kafka 2.16 reads the metadata past its end; another try gets other bytes.
            with contextlib.suppress(UnicodeDecodeError):
                return [one for one in found if topic_id is None or not _is_of_another(one.metadata or "", topic_id)]
        message = f"the marks of {topic} cannot be read"
        raise LogUnavailable(message)

    def close(self) -> None:
        """Let go of the connections."""
        self._consumer.close()


def _is_of_another(metadata: str, topic_id: int) -> bool:
    found = _LOG.search(metadata)
    return found is not None and int(found[1]) != topic_id
