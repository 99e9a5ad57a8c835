"""Records that name no worker get the name that their producer has elsewhere."""

import json
from pathlib import Path

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from tests.chaos.batches import with_writers
from tests.chaos.ledger import Outcome, Place
from tests.kafkalab.jvm import JvmBroker

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(120)]
TOPIC = "batches.results"


def _outcome(offset: int, writer: str) -> Outcome:
    return Outcome(Place("events", 0, offset, 1), TOPIC, 0, offset, "penstock.result.v1", 1, writer)


def test_a_record_without_a_name_gets_that_of_its_producer_and_of_no_other() -> None:
    broker = JvmBroker(0)
    try:
        broker.start()
        admin = AdminClient({"bootstrap.servers": broker.bootstrap})
        admin.create_topics([NewTopic(TOPIC, 1, 1)])[TOPIC].result(30)
        config = {"bootstrap.servers": broker.bootstrap, "enable.idempotence": True}
        for count in (3, 2, 1):
            # Each a producer of its own, and so each with its own id.
            producer = Producer(config)
            for number in range(count):
                producer.produce(TOPIC, json.dumps(number).encode())
            assert producer.flush(30) == 0
        known = [_outcome(offset, writer) for offset, writer in enumerate(("w1", "", "", "w2", "", ""))]
        named = with_writers(known, [broker.data])

        assert [outcome.writer for outcome in named] == ["w1", "w1", "w1", "w2", "w2", ""]
        assert with_writers(known, [Path("nowhere")]) == known
    finally:
        broker.close()
