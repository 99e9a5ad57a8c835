"""What every door in must do, with a real queue over HTTP and the log in memory; each kind of queue inherits it."""

import abc
import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from typing import Any

import pytest

from contracts.codec import Record, dead_letter, decode_event
from contracts.errors import ConfigError, LogUnavailable
from contracts.metrics import REGISTRY
from contracts.settings import ProducerSettings
from gateways.ingress.base import Door
from producers.base import Producer
from producers.memory import MemoryProducer
from tests.support import eventually_async

VISIBILITY_S = 2
DEAD_LETTERS = "penstock.dead-letters.v1"


class DoorLab(abc.ABC):
    """How the suite makes a door of one kind and sees its queue."""

    @abc.abstractmethod
    def make(self, producer: Producer, **settings: Any) -> Door:
        """Return a door that is not started; messages are hidden for `VISIBILITY_S`."""

    @abc.abstractmethod
    def send(self, *bodies: str, group: str = "a") -> list[str]:
        """Queue messages in this order and return their ids."""

    @abc.abstractmethod
    def counts(self) -> tuple[int, int]:
        """Return how many messages are visible, and how many are hidden."""

    @abc.abstractmethod
    def receive(self) -> list[tuple[str, int]]:
        """Return (body, how often it has been given out) of what another receiver gets now."""

    @abc.abstractmethod
    def fetches(self) -> int:
        """Return how often the queue has been asked for messages."""

    @abc.abstractmethod
    def broken(self, call: str, reason: str, times: int = 1_000) -> AbstractContextManager[None]:
        """Let calls (receive, delete, extend) fail as a whole: reason throttled or access_denied."""

    @abc.abstractmethod
    def partly_broken(self, *, is_final: bool, times: int = 1) -> AbstractContextManager[None]:
        """Let the first entry of the next deletions fail."""

    def is_empty(self) -> bool:
        """Tell whether nothing is left, hidden or not."""
        return self.counts() == (0, 0)


@asynccontextmanager
async def running(door: Door, limit_s: float = 5.0) -> AsyncIterator[asyncio.Task[None]]:
    """Run a door for a block, then stop it."""
    await door.start()
    task = asyncio.create_task(door.run())
    try:
        yield task
    finally:
        door.stop(limit_s)
        await asyncio.wait_for(task, 30)
        await door.aclose()


def bodies(records: Sequence[Record]) -> list[str]:
    """Return the values as text."""
    return [(record.value or b"").decode() for record in records]


def repeated() -> float:
    """Return how many messages have come to the door once more."""
    labels = {"door": "orders", "outcome": "repeated"}
    return REGISTRY.get_sample_value("penstock_ingress_messages_total", labels) or 0.0


class DoorSuite:
    """Inherit it and give a fixture `lab`."""

    @pytest.fixture
    async def producer(self) -> AsyncIterator[MemoryProducer]:
        producer = MemoryProducer()
        await producer.start()
        yield producer
        await producer.aclose(0.1)

    def test_it_satisfies_the_protocol(self, lab: DoorLab, producer: MemoryProducer) -> None:
        assert isinstance(lab.make(producer), Door)

    async def test_a_message_becomes_an_event_and_leaves_the_queue(
        self, lab: DoorLab, producer: MemoryProducer
    ) -> None:
        (message_id,) = lab.send('{"a": 1,  "b": "\u00e4"}')

        async with running(lab.make(producer)):
            await eventually_async(lab.is_empty)

        (record,) = producer.records
        event = decode_event(record.key, record.value, record.headers)
        assert record.value == '{"a": 1,  "b": "\u00e4"}'.encode()
        assert record.topic == "penstock.events.standard.v1"
        assert (event.id, event.source, event.datacontenttype) == (message_id, "orders", "application/json")
        assert dict(record.headers)["penstock-door"] == b"orders"

    async def test_nothing_is_deleted_before_the_ack_and_it_stays_hidden_as_long_as_that_takes(
        self, lab: DoorLab, producer: MemoryProducer
    ) -> None:
        producer.hold_acks()
        lab.send("one")
        before = repeated()

        async with running(lab.make(producer)):
            await eventually_async(lambda: producer.buffered_bytes > 0)
            await asyncio.sleep(1.6 * VISIBILITY_S)

            assert lab.counts() == (0, 1)
            assert repeated() == before
            assert lab.receive() == []
            producer.release_acks()
            await eventually_async(lab.is_empty)
        assert bodies(producer.records) == ["one"]

    async def test_a_message_that_comes_again_while_it_is_held_makes_one_event(
        self, lab: DoorLab, producer: MemoryProducer
    ) -> None:
        producer.hold_acks()
        lab.send("one")

        before = repeated()
        async with running(lab.make(producer)):
            with lab.broken("extend", "throttled"):
                await eventually_async(lambda: repeated() > before)
            producer.release_acks()
            await eventually_async(lab.is_empty)

        assert bodies(producer.records) == ["one"]

    async def test_what_a_deletion_left_over_is_deleted_again_without_a_second_event(
        self, lab: DoorLab, producer: MemoryProducer
    ) -> None:
        lab.send("one", "two", "three")

        with lab.partly_broken(is_final=False, times=2):
            async with running(lab.make(producer)):
                await eventually_async(lab.is_empty)

        assert sorted(bodies(producer.records)) == ["one", "three", "two"]

    async def test_a_refused_deletion_is_made_good_when_the_message_comes_back(
        self, lab: DoorLab, producer: MemoryProducer
    ) -> None:
        lab.send("one")

        with lab.partly_broken(is_final=True):
            async with running(lab.make(producer)):
                await eventually_async(lambda: len(producer.records) == 1)
                await eventually_async(lab.is_empty, 15)

        assert bodies(producer.records) == ["one"]

    async def test_a_failed_deletion_is_repeated_without_a_second_event(
        self, lab: DoorLab, producer: MemoryProducer
    ) -> None:
        lab.send("one", "two")

        with lab.broken("delete", "throttled", times=2):
            async with running(lab.make(producer)):
                await eventually_async(lab.is_empty)

        assert sorted(bodies(producer.records)) == ["one", "two"]

    @pytest.mark.parametrize("reason", ["throttled", "access_denied"])
    async def test_a_queue_that_refuses_is_waited_for(
        self, lab: DoorLab, producer: MemoryProducer, reason: str
    ) -> None:
        lab.send("one")
        door = lab.make(producer)

        async with running(door):
            with lab.broken("receive", reason):
                await eventually_async(lambda: door.unready() == [reason])
            await eventually_async(lab.is_empty)
            assert door.unready() == []

        assert bodies(producer.records) == ["one"]

    async def test_while_the_log_is_away_nothing_more_is_taken_and_nothing_lost(
        self, lab: DoorLab, producer: MemoryProducer
    ) -> None:
        producer.set_unreachable()
        lab.send("one")
        door = lab.make(producer, receivers=1)

        async with running(door):
            await eventually_async(lambda: door.unready() == ["log_unavailable"])
            fetched = lab.fetches()
            lab.send("two", group="b")
            await asyncio.sleep(1.3 * VISIBILITY_S)

            # One poll may have been on its way.
            assert lab.fetches() <= fetched + 1
            assert sum(lab.counts()) == 2
            producer.set_unreachable("")
            await eventually_async(lab.is_empty)
            assert door.unready() == []
        assert sorted(bodies(producer.records)) == ["one", "two"]

    async def test_no_more_messages_than_allowed_are_held(self, lab: DoorLab, producer: MemoryProducer) -> None:
        producer.hold_acks()
        for number in range(12):
            lab.send(str(number), group=str(number))

        async with running(lab.make(producer, max_in_flight=5)):
            await eventually_async(lambda: lab.counts() == (7, 5))
            await asyncio.sleep(0.3)

            assert lab.counts() == (7, 5)
            producer.release_acks()
            await eventually_async(lab.is_empty)
        assert sorted(map(int, bodies(producer.records))) == list(range(12))

    async def test_poison_goes_to_the_dead_letter_topic_as_it_came(
        self, lab: DoorLab, producer: MemoryProducer
    ) -> None:
        (message_id,) = lab.send("poison", group="a")
        lab.send('{"id":"good"}', group="b")

        async with running(lab.make(producer, id="json:/id")):
            await eventually_async(lab.is_empty)

        found = {record.topic: record for record in producer.records}
        letter = found[DEAD_LETTERS]
        why = dead_letter(letter.headers)
        assert letter.value == b"poison"
        assert dict(letter.headers)["ce_id"] == message_id.encode()
        assert (why.reason, why.disposition, why.attempts, why.app_id) == ("undecodable", "poison", 0, "ingress/orders")
        assert found["penstock.events.standard.v1"].value == b'{"id":"good"}'

    async def test_poison_that_is_left_comes_back_and_holds_up_nobody_else(
        self, lab: DoorLab, producer: MemoryProducer
    ) -> None:
        lab.send("poison", group="a")
        lab.send('{"id":"good"}', group="b")

        async with running(lab.make(producer, id="json:/id", poison="leave")):
            await eventually_async(lambda: len(producer.records) == 1)
            await eventually_async(lambda: lab.counts() == (0, 1))
        found = await eventually_async(lab.receive)

        assert [body for body, _ in found] == ["poison"]
        assert found[0][1] >= 2
        assert bodies(producer.records) == ['{"id":"good"}']

    async def test_a_record_that_is_too_large_stays_in_the_queue(self, lab: DoorLab) -> None:
        producer = MemoryProducer(ProducerSettings(max_record_bytes=1024))
        await producer.start()
        lab.send("x" * 2_000)

        async with running(lab.make(producer)):
            await eventually_async(lambda: lab.counts() == (0, 1))
        found = await eventually_async(lab.receive)

        assert [len(body) for body, _ in found] == [2_000]
        assert producer.records == []

    async def test_at_the_end_what_is_in_progress_is_finished(self, lab: DoorLab, producer: MemoryProducer) -> None:
        producer.hold_acks()
        lab.send("one")
        door = lab.make(producer)
        await door.start()
        task = asyncio.create_task(door.run())
        await eventually_async(lambda: producer.buffered_bytes > 0)

        door.stop(20.0)
        producer.release_acks()
        await asyncio.wait_for(task, 20)
        await door.aclose()

        assert bodies(producer.records) == ["one"]
        assert lab.is_empty()

    async def test_at_the_end_what_cannot_be_finished_is_given_back_at_once_to_the_next(
        self, lab: DoorLab, producer: MemoryProducer
    ) -> None:
        producer.set_unreachable()
        lab.send("one")
        door = lab.make(producer, visibility_timeout_s=600)
        async with running(door, limit_s=1.0):
            await eventually_async(lambda: door.unready() == ["log_unavailable"])

        assert lab.counts() == (1, 0)
        producer.set_unreachable("")
        async with running(lab.make(producer)):
            await eventually_async(lab.is_empty)
        assert bodies(producer.records) == ["one"]

    async def test_a_fault_of_ours_ends_the_door_and_deletes_nothing(
        self, lab: DoorLab, producer: MemoryProducer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def produce(_record: Record) -> None:
            message = "a bug"
            raise RuntimeError(message)

        monkeypatch.setattr(producer, "produce", produce)
        lab.send("one")
        door = lab.make(producer)
        await door.start()

        with pytest.raises(RuntimeError, match="a bug"):
            await asyncio.wait_for(door.run(), 20)
        await door.aclose()
        assert sum(lab.counts()) == 1

    async def test_an_unusable_template_names_its_setting(self, lab: DoorLab, producer: MemoryProducer) -> None:
        with pytest.raises(ConfigError, match=r"ingress\.orders\.key"):
            lab.make(producer, key="json:no-pointer")


class OrderedDoorSuite(DoorSuite):
    """For a queue whose groups keep their order."""

    async def test_one_key_keeps_its_order_over_a_failed_produce(self, lab: DoorLab, producer: MemoryProducer) -> None:
        producer.fail_next(LogUnavailable("away"))
        lab.send(*map(str, range(6)), group="a")
        lab.send(*map(str, range(10, 13)), group="b")

        async with running(lab.make(producer)):
            await eventually_async(lab.is_empty)

        found = [(record.key, body) for record, body in zip(producer.records, bodies(producer.records), strict=True)]
        assert [body for key, body in found if key == b"a"] == [str(number) for number in range(6)]
        assert [body for key, body in found if key == b"b"] == ["10", "11", "12"]
