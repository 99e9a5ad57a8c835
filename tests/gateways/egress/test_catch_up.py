"""Looking earlier deltas up on a broker that cannot tell records by their time; tests/kafka has real ones."""

import time
import uuid
from typing import Any

import pytest
from confluent_kafka import Producer

from contracts.codec import encode_json
from contracts.envelope import result_id
from contracts.payloads import DELTA_TYPE, Delta
from gateways.egress.catch_up import Place, catch_up
from gateways.egress.feed import Feed
from producers.embedded import EmbeddedBroker

pytestmark = pytest.mark.embedded
ID = result_id("s", "e1")


def test_what_the_embedded_broker_holds_is_found(embedded_broker: EmbeddedBroker) -> None:
    topic = f"deltas-{uuid.uuid4()}"
    producer = Producer({"bootstrap.servers": embedded_broker.bootstrap})
    for number in (1, 2):
        delta = Delta(event_id="e1", epoch=5, sequence=number, text=f"piece {number}")
        headers: list[tuple[str, str | bytes | None]] = [("ce_id", ID.encode()), ("ce_type", DELTA_TYPE.encode())]
        producer.produce(topic, encode_json(delta), partition=0, headers=headers)
    assert producer.flush(10) == 0
    config: dict[str, Any] = {
        "bootstrap.servers": embedded_broker.bootstrap, "group.id": "look-ups", "enable.auto.commit": False
    }  # fmt: skip
    feed = Feed(1000)
    reached = catch_up(config, topic, Place(ID, 0, int(time.time() * 1000)), feed, 10.0)

    assert reached.is_complete
    assert [piece.text for piece in feed.pieces] == ["piece 1", "piece 2"]
