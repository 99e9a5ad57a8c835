"""Reads what a group has committed, from outside the group; why not with an AdminClient: producers/group_lag.py."""

from collections.abc import Iterable, Sequence

from confluent_kafka import Consumer

from producers.group_lag import committed

_LIMIT_S = 5.0


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

    def read(self, topics: Iterable[str], numbers: Sequence[int]) -> dict[tuple[str, int], int]:
        """Return the committed offsets by topic and partition, where there are some.

        Raises:
            LogUnavailable: they cannot be read.
            KafkaException: Kafka does not answer.
        """
        return {
            (topic, number): offset
            for topic in topics
            for number, offset in committed(self._consumer, topic, numbers, _LIMIT_S).items()
        }

    def close(self) -> None:
        """Let go of the connections."""
        self._consumer.close()
