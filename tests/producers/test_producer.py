"""The Kafka producer: the suite on the embedded broker, and its faults on a mock cluster in this process."""

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, TopicPartition
from structlog.testing import capture_logs

from contracts import logs
from contracts.codec import Record
from contracts.errors import Busy, LogUnavailable, TooLarge
from contracts.metrics import DEDUP_DECISIONS, PRODUCED, REGISTRY
from contracts.settings import KafkaSettings, ProducerSettings
from contracts.tallies import Tally
from producers import producer as module
from producers.base import Delivered, Forbidden, Producer
from producers.embedded import EmbeddedBroker
from producers.kafka_client import translate_error
from producers.mock_cluster import INIT_PRODUCER_ID, PRODUCE, MockCluster
from producers.producer import KafkaProducer
from tests.embedded import embedded_broker  # noqa: F401 - a fixture
from tests.suites.producer import ProducerLab, ProducerSuite
from tests.support import FakeClock, eventually_async, free_port

pytestmark = pytest.mark.embedded

QUICK = ProducerSettings(linger_s=0.0)


class KafkaProducerLab(ProducerLab):
    """Reads the topic back with a consumer."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        self.bootstrap = bootstrap
        self.topic = topic

    def make(self, settings: ProducerSettings) -> Producer:
        return KafkaProducer(KafkaSettings(bootstrap_servers=self.bootstrap), settings, client_id="suite")

    def read(self, producer: Producer, count: int) -> list[tuple[Delivered, Record]]:
        del producer
        return read(self.bootstrap, self.topic, count)


def read(bootstrap: str, topic: str, count: int, within_s: float = 10.0) -> list[tuple[Delivered, Record]]:
    """Return the first `count` records of a topic, and check that there are no more."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "none", "fetch.wait.max.ms": 50, "log_level": 0})
    found: list[tuple[Delivered, Record]] = []
    try:
        partitions = consumer.list_topics(topic, timeout=5).topics[topic].partitions
        consumer.assign([TopicPartition(topic, number, 0) for number in partitions])
        end = time.monotonic() + within_s
        while len(found) < count and time.monotonic() < end:
            message = consumer.poll(0.1)
            if message is not None:  # an empty value makes a message falsy
                assert message.error() is None
                found.append(_found(message))
    finally:
        consumer.close()
    assert len(found) == count
    return found


def _found(message: Any) -> tuple[Delivered, Record]:
    position = Delivered(message.topic(), message.partition(), message.offset(), message.timestamp()[1])
    return position, Record(message.topic(), message.key(), message.value(), message.headers() or [])


class TestKafkaProducer(ProducerSuite):
    @pytest.fixture
    def lab(self, embedded_broker: EmbeddedBroker) -> ProducerLab:  # noqa: F811 - the fixture
        return KafkaProducerLab(embedded_broker.bootstrap, f"suite-{uuid.uuid4().hex}")


@pytest.fixture
def cluster() -> Iterator[MockCluster]:
    with MockCluster() as mock:
        yield mock


@asynccontextmanager
async def opened(bootstrap: str, settings: ProducerSettings = QUICK, **options: Any) -> AsyncIterator[KafkaProducer]:
    producer = KafkaProducer(KafkaSettings(bootstrap_servers=bootstrap), settings, client_id="test", **options)
    await producer.start()
    try:
        yield producer
    finally:
        await producer.aclose(0.1)


def record(topic: str = "faults", **changes: Any) -> Record:
    return Record(**({"topic": topic, "key": b"k", "value": b"v", "headers": []} | changes))


def at(cluster: MockCluster, **options: Any) -> AbstractAsyncContextManager[KafkaProducer]:
    return opened(cluster.bootstrap, **options)


async def test_brokers_away_at_the_start_only_delay_the_record(cluster: MockCluster) -> None:
    cluster.create_topic("faults")
    cluster.set_down()
    async with at(cluster) as producer:
        waiting = asyncio.create_task(producer.produce(record()))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        cluster.set_up()

        assert (await asyncio.wait_for(waiting, 10)).offset == 0


async def test_a_record_that_is_not_confirmed_in_time_fails_and_leaves_the_buffer() -> None:
    async with opened(f"127.0.0.1:{free_port()}", delivery_timeout_s=0.3) as producer:
        started_s = time.monotonic()

        with pytest.raises(LogUnavailable, match="not confirmed in time"):
            await producer.produce(record())

        assert 0.2 < time.monotonic() - started_s < 3
        assert producer.buffered_bytes == 0


async def test_while_the_brokers_are_away_records_fail_at_once_and_the_first_ack_ends_it(cluster: MockCluster) -> None:
    cluster.create_topic("faults")
    async with at(cluster, stall_after_s=0.2) as producer:
        await producer.produce(record())
        cluster.set_down()
        first = asyncio.create_task(producer.produce(record()))
        await eventually_async(lambda: producer.is_stalled)
        started_s = time.monotonic()
        with pytest.raises(LogUnavailable, match="no record for topic faults is confirmed at present"):
            await producer.produce(record())
        refused_s = time.monotonic() - started_s
        cluster.set_up()
        position = await asyncio.wait_for(first, 10)

        assert refused_s < 0.05
        assert position.offset == 1
        assert not producer.is_stalled
        assert (await producer.produce(record())).offset == 2


async def test_a_topic_that_does_not_exist_is_named_long_before_the_delivery_timeout(cluster: MockCluster) -> None:
    cluster.fail_topic("nowhere", KafkaError.UNKNOWN_TOPIC_OR_PART)
    async with at(cluster) as producer:
        started_s = time.monotonic()

        with pytest.raises(LogUnavailable, match="topic nowhere does not exist"):
            await producer.produce(record("nowhere"))

        assert time.monotonic() - started_s < 8


async def test_a_broker_error_that_may_pass_is_retried_without_anybody_noticing(cluster: MockCluster) -> None:
    cluster.create_topic("faults")
    cluster.fail_requests(PRODUCE, [KafkaError.NOT_ENOUGH_REPLICAS, KafkaError.REQUEST_TIMED_OUT])
    async with at(cluster) as producer:
        assert (await producer.produce(record())).offset == 0


async def test_a_record_that_the_broker_finds_too_large_is_too_large(cluster: MockCluster) -> None:
    cluster.create_topic("faults")
    cluster.fail_requests(PRODUCE, [KafkaError.MSG_SIZE_TOO_LARGE])
    async with at(cluster) as producer:
        with pytest.raises(TooLarge, match="faults"):
            await producer.produce(record())

        assert (await producer.produce(record())).topic == "faults"


async def test_after_a_fatal_error_what_waits_fails_and_a_new_client_goes_on(
    cluster: MockCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_REBUILD_PAUSE_S", 0.0)
    cluster.create_topic("faults")
    cluster.fail_requests(INIT_PRODUCER_ID, [KafkaError.CLUSTER_AUTHORIZATION_FAILED])
    async with at(cluster) as producer:
        results = await asyncio.gather(*(producer.produce(record()) for _ in range(20)), return_exceptions=True)

        assert [type(result) for result in results] == [LogUnavailable] * 20
        assert producer.buffered_bytes == 0
        assert (await asyncio.wait_for(producer.produce(record()), 10)).offset == 0


async def test_a_broken_sequence_of_records_in_flight_is_survived_and_counted(
    cluster: MockCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_REBUILD_PAUSE_S", 0.0)
    cluster.create_topic("faults")
    before = _sample("penstock_producer_rebuilds_total") or 0.0
    async with at(cluster) as producer:
        await producer.produce(record())
        cluster.fail_requests(PRODUCE, [KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER])

        with capture_logs() as lines, pytest.raises(LogUnavailable, match="may be on the log"):
            await producer.produce(record())
        assert (await asyncio.wait_for(producer.produce(record()), 10)).offset >= 1

    assert (_sample("penstock_producer_rebuilds_total") or 0.0) == before + 1
    assert [line["event"] for line in lines if line["component"] == "producer"] == [
        "producer.broken",
        "producer.rebuilt",
    ]


async def test_a_fatal_error_that_comes_back_does_not_make_a_loop_of_rebuilding(
    cluster: MockCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The first error itself may take longer than the pause on a busy machine.
    monkeypatch.setattr(module, "_REBUILD_PAUSE_S", 30.0)
    cluster.create_topic("faults")
    cluster.fail_requests(INIT_PRODUCER_ID, [KafkaError.CLUSTER_AUTHORIZATION_FAILED] * 100)
    async with at(cluster) as producer:
        with pytest.raises(LogUnavailable):
            await producer.produce(record())
        with pytest.raises(LogUnavailable, match="being rebuilt") as caught:
            await producer.produce(record())

        assert caught.value.retry_after_s == 30.0


async def test_closing_without_a_broker_fails_what_waits_within_the_limit() -> None:
    async with opened(f"127.0.0.1:{free_port()}") as producer:
        waiting = asyncio.create_task(producer.produce(record()))
        await asyncio.sleep(0)
        started_s = time.monotonic()
        await producer.aclose(0.2)

        assert time.monotonic() - started_s < 2.5
        with pytest.raises(LogUnavailable, match="may be on the log"):
            await waiting


async def test_a_probe_without_a_broker_fails_in_time() -> None:
    async with opened(f"127.0.0.1:{free_port()}") as producer:
        with pytest.raises(LogUnavailable, match="does not answer"):
            await producer.probe(0.2)


async def test_an_idle_producer_leaves_the_loop_alone(cluster: MockCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster.create_topic("faults")
    delays: list[float] = []
    async with at(cluster) as producer:
        await producer.produce(record())
        loop = asyncio.get_running_loop()
        original = loop.call_later

        def call_later(delay: float, *args: Any, **kwargs: Any) -> asyncio.TimerHandle:
            delays.append(delay)
            return original(delay, *args, **kwargs)

        await asyncio.sleep(0.05)
        monkeypatch.setattr(loop, "call_later", call_later)
        await asyncio.sleep(0.2)

    assert [delay for delay in delays if delay < 0.1] == []


async def test_what_was_produced_and_what_failed_is_counted(cluster: MockCluster) -> None:
    topic = f"counted-{uuid.uuid4().hex}"
    cluster.create_topic(topic)
    async with at(cluster) as producer:
        await producer.produce(record(topic))
        with pytest.raises(LogUnavailable):
            await producer.produce(record(topic, partition=77))

        assert _sample("penstock_producer_records_total", topic=topic, outcome="ok") == 1
        assert _sample("penstock_producer_records_total", topic=topic, outcome="log_unavailable") == 1
        assert _sample("penstock_producer_ack_duration_seconds_count", topic=topic) == 2
        assert _sample("penstock_producer_buffer_limit_bytes") == QUICK.max_buffer_bytes
        await eventually_async(lambda: _sample("penstock_producer_buffer_bytes") == 0)
    assert PRODUCED._name == "penstock_producer_records"


def _sample(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(name, labels)


async def test_a_broker_that_is_away_is_logged_by_us_and_not_on_raw_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    with capture_logs() as lines:
        async with opened(f"127.0.0.1:{free_port()}", delivery_timeout_s=0.3) as producer:
            with pytest.raises(LogUnavailable):
                await producer.produce(record())

    assert any("refused" in line["text"] for line in lines if line["event"] == "kafka.client_logged")
    assert capfd.readouterr().err == ""


async def test_an_idle_producer_tells_how_many_lines_of_a_library_were_left_out(
    cluster: MockCluster, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = FakeClock()
    monkeypatch.setattr(logs, "REPETITIONS", logs.Repetitions(clock))
    for _ in range(2):
        logs.REPETITIONS.left_out(logs.Kind("somebody", logging.WARNING, "is away"))
    clock.advance(logs.QUIET_S + 2)
    async with at(cluster):
        await eventually_async(lambda: "lines.left_out" in caplog.messages)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (KafkaError.MSG_SIZE_TOO_LARGE, TooLarge),
        (KafkaError._QUEUE_FULL, Busy),
        (KafkaError._MSG_TIMED_OUT, LogUnavailable),
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, Forbidden),
    ],
)
def test_each_error_of_a_record_has_one_meaning(code: int, kind: type[Exception]) -> None:
    assert type(translate_error(KafkaError(code), "t")) is kind


async def test_what_was_noted_anywhere_is_counted_while_a_producer_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_IDLE_TICK_S", 0.01)
    noted = Tally(DEDUP_DECISIONS)["noted", "new"]
    noted.append(1.0)
    kafka = KafkaSettings(bootstrap_servers=f"127.0.0.1:{free_port()}")
    producer = KafkaProducer(kafka, QUICK, client_id="counting")
    await producer.start()
    try:
        await eventually_async(lambda: not noted)
    finally:
        await producer.aclose(0.1)
