"""How far a group is behind, read from outside."""

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from contracts.errors import LogUnavailable
from contracts.settings import KafkaSettings
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
