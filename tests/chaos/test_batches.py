"""Records that name no worker get the name that their producer has elsewhere."""

import json
from pathlib import Path

import pytest
from confluent_kafka import Producer

from tests.chaos.batches import with_writers
from tests.chaos.ledger import Outcome, Place
from tests.kafkalab.fixtures import KafkaLab
from tests.kafkalab.jvm import JvmBroker

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(120)]


def _outcome(topic: str, offset: int, writer: str) -> Outcome:
    return Outcome(Place("events", 0, offset, 1), topic, 0, offset, "penstock.result.v1", 1, writer)


def test_a_record_without_a_name_gets_that_of_its_producer_and_of_no_other(kafka: KafkaLab) -> None:
    broker = kafka.broker
    if not isinstance(broker, JvmBroker):
        pytest.skip("the batches can be seen only of a broker of our own")
    (topic,) = kafka.create("results", partitions=1)
    config = {"bootstrap.servers": broker.bootstrap, "enable.idempotence": True}
    for count in (3, 2, 1):
        # Each a producer of its own, and so each with its own id.
        producer = Producer(config)
        for number in range(count):
            producer.produce(topic, json.dumps(number).encode())
        assert producer.flush(30) == 0
    known = [_outcome(topic, offset, writer) for offset, writer in enumerate(("w1", "", "", "w2", "", ""))]
    named = with_writers(known, [broker.data])

    assert [outcome.writer for outcome in named] == ["w1", "w1", "w1", "w2", "w2", ""]
    assert with_writers(known, [Path("nowhere")]) == known
