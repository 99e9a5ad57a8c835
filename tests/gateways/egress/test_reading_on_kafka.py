"""What a reader's client holds in front of us on real Kafka, where brokers answer with compressed batches."""

import hashlib
import json
from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from contracts.kafka_config import librdkafka_config
from contracts.settings import KafkaSettings
from contracts.settings.egress import EgressProcess
from gateways.egress.group import group_config
from gateways.egress.reading import reader_config
from tests.kafkalab.fixtures import KafkaLab
from tests.support import eventually

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(90)]

PARTITIONS = 12
RECORDS = 240_000
# Reports in which something is held: 2 s.
FULL_FOR = 10
MOST_BYTES = 16 * 2**20


def value(number: int) -> bytes:
    """Return a result's worth of bytes, most of them as in every other: a batch takes a fifth of it on its way."""
    return hashlib.sha256(b"%d" % number).hexdigest().encode() + b"x" * 300


def of_a_view(kafka: KafkaSettings) -> dict[str, Any]:
    return reader_config(kafka, "test")


def of_a_door(kafka: KafkaSettings) -> dict[str, Any]:
    return group_config(librdkafka_config(kafka), "test", EgressProcess())


@pytest.fixture
def topic(kafka: KafkaLab) -> str:
    """A topic with more than a client should hold."""
    (name,) = kafka.create("results", partitions=PARTITIONS)
    producer = Producer(
        {
            "bootstrap.servers": kafka.bootstrap,
            "compression.type": "lz4",
            "linger.ms": 50,
            "queue.buffering.max.messages": RECORDS,
        }
    )
    for number in range(RECORDS):
        producer.produce(name, value(number), partition=number % PARTITIONS)
    assert producer.flush(60) == 0
    return name


@pytest.mark.parametrize("config", [of_a_view, of_a_door])
def test_a_client_holds_no_more_than_its_queue_and_an_answer(
    kafka: KafkaLab, topic: str, config: Callable[[KafkaSettings], dict[str, Any]]
) -> None:
    held: list[int] = []

    def note(text: str) -> None:
        found = json.loads(text)["topics"].get(topic, {}).get("partitions", {})
        # All partitions share one queue, which each of them shows.
        held.append(max((one["fetchq_size"] for one in found.values()), default=0))

    settings = KafkaSettings(bootstrap_servers=(kafka.bootstrap,))
    consumer = Consumer(config(settings) | {"statistics.interval.ms": 200, "stats_cb": note})
    try:
        consumer.assign([TopicPartition(topic, number, 0) for number in range(PARTITIONS)])
        # Hardly anything is taken, so that it holds what it may.
        eventually(lambda: consumer.poll(0.1) and len([one for one in held if one]) >= FULL_FOR, 60)
    finally:
        consumer.close()

    assert max(held) <= MOST_BYTES
