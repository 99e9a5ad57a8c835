"""The Kafka producer on a real broker: the suite, and what only a real broker does."""

import asyncio
import contextlib
import logging
import statistics
import time
from collections import deque
from typing import Any, ClassVar

import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import NewPartitions

from contracts.codec import Record
from contracts.errors import LogUnavailable, TooLarge
from contracts.settings import KafkaSettings, ProducerSettings
from producers import producer as producer_module
from producers.base import Delivered, Producer
from producers.kafka_client import ClientLog, producer_config
from producers.producer import KafkaProducer
from tests.kafkalab.fixtures import KafkaLab
from tests.producers.test_producer import KafkaProducerLab
from tests.suites.producer import PARTITIONS, ProducerLab, ProducerSuite
from tests.support import eventually_async

pytestmark = pytest.mark.kafka


class TestKafkaProducerOnKafka(ProducerSuite):
    @pytest.fixture
    def lab(self, kafka: KafkaLab) -> ProducerLab:
        (topic,) = kafka.create("suite", partitions=PARTITIONS)
        return KafkaProducerLab(kafka.bootstrap, topic)


def make(kafka: KafkaLab, settings: ProducerSettings, delivery_timeout_s: float = 60.0, **options: Any) -> Producer:
    return KafkaProducer(
        KafkaSettings(bootstrap_servers=kafka.bootstrap),
        settings,
        client_id="test",
        delivery_timeout_s=delivery_timeout_s,
        **options,
    )


async def test_a_record_above_the_topics_limit_is_too_large_and_the_producer_goes_on(kafka: KafkaLab) -> None:
    (topic,) = kafka.create("small", partitions=1, config={"max.message.bytes": "5000"})
    producer = make(kafka, ProducerSettings(compression="none"))
    await producer.start()

    with pytest.raises(TooLarge, match=topic):
        await producer.produce(Record(topic, b"k", b"x" * 20_000, []))
    position = await producer.produce(Record(topic, b"k", b"fits", []))
    await producer.aclose()

    assert position.offset == 0


async def test_the_largest_record_we_take_fits_a_topic_made_by_default(kafka: KafkaLab) -> None:
    (topic,) = kafka.create("large", partitions=1)
    settings = ProducerSettings(compression="none")
    producer = make(kafka, settings)
    await producer.start()
    headers = [(f"ce_header{number}", b"x" * 100) for number in range(50)]
    taken = sum(len(name) + len(value) for name, value in headers) + 64 + 1
    largest = Record(topic, b"k", b"x" * (settings.max_record_bytes - taken), headers)

    positions = await asyncio.gather(*(producer.produce(largest) for _ in range(3)))
    await producer.aclose()

    assert [position.offset for position in positions] == [0, 1, 2]


async def test_the_log_append_time_of_a_topic_that_has_it_is_reported(kafka: KafkaLab) -> None:
    (topic,) = kafka.create("appended", partitions=1, config={"message.timestamp.type": "LogAppendTime"})
    producer = make(kafka, ProducerSettings())
    await producer.start()

    position = await producer.produce(Record(topic, b"k", b"v", [], timestamp_ms=1_700_000_000_000))
    await producer.aclose()

    assert position.timestamp_ms > 1_700_000_000_000


class Diary(ClientLog):
    """Keeps what a client does, for a test that runs out of time."""

    kept: ClassVar[deque[str]] = deque(maxlen=2_000)

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)

    def log(self, level: int, msg: object, *args: Any, **_kwargs: Any) -> None:
        """Keep one line."""
        self.kept.append(f"{time.time():.3f} {level} {' '.join(map(str, args)) or msg}")


@pytest.fixture
def diary(monkeypatch: pytest.MonkeyPatch) -> deque[str]:
    debug = {"debug": "eos,broker,metadata"}
    monkeypatch.setattr(producer_module, "producer_config", lambda *args: producer_config(*args) | debug)
    monkeypatch.setattr(producer_module, "ClientLog", Diary)
    Diary.kept.clear()
    return Diary.kept


@pytest.mark.timeout(120)
async def test_a_broker_restart_loses_nothing_repeats_nothing_and_keeps_the_order(
    kafka: KafkaLab, diary: deque[str]
) -> None:
    """Who does not want to wait for it is told so at once meanwhile, and let in again when it is back.

    A client may lose its brokers for good (test_stranded.py); what waits is then told so, and the rest holds.
    """
    if not kafka.broker.is_ours:
        pytest.skip("the broker was given; it is not ours to restart")
    topic, other = kafka.create("restarted", "impatient", partitions=1)
    producer, impatient = make(kafka, ProducerSettings()), make(kafka, ProducerSettings(), stall_after_s=0.5)
    await producer.start()
    await impatient.start()
    refused_s: list[float] = []
    tries: list[asyncio.Task[None]] = []
    restart = asyncio.create_task(asyncio.to_thread(kafka.restart))
    tasks: list[asyncio.Task[Delivered]] = []
    while not restart.done() or len(tasks) < 50:
        tasks.append(asyncio.create_task(producer.produce(Record(topic, b"k", b"%d" % len(tasks), []))))
        tries.append(asyncio.create_task(_try(impatient, Record(other, b"k", b"v", []), refused_s)))
        await asyncio.sleep(0.02)
    await restart

    try:
        async with asyncio.timeout(45):
            ends = await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.gather(*tries)
            await _until_written(impatient, Record(other, b"k", b"v", []))
            await _until_written(producer, Record(topic, b"k", b"last", []))
    except TimeoutError:
        pytest.fail("no acks behind the restart; the clients say:\n" + "\n".join(list(diary)[-400:]))
    await impatient.aclose()
    await producer.aclose()

    assert refused_s
    # The median: the tail is that of a machine that starts a broker.
    assert statistics.median(refused_s) < 0.05
    lost = [end for end in ends if isinstance(end, BaseException)]
    assert all("had a fatal error" in str(error) for error in lost)
    assert not lost or "no usable brokers" in "".join(diary)
    values = [b"%d" % number for number in range(len(tasks))]
    positions = {
        end.offset: value for end, value in zip(ends, values, strict=True) if not isinstance(end, BaseException)
    }
    found = _values(kafka.bootstrap, topic)
    assert {offset: found[offset] for offset in positions} == positions
    # Of those that were given up, some may be there all the same: once, and in their place.
    assert [value for value in values if value in found] == [value for value in found if value != b"last"]
    assert len(positions) + len(lost) == len(values)


def _values(bootstrap: str, topic: str) -> list[bytes | str | None]:
    """Return what is on the only partition of a topic."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "none", "log_level": 0})
    try:
        _, end = consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=5)
        consumer.assign([TopicPartition(topic, 0, 0)])
        found: list[bytes | str | None] = []
        end_s = time.monotonic() + 10.0
        while len(found) < end and time.monotonic() < end_s:
            found += [one.value() for one in consumer.consume(500, 0.1)]
    finally:
        consumer.close()
    return found


async def _until_written(producer: Producer, record: Record) -> None:
    while True:
        with contextlib.suppress(LogUnavailable):
            await producer.produce(record)
            return
        await asyncio.sleep(0.1)


async def _try(producer: Producer, record: Record, refused_s: list[float]) -> None:
    started_s = time.monotonic()
    with contextlib.suppress(LogUnavailable):
        await producer.produce(record)
        return
    refused_s.append(time.monotonic() - started_s)


async def test_a_topic_that_a_real_broker_does_not_have_is_named(kafka: KafkaLab) -> None:
    topic = kafka.name("never-made")
    producer = make(kafka, ProducerSettings())
    await producer.start()

    with pytest.raises(LogUnavailable, match=f"topic {topic} does not exist"):
        await producer.produce(Record(topic, b"k", b"v", []))
    await producer.aclose()


async def test_a_partition_that_is_added_is_known_after_a_question_for_metadata(kafka: KafkaLab) -> None:
    """By itself the client looks every 30 s, and refuses records for it until then."""
    (topic,) = kafka.create("grows", partitions=1)
    producer = make(kafka, ProducerSettings())
    await producer.start()
    await producer.produce(Record(topic, b"k", b"x", [], 0))
    kafka.admin().create_partitions([NewPartitions(topic, 2)])[topic].result(15)

    with pytest.raises(LogUnavailable, match="has no partition 1"):
        await producer.produce(Record(topic, b"k", b"x", [], 1))

    async def is_known() -> bool:
        await producer.probe(5)
        with contextlib.suppress(LogUnavailable):
            return (await producer.produce(Record(topic, b"k", b"x", [], 1))).partition == 1
        return False

    await eventually_async(is_known, within_s=10)
    await producer.aclose()
