"""How far a group is behind, read from outside."""

from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from contracts.errors import LogUnavailable
from contracts.settings import KafkaSettings
from producers import group_lag
from producers.group_lag import GroupLag
from tests.kafkalab.fixtures import KafkaLab
from tests.support import free_port


@pytest.mark.kafka
def test_the_lag_is_what_is_not_committed_of_all_partitions_once_there_is_a_commit(kafka: KafkaLab) -> None:
    (topic,) = kafka.create("lagging", partitions=2)
    group = kafka.name("workers")
    producer = Producer({"bootstrap.servers": kafka.bootstrap, "log_level": 0})
    for number in range(15):
        producer.produce(topic, b"v", partition=0 if number < 10 else 1)
    assert producer.flush(10) == 0
    lag = GroupLag(KafkaSettings(bootstrap_servers=kafka.bootstrap), group)
    before = lag.read(topic)
    consumer = Consumer({"bootstrap.servers": kafka.bootstrap, "group.id": group, "log_level": 0})
    # With a mark behind the offset, as our workers write it.
    consumer.commit(offsets=[TopicPartition(topic, 0, 4, metadata="caf\u00e9 " * 20)], asynchronous=False)
    consumer.close()

    assert before is None
    assert lag.read(topic) == 6 + 5
    lag.close()


@pytest.mark.embedded
def test_kafka_being_away_is_an_error_within_the_limit() -> None:
    lag = GroupLag(KafkaSettings(bootstrap_servers=f"127.0.0.1:{free_port()}"), "workers", timeout_s=0.3)

    with pytest.raises(LogUnavailable, match="lag of group workers cannot be read"):
        lag.read("events")


def test_a_consumer_that_has_lost_all_brokers_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would find none as long as the gateway lives, and nobody would be told to come later."""
    made: list[Any] = []

    class Stranded:
        is_open = True

        def __init__(self, config: dict[str, Any]) -> None:
            self._look = config["stats_cb"]
            made.append(self)

        def poll(self, _timeout_s: float) -> None:
            """Look at itself, as a client does each time its statistics are due."""
            self._look('{ "name": "lag#1", "client_id": "lag", "brokers":{ }, "topics":{ } }')

        def list_topics(self, topic: str, timeout: float) -> Any:  # noqa: ARG002 - the client's
            """Know the topic."""
            return SimpleNamespace(topics={topic: SimpleNamespace(partitions={})})

        def close(self) -> None:
            """Note it."""
            self.is_open = False

    monkeypatch.setattr(group_lag, "Consumer", Stranded)
    lag = GroupLag(KafkaSettings(bootstrap_servers="127.0.0.1:1"), "workers")
    lag.read("events")
    assert len(made) == 1

    lag.read("events")

    assert [one.is_open for one in made] == [False, True]
