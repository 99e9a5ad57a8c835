"""Where a worker begins to read cancels, on a broker that cannot tell records by their time."""

import time

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from producers.embedded import EmbeddedBroker
from streams.cancels import _starts


@pytest.mark.embedded
def test_all_that_the_embedded_broker_holds_is_read() -> None:
    with EmbeddedBroker({"cancels": 2}) as broker:
        producer = Producer({"bootstrap.servers": broker.bootstrap})
        producer.produce("cancels", b"one", partition=1)
        assert producer.flush(10) == 0
        consumer = Consumer({"bootstrap.servers": broker.bootstrap, "group.id": "cancels"})
        since_ms = int((time.time() - 60) * 1000)
        starts = _starts(consumer, [TopicPartition("cancels", number, since_ms) for number in (0, 1)])
        consumer.close()

    assert [one.offset for one in starts] == [0, 0]
