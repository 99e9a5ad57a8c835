"""From where records are read after an assignment, and that nothing is read before that is known."""

import asyncio
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import IllegalStateError
from faust.transport.drivers.aiokafka import Consumer

from streams.fetching import BundlingConsumer
from tests.streams.test_shell import TP0, Thread, make_shell
from tests.support import eventually_async


class Reading:
    """Our consumer with Faust's part of it taken out: what was asked for in which order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.order: list[object] = []
        order = self.order

        async def assigned(_self: object, tps: object, _generation: int) -> None:
            order.append(("faust assigned", tps))

        async def read(_self: object, _timeout: float) -> tuple[str, set[object]]:
            order.append("read")
            return "records", set()

        async def seek_wait(_self: object, places: object) -> None:
            order.append(("seek", places))
            if self.lost:
                raise IllegalStateError

        async def perform_seek(_self: object) -> None:
            await self.may_seek.wait()

        monkeypatch.setattr(Consumer, "on_partitions_assigned", assigned)
        monkeypatch.setattr(Consumer, "perform_seek", perform_seek)
        monkeypatch.setattr(BundlingConsumer, "_wait_next_records", read)
        monkeypatch.setattr(Consumer, "seek_wait", seek_wait)
        self.lost = False
        self.may_seek: Any = asyncio.Event()
        self.may_seek.set()
        self.shell, self.app, client = make_shell()
        kind: Any = self.app.transport.Consumer
        self.consumer = consumer = kind.__new__(kind)
        self.app.consumer = consumer
        self.app.rebalancing = False
        consumer.app = self.app
        consumer.flow_active = True
        consumer._active_partitions = set()
        consumer._thread = Thread(client)
        consumer._thread.read_to = {TP0: (None, 75)}
        consumer._may_read, consumer._restarts = asyncio.Event(), {}
        consumer._assignments, consumer._has_sought = 0, True
        consumer._may_read.set()
        consumer.sleep = asyncio.sleep
        consumer.wait = _wait

    async def assign(self) -> None:
        await self.consumer.on_partitions_assigned({TopicPartition("events", 0)}, 7)
        await self.consumer.perform_seek()
        self.order.clear()

    async def next(self) -> Any:
        return (await self.consumer._wait_next_records(5))[0]


async def _wait(waited: Any, timeout: float | None = None) -> None:  # noqa: ASYNC109 - mode's signature
    """Wait as a service of mode does, for an event or a coroutine."""
    await asyncio.wait_for(waited.wait() if isinstance(waited, asyncio.Event) else waited, timeout)


async def test_nothing_is_read_before_it_is_known_from_where(monkeypatch: pytest.MonkeyPatch) -> None:
    reading = Reading(monkeypatch)
    await reading.assign()
    waiting = asyncio.ensure_future(reading.next())
    await asyncio.sleep(0)
    reading.shell.let_read({}, {})

    assert (await waiting, reading.order) == ({}, [])
    assert (await reading.next(), reading.order) == ("records", ["read"])


async def test_a_flow_that_begins_while_nothing_may_be_read_yet_does_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Faust's own wait for the flow is the last thing before it reads."""
    reading = Reading(monkeypatch)
    reading.consumer.flow_active = False
    reading.consumer.can_resume_flow = asyncio.Event()
    waiting = asyncio.ensure_future(reading.next())
    await asyncio.sleep(0)
    await reading.assign()
    reading.consumer.flow_active = True
    reading.consumer.can_resume_flow.set()
    await eventually_async(lambda: reading.consumer._may_read._waiters)
    reading.shell.let_read({}, {})

    assert (await waiting, reading.order) == ({}, [])


async def test_what_is_read_from_elsewhere_than_the_commit_is_gone_to_before_the_first_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reading = Reading(monkeypatch)
    await reading.assign()
    reading.shell.let_read({TP0: 0}, {})

    assert [await reading.next(), await reading.next()] == [{}, "records"]
    assert reading.order == [("seek", {TP0: 0}), "read"]


async def test_faust_has_gone_to_the_commits_before_we_go_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    reading = Reading(monkeypatch)
    await reading.assign()
    reading.shell.let_read({TP0: 0}, {})
    reading.app.rebalancing = True

    assert (await reading.next(), reading.order) == ({}, [])

    reading.app.rebalancing = False
    await reading.next()

    assert reading.order == [("seek", {TP0: 0})]


async def test_a_worker_that_had_no_partitions_does_not_read_before_faust_has_gone_to_the_commits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing was revoked from it, so its flow was not stopped; and what is read before would be read again."""
    reading = Reading(monkeypatch)
    await reading.assign()
    reading.app.rebalancing = True
    reading.shell.let_read({}, {})

    assert (await reading.next(), reading.order) == ({}, [])

    reading.app.rebalancing = False

    assert await reading.next() == "records"


async def test_the_end_of_one_rebalance_does_not_have_the_next_one_read_before_faust_has_gone_to_its_commits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Faust says "over" at the end of what it does for an assignment, also when the next rebalance has begun."""
    reading = Reading(monkeypatch)
    reading.may_seek.clear()
    of_the_former = asyncio.ensure_future(reading.consumer.perform_seek())
    await asyncio.sleep(0)
    assigning = asyncio.ensure_future(reading.assign())
    await eventually_async(lambda: len(reading.may_seek._waiters) == 2)
    reading.shell.let_read({}, {})
    of_the_former.cancel()
    await asyncio.wait([of_the_former])

    assert (await reading.next(), "read" in reading.order) == ({}, False)

    reading.may_seek.set()
    await assigning
    assert await reading.next() == "records"


async def test_a_seek_that_is_given_up_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    reading = Reading(monkeypatch)
    reading.may_seek.clear()
    assigning = asyncio.ensure_future(reading.assign())
    await eventually_async(lambda: reading.may_seek._waiters)
    assigning.cancel()
    await asyncio.wait([assigning])
    reading.shell.let_read({}, {})

    assert await reading.next() == "records"


async def test_a_worker_without_partitions_waits_for_no_seek(monkeypatch: pytest.MonkeyPatch) -> None:
    """Faust makes none, and has its own way to wait."""
    reading = Reading(monkeypatch)
    await reading.consumer.on_partitions_assigned(set(), 7)
    reading.shell.let_read({}, {})

    assert await reading.next() == "records"


async def test_partitions_that_are_not_ours_any_more_are_not_gone_to_and_end_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reading = Reading(monkeypatch)
    await reading.assign()
    reading.shell.let_read({TP0: 0}, {})
    reading.lost = True

    assert [await reading.next(), await reading.next()] == [{}, "records"]


async def test_an_assignment_knows_nothing_of_what_was_read_of_the_one_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a topic that was made anew since, the position would pass events that nobody has read."""
    reading = Reading(monkeypatch)
    reading.shell.let_read({TP0: 0}, {})
    await reading.assign()
    reading.shell.let_read({}, {})

    assert (reading.shell.read_to(), await reading.next()) == ({}, "records")
