"""The embedded broker: a process that others can rely on, and the clients that must work with it."""

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import time
import uuid
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer
from confluent_kafka import Producer

from contracts.codec import Record
from contracts.errors import LogUnavailable
from contracts.settings import KafkaSettings, ProducerSettings
from producers.embedded import EmbeddedBroker
from producers.mock_cluster import MockCluster
from producers.producer import KafkaProducer
from tests.embedded import embedded_broker  # noqa: F401 - a fixture
from tests.support import ROOT, ChildProcess, eventually

pytestmark = pytest.mark.embedded


def partitions(bootstrap: str, topic: str) -> int:
    client = Producer({"bootstrap.servers": bootstrap, "log_level": 0})
    return len(client.list_topics(topic, timeout=5).topics[topic].partitions)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A zombie that nobody has waited for yet is dead as well.
    return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text(encoding="ascii")


def test_topics_are_made_with_the_partitions_asked_for_and_others_with_four() -> None:
    with EmbeddedBroker({"twelve": 12}) as broker:
        assert partitions(broker.bootstrap, "twelve") == 12
        assert partitions(broker.bootstrap, "on-first-use") == 4


def test_a_topic_that_exists_is_not_made_again() -> None:
    with MockCluster() as cluster:
        cluster.create_topic("once")

        with pytest.raises(LogUnavailable, match="once"):
            cluster.create_topic("once")


def test_the_child_is_gone_after_the_context() -> None:
    with EmbeddedBroker() as broker:
        pid = broker.pid
    assert pid is not None
    assert not is_alive(pid)
    assert broker.pid is None


def test_the_child_ends_by_itself_when_its_parent_is_killed() -> None:
    script = textwrap.dedent("""
        import time
        from producers.embedded import EmbeddedBroker
        with EmbeddedBroker() as broker:
            print("pid", broker.pid, flush=True)
            time.sleep(60)
    """)
    parent = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    with parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline().split()[1])
        parent.kill()
    eventually(lambda: not is_alive(pid), within_s=5)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_within_a_second(number: signal.Signals) -> None:
    with ChildProcess("producers.embedded", str(os.getpid())) as child:
        child.wait_for(r"listening on 127\.0\.0\.1:\d+")
        started_s = time.monotonic()
        child.signal(number)

        assert child.wait(5) == 0
        assert time.monotonic() - started_s < 1


async def test_an_aiokafka_group_reads_what_our_producer_wrote_and_agrees_on_the_partition(
    embedded_broker: EmbeddedBroker,  # noqa: F811 - the fixture
) -> None:
    topic = f"aio-{uuid.uuid4().hex}"
    kafka = KafkaSettings(bootstrap_servers=embedded_broker.bootstrap)
    producer = KafkaProducer(kafka, ProducerSettings(), client_id="test")
    await producer.start()
    keys = [b"key-%d" % number for number in range(30)]
    positions = await asyncio.gather(*(producer.produce(Record(topic, key, key, [])) for key in keys))
    await producer.aclose()

    consumer = AIOKafkaConsumer(
        topic, bootstrap_servers=embedded_broker.bootstrap, group_id=topic, auto_offset_reset="earliest"
    )
    await consumer.start()
    try:
        found = {record.key: record.partition for record in [await anext(consumer) for _ in keys]}
    finally:
        await consumer.stop()

    assert found == {key: position.partition for key, position in zip(keys, positions, strict=True)}


def test_keys_are_hashed_as_javas_and_aiokafkas_producers_do(
    embedded_broker: EmbeddedBroker,  # noqa: F811 - the fixture
) -> None:
    from aiokafka.partitioner import DefaultPartitioner

    async def partition_of(key: bytes) -> int:
        producer = KafkaProducer(
            KafkaSettings(bootstrap_servers=embedded_broker.bootstrap), ProducerSettings(), client_id="test"
        )
        await producer.start()
        try:
            return (await producer.produce(Record("hashed", key, b"", []))).partition
        finally:
            await producer.aclose()

    for key in (b"006Hs0000100008AAA", b"tidewater/harbor-api", b"\xff\x00", b"k"):
        assert asyncio.run(partition_of(key)) == DefaultPartitioner()(key, [0, 1, 2, 3], [0, 1, 2, 3])
