"""What every producer must do; KafkaProducer (embedded broker, real Kafka) and MemoryProducer inherit it."""

import abc
import asyncio
import contextlib
import gc
import time
import weakref
from collections.abc import AsyncIterator
from typing import Any

import pytest

from contracts.codec import Position, Record
from contracts.errors import Busy, LogUnavailable, TooLarge
from contracts.settings import ProducerSettings
from producers.base import Delivered, Producer
from tests.support import eventually_async

PARTITIONS = 4
SMALL = ProducerSettings(max_buffer_bytes=65_536, max_record_bytes=2_048)


class ProducerLab(abc.ABC):
    """How the suite makes a producer of one kind, and reads what it produced."""

    topic = "suite"

    @abc.abstractmethod
    def make(self, settings: ProducerSettings) -> Producer:
        """Return a producer that is not started."""

    @abc.abstractmethod
    def read(self, producer: Producer, count: int) -> list[tuple[Delivered, Record]]:
        """Return `count` records of the topic with their positions."""

    def hold(self, producer: Producer) -> None:  # noqa: B027 - not every kind needs it
        """Keep acks back, where acks come faster than a test can look."""

    def release(self, producer: Producer) -> None:  # noqa: B027 - not every kind needs it
        """End `hold`."""


class ProducerSuite:
    """Inherit it and give a fixture `lab`."""

    @pytest.fixture
    async def producer(self, lab: ProducerLab) -> AsyncIterator[Producer]:
        producer = lab.make(SMALL)
        await producer.start()
        yield producer
        await producer.aclose(5.0)

    def record(self, lab: ProducerLab, **changes: Any) -> Record:
        fields = {"topic": lab.topic, "key": b"k", "value": b"v", "headers": [], "partition": None} | changes
        return Record(**fields)

    def test_it_satisfies_the_protocol(self, lab: ProducerLab) -> None:
        assert isinstance(lab.make(SMALL), Producer)

    async def test_bytes_arrive_as_they_were_given(self, lab: ProducerLab, producer: Producer) -> None:
        headers = [("ce_id", b"1"), ("x", b"\xff\x00"), ("x", b"second"), ("x", None), ("y", b"")]
        sent = self.record(lab, key=b"\x00\xff", value=b'{"a": 1}\r\n\xfe', headers=headers)

        position = await producer.produce(sent)

        ((found_at, found),) = lab.read(producer, 1)
        assert (found.key, found.value, found.headers) == (sent.key, sent.value, headers)
        assert found_at == position

    async def test_an_empty_value_is_not_null(self, lab: ProducerLab, producer: Producer) -> None:
        await producer.produce(self.record(lab, value=b""))

        ((_, found),) = lab.read(producer, 1)
        assert found.value == b""

    async def test_a_null_value_stays_null(self, lab: ProducerLab, producer: Producer) -> None:
        await producer.produce(self.record(lab, value=None))

        ((_, found),) = lab.read(producer, 1)
        assert found.value is None

    async def test_a_missing_key_stays_missing(self, lab: ProducerLab, producer: Producer) -> None:
        await producer.produce(self.record(lab, key=None))

        ((_, found),) = lab.read(producer, 1)
        assert found.key is None

    async def test_one_key_goes_to_one_partition_in_the_order_of_the_calls(
        self, lab: ProducerLab, producer: Producer
    ) -> None:
        values = [b"%d" % number for number in range(50)]

        positions = await asyncio.gather(*(producer.produce(self.record(lab, value=value)) for value in values))

        assert len({position.partition for position in positions}) == 1
        assert [position.offset for position in positions] == list(range(50))
        assert [found.value for _, found in lab.read(producer, 50)] == values

    async def test_different_keys_use_several_partitions(self, lab: ProducerLab, producer: Producer) -> None:
        records = [self.record(lab, key=b"key-%d" % number) for number in range(40)]

        positions = await asyncio.gather(*map(producer.produce, records))

        assert {position.partition for position in positions} == set(range(PARTITIONS))

    async def test_a_given_partition_overrules_the_key(self, lab: ProducerLab, producer: Producer) -> None:
        for partition in range(PARTITIONS):
            position = await producer.produce(self.record(lab, partition=partition))

            assert (position.partition, position.offset) == (partition, 0)

    async def test_a_partition_that_does_not_exist_is_refused(self, lab: ProducerLab, producer: Producer) -> None:
        await producer.produce(self.record(lab))

        with pytest.raises(LogUnavailable, match="no partition 99"):
            await producer.produce(self.record(lab, partition=99))

    async def test_a_record_that_is_refused_does_not_wait_for_the_collection_of_garbage(
        self, lab: ProducerLab, producer: Producer
    ) -> None:
        class Headers(list[tuple[str, bytes]]):
            """Can be looked for."""

        headers = Headers()
        seen = weakref.ref(headers)
        gc.disable()
        try:
            with contextlib.suppress(LogUnavailable):
                await producer.produce(Record(lab.topic, None, b"v", headers, 99))
            del headers

            await eventually_async(lambda: seen() is None)
        finally:
            gc.enable()

    async def test_a_given_timestamp_is_kept(self, lab: ProducerLab, producer: Producer) -> None:
        stamp_ms = 1_760_000_000_123

        position = await producer.produce(self.record(lab, timestamp_ms=stamp_ms))

        ((found_at, _),) = lab.read(producer, 1)
        assert position.timestamp_ms == found_at.timestamp_ms == stamp_ms

    async def test_without_a_timestamp_it_is_the_time_of_the_call(self, lab: ProducerLab, producer: Producer) -> None:
        before_ms = int(time.time() * 1000)

        position = await producer.produce(self.record(lab))

        ((found_at, _),) = lab.read(producer, 1)
        assert position.timestamp_ms == found_at.timestamp_ms
        assert before_ms <= position.timestamp_ms <= int(time.time() * 1000)

    async def test_a_record_above_the_limit_is_refused_and_not_buffered(
        self, lab: ProducerLab, producer: Producer
    ) -> None:
        with pytest.raises(TooLarge, match=lab.topic):
            await producer.produce(self.record(lab, value=b"x" * 2_048))

        assert producer.buffered_bytes == 0

    async def test_a_full_buffer_refuses_and_says_when_to_come_back(self, lab: ProducerLab, producer: Producer) -> None:
        lab.hold(producer)
        record = self.record(lab, value=b"x" * 1_983)  # 2,048 with key and 64 for the record: 32 of them are the limit
        tasks = [asyncio.create_task(producer.produce(record)) for _ in range(40)]
        await asyncio.sleep(0)

        assert producer.is_full
        lab.release(producer)
        results = await asyncio.gather(*tasks, return_exceptions=True)
        refused = [result for result in results if isinstance(result, Busy)]
        assert [result.retry_after_s for result in refused] == [1.0] * 8
        assert sum(isinstance(result, Position) for result in results) == 32

    async def test_confirmed_records_leave_the_buffer(self, lab: ProducerLab, producer: Producer) -> None:
        lab.hold(producer)
        task = asyncio.create_task(producer.produce(self.record(lab, headers=[("name", b"value")])))
        await asyncio.sleep(0)

        assert producer.buffered_bytes == 64 + len(b"k" + b"v" + b"name" + b"value")
        lab.release(producer)
        await task
        assert producer.buffered_bytes == 0
        assert not producer.is_full

    async def test_cancelling_the_wait_does_not_take_the_record_back(
        self, lab: ProducerLab, producer: Producer
    ) -> None:
        lab.hold(producer)
        task = asyncio.create_task(producer.produce(self.record(lab)))
        await asyncio.sleep(0)
        task.cancel()
        lab.release(producer)
        await eventually_async(lambda: producer.buffered_bytes == 0)
        await asyncio.wait([task])

        assert task.cancelled()
        assert len(lab.read(producer, 1)) == 1

    async def test_before_the_start_nothing_is_taken(self, lab: ProducerLab) -> None:
        with pytest.raises(LogUnavailable, match="not open"):
            await lab.make(SMALL).produce(self.record(lab))

    async def test_closing_flushes_what_is_buffered(self, lab: ProducerLab, producer: Producer) -> None:
        lab.hold(producer)
        tasks = [asyncio.create_task(producer.produce(self.record(lab))) for _ in range(5)]
        await asyncio.sleep(0)
        lab.release(producer)

        await producer.aclose(5.0)

        assert all(isinstance(result, Position) for result in await asyncio.gather(*tasks))

    async def test_closing_flushes_also_what_nobody_waits_for_any_more(
        self, lab: ProducerLab, producer: Producer
    ) -> None:
        lab.hold(producer)
        task = asyncio.create_task(producer.produce(self.record(lab)))
        await asyncio.sleep(0)
        task.cancel()
        asyncio.get_running_loop().call_later(0.05, lab.release, producer)

        await producer.aclose(5.0)

        assert len(lab.read(producer, 1)) == 1

    async def test_after_closing_nothing_is_taken(self, lab: ProducerLab, producer: Producer) -> None:
        await producer.aclose()
        await producer.aclose()

        with pytest.raises(LogUnavailable, match="not open"):
            await producer.produce(self.record(lab))

    async def test_a_probe_of_a_reachable_log_returns(self, producer: Producer) -> None:
        await producer.probe(5.0)
