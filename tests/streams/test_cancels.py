"""Where a worker begins to read cancels, on a broker that cannot tell records by their time, and when it cannot."""

import asyncio
import time
from typing import Any, cast

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition

from contracts.errors import LogUnavailable
from contracts.settings import KafkaSettings
from producers.embedded import EmbeddedBroker
from streams import cancels
from streams.cancels import CancelReader, _starts
from tests.support import eventually_async


@pytest.mark.parametrize(
    "error", [KafkaException(KafkaError(KafkaError._CRIT_SYS_RESOURCE)), LogUnavailable("it has lost all its brokers")]
)
async def test_cancels_are_followed_later_when_a_client_cannot_be_made_or_used(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(cancels, "_RETRY_S", 0.01)
    made: list[object] = []

    def make(config: dict[str, Any]) -> Consumer:
        made.append(config)
        assert "stats_cb" in config
        if len(made) == 1:
            raise error
        return Consumer(config)

    monkeypatch.setattr(cancels, "Consumer", make)
    reader = CancelReader(KafkaSettings(), "cancels", cast("Any", None))
    reader.start()
    try:
        await eventually_async(lambda: len(made) > 1)
    finally:
        reader.close()
        await asyncio.to_thread(reader._thread.join, 10)


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
