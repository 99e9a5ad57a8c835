"""The in-memory producer: the suite, and its faults on demand."""

import asyncio

import pytest

from contracts.codec import Record
from contracts.errors import LogUnavailable, Throttled
from contracts.settings import ProducerSettings
from producers.base import Delivered, Producer
from producers.memory import MemoryProducer
from tests.suites.producer import PARTITIONS, ProducerLab, ProducerSuite


class MemoryLab(ProducerLab):
    """Reads the producer's own list."""

    def make(self, settings: ProducerSettings) -> Producer:
        return MemoryProducer(settings, partitions=PARTITIONS)

    def read(self, producer: Producer, count: int) -> list[tuple[Delivered, Record]]:
        assert isinstance(producer, MemoryProducer)
        assert len(producer.stored) == count
        return [(stored.position, stored.record) for stored in producer.stored]

    def hold(self, producer: Producer) -> None:
        assert isinstance(producer, MemoryProducer)
        producer.hold_acks()

    def release(self, producer: Producer) -> None:
        assert isinstance(producer, MemoryProducer)
        producer.release_acks()


class TestMemoryProducer(ProducerSuite):
    @pytest.fixture
    def lab(self) -> ProducerLab:
        return MemoryLab()


RECORD = Record("t", b"k", b"v", [])


@pytest.fixture
async def memory() -> MemoryProducer:
    producer = MemoryProducer()
    await producer.start()
    return producer


async def test_failures_asked_for_come_in_order_and_reach_no_log(memory: MemoryProducer) -> None:
    memory.fail_next(LogUnavailable("first"), Throttled("second"))

    with pytest.raises(LogUnavailable, match="first"):
        await memory.produce(RECORD)
    with pytest.raises(Throttled, match="second"):
        await memory.produce(RECORD)
    assert (await memory.produce(RECORD)).offset == 0
    assert memory.records == [RECORD]


async def test_unreachable_fails_records_and_probes_until_it_ends(memory: MemoryProducer) -> None:
    memory.set_unreachable("gone")

    with pytest.raises(LogUnavailable, match="gone"):
        await memory.produce(RECORD)
    with pytest.raises(LogUnavailable, match="gone"):
        await memory.probe(1.0)
    memory.set_unreachable("")
    await memory.produce(RECORD)


async def test_full_can_be_said_without_filling_it(memory: MemoryProducer) -> None:
    memory.set_full()

    assert memory.is_full
    memory.set_full(is_full=False)
    assert not memory.is_full


async def test_closing_fails_what_is_still_held(memory: MemoryProducer) -> None:
    memory.hold_acks()
    task = asyncio.create_task(memory.produce(RECORD))
    await asyncio.sleep(0)

    await memory.aclose(timeout_s=0.01)

    with pytest.raises(LogUnavailable, match="may be on the log"):
        await task
