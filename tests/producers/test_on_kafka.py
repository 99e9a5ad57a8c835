"""The Kafka producer on a real broker: the suite, and what only a real broker does."""

import asyncio
import contextlib
import statistics
import time
from typing import Any

import pytest
from confluent_kafka.admin import NewPartitions

from contracts.codec import Record
from contracts.errors import LogUnavailable, TooLarge
from contracts.settings import KafkaSettings, ProducerSettings
from producers.base import Delivered, Producer
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


@pytest.mark.timeout(120)
async def test_a_broker_restart_loses_nothing_repeats_nothing_and_keeps_the_order(kafka: KafkaLab) -> None:
    """Who does not want to wait for it is told so at once meanwhile, and let in again when it is back."""
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

    positions = await asyncio.gather(*tasks)
    await asyncio.gather(*tries)
    await impatient.produce(Record(other, b"k", b"v", []))
    await impatient.aclose()
    await producer.aclose()

    assert refused_s
    # The median: the tail is that of a machine that starts a broker.
    assert statistics.median(refused_s) < 0.05
    found = KafkaProducerLab(kafka.bootstrap, topic).read(producer, len(tasks))
    assert [record.value for _, record in found] == [b"%d" % number for number in range(len(tasks))]
    assert [position.offset for position in positions] == list(range(len(tasks)))


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
