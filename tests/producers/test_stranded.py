"""A client that has forgotten all brokers is replaced: it would wait for ever, and say nothing."""

import asyncio
import contextlib
import time
from collections.abc import Iterator
from typing import Any

import pytest
from confluent_kafka import Consumer, TopicPartition
from structlog.testing import capture_logs

from contracts import kafka_config
from contracts.codec import Record
from contracts.errors import LogUnavailable
from contracts.metrics import REGISTRY
from contracts.settings import KafkaSettings, ProducerSettings
from producers.mock_cluster import MockCluster
from producers.producer import KafkaProducer
from tests.producers.forgetful import ForgetfulFront
from tests.support import eventually, eventually_async

pytestmark = pytest.mark.embedded


@pytest.fixture
def front(monkeypatch: pytest.MonkeyPatch) -> Iterator[ForgetfulFront]:
    monkeypatch.setattr(kafka_config, "_LOOK_EVERY_MS", 100)
    with MockCluster() as cluster, ForgetfulFront(cluster) as made:
        cluster.create_topic("t")
        yield made


def rebuilds() -> float:
    return REGISTRY.get_sample_value("penstock_producer_rebuilds_total") or 0.0


async def strand(front: ForgetfulFront, producer: KafkaProducer) -> str:
    """Let a producer's client forget all brokers, and return what it says of the record that waited."""
    for _ in range(10):
        front.forget()
        record = asyncio.ensure_future(producer.produce(Record("t", b"k", b"1", [])))
        done, _ = await asyncio.wait({record}, timeout=3.0)
        front.remember()
        if done and (error := record.exception()) is not None:
            return str(error)
        # It has found the broker again.
        async with asyncio.timeout(10):
            await record
    pytest.fail("the client finds its broker again, whatever it is told")


async def test_a_producer_that_has_lost_all_brokers_fails_what_waits_and_goes_on_with_another_client(
    front: ForgetfulFront,
) -> None:
    settings = KafkaSettings(bootstrap_servers=front.bootstrap)
    producer = KafkaProducer(settings, ProducerSettings(linger_s=0.0), client_id="test")
    await producer.start()
    before = rebuilds()

    with capture_logs() as lines:
        assert "may be on the log" in await strand(front, producer)

    async def is_written() -> bool:
        with contextlib.suppress(LogUnavailable):
            return bool(await producer.produce(Record("t", b"k", b"2", [])))
        return False

    await eventually_async(is_written, within_s=10)
    await producer.aclose()
    assert rebuilds() == before + 1
    (broken,) = (line for line in lines if line["event"] == "producer.broken")
    assert "has lost all its brokers" in broken["error"]


async def test_brokers_that_are_away_are_no_reason_to_give_up_what_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_config, "_LOOK_EVERY_MS", 100)
    with MockCluster() as cluster:
        settings = KafkaSettings(bootstrap_servers=cluster.bootstrap)
        producer = KafkaProducer(settings, ProducerSettings(linger_s=0.0), client_id="test")
        await producer.start()
        await producer.produce(Record("t", b"k", b"0", []))
        cluster.set_down()
        record = asyncio.ensure_future(producer.produce(Record("t", b"k", b"1", [])))
        await asyncio.wait({record}, timeout=1.5)
        assert not record.done()

        cluster.set_up()
        async with asyncio.timeout(10):
            await record
        await producer.aclose()


def test_the_poll_of_a_consumer_that_has_lost_all_brokers_raises(front: ForgetfulFront) -> None:
    """Its owner makes another one, as for everything else that ends a consumer."""
    config: dict[str, Any] = {"bootstrap.servers": front.bootstrap, "group.id": "none", "log_level": 0}
    # A fetch that is open holds on to the broker.
    config |= {"enable.partition.eof": True, "fetch.wait.max.ms": 50}

    def stranded() -> bool:
        consumer = Consumer(config | kafka_config.self_watching())
        try:
            consumer.assign([TopicPartition("t", 0, 0)])
            front.remember()
            eventually(lambda: consumer.poll(0.1) is not None)
            front.forget()
            end_s = time.monotonic() + 2.0
            while time.monotonic() < end_s:
                consumer.poll(0.05)
        except LogUnavailable as error:
            return "has lost all its brokers" in str(error)
        finally:
            consumer.close()
        return False

    assert any(stranded() for _ in range(15))
